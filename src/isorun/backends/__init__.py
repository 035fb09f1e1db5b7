"""Where sandboxes come from. `base` is the one interface; each other module is one way to keep it."""
