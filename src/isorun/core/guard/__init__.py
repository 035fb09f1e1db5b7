"""What keeps a caller's mistakes from harming runs: handlers that raise, objects used in a fork or after their end."""
