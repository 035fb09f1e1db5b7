"""Held calls: a program's calls of the caller's own tools, which wait for an answer that comes from this process."""
