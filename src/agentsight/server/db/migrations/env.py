"""Alembic's entry: run the revisions on the connection that the child process made."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=False)
context.run_migrations()
