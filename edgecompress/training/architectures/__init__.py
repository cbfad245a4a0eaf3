"""Networks that `train` can make, one a file."""
