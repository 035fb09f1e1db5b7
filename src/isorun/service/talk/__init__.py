"""Turns of a conversation: what the user says, and what comes of it."""
