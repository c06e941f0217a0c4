"""The image eye: crops of heads, what varies in training, and the networks that read a pose off them."""
