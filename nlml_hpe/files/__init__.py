"""Reading and writing: images, atomic writes, manifests."""
