"""The attacks of `isorun attack-matrix`, a module for each class, and what runs them."""
