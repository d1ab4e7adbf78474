"""How a score finds its bin, fast: by search, on a grid, or on a grid in compiled code."""
