"""A page to try it in this machine's own browser."""
