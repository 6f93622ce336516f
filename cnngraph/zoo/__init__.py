"""The shipped specs: their catalogue, and what the literature says of them."""
