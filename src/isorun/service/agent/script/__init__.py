"""What the scripted model plays: its programs, and which of them comes next. No server, no network."""
