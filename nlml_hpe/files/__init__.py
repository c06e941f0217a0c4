"""Reading and writing: images, atomic files, folders that replace others safely, locks, manifests."""
