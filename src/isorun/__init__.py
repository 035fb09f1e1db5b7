"""Run Python that nobody has read, sealed, and know afterwards exactly what happened."""

__version__ = "0.1.0"
