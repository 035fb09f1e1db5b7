"""What a run prints, on its way from the pipes to the books."""
