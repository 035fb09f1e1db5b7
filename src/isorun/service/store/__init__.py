"""What the service remembers. The same on SQLite and on PostgreSQL; each change is a migration."""
