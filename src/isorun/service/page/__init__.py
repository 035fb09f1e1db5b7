"""The page of the service: rendered here, and brought to life by small modules of its own."""
