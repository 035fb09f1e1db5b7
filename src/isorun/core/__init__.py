"""Pure values and decisions. Standard library only; touches no kernel and no file."""
