"""What the figures in README come from; each runs with one command."""
