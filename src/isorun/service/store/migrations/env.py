"""Alembic's way in: the connection comes from `database`, which is the only one who migrates."""

from alembic import context

from isorun.service.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
