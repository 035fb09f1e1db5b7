"""What a program would show on a screen: open figures, and the value of its last line."""
