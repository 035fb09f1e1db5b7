"""Pure values and decisions. Standard library only; touches no kernel, file or clock."""
