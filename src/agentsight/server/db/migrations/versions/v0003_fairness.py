"""Agents take turns, statements go in strides, unfinished uploads are counted by an index."""

from alembic import op

revision = "0003"
down_revision = "0002"

_BLANK_EXPIRED = (
    "UPDATE uploads SET blob_id = NULL, filename = '', declared_mime_type = NULL,"
    " detected_mime_type = NULL, sha256 = NULL WHERE state = 'expired'"
)

_FACTS_QUEUE = (
    "CREATE TABLE facts_queue ("
    " agent_id {number} NOT NULL, blob_id {number} NOT NULL, after_id {number} NOT NULL,"
    " created_at {number} NOT NULL, PRIMARY KEY (agent_id, blob_id),"
    " FOREIGN KEY (agent_id, blob_id) REFERENCES blobs (agent_id, id))"
)


def upgrade() -> None:
    op.execute("CREATE INDEX blob_jobs_by_agent ON blob_jobs (kind, agent_id, not_before, blob_id)")
    op.execute(_BLANK_EXPIRED)
    op.execute("DROP INDEX uploads_by_blob")
    op.execute(
        "CREATE INDEX uploads_by_blob ON uploads (agent_id, blob_id, created_at, expires_at)"
        " WHERE blob_id IS NOT NULL"
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(_FACTS_QUEUE.format(number="integer" if is_sqlite else "bigint"))
    if not is_sqlite:  # there a row's number stands behind every index by itself
        op.execute("DROP INDEX attachments_by_blob")
        op.execute("CREATE INDEX attachments_by_blob ON attachments (agent_id, blob_id, id)")
    op.execute(
        "CREATE INDEX uploads_unfinished ON uploads"
        " (agent_id, expires_at, leased_until, offset_bytes, size_bytes, state)"
        " WHERE state = 'pending'"
    )
    op.execute(
        "CREATE INDEX uploads_by_name ON uploads"
        " (agent_id, blob_id, filename, coalesce(declared_mime_type, '')) WHERE state = 'stored'"
    )
