"""Processes: an idle one, a tree of them that ends together, and the owner that a name tells."""
