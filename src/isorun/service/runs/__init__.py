"""Runs as the service keeps them: begun for a user, followed into the store, told to every watcher."""
