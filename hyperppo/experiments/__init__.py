"""One figure or table of the paper, one file."""
