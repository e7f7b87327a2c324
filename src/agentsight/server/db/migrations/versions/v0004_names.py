"""File names have an index of trigrams, as texts have one."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":  # filled in the background: store_names.py
        op.execute(
            "CREATE VIRTUAL TABLE filename_search USING fts5 ("
            "content, content = '', tokenize = 'trigram', detail = none)"
        )
    else:
        op.execute(
            "CREATE INDEX attachments_by_name"
            " ON attachments USING gin (agent_id, filename_folded gin_trgm_ops)"
            " WITH (gin_pending_list_limit = 256)"
        )
