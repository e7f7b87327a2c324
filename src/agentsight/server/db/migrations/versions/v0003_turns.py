"""Agents take turns in the work that waits for blobs."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("CREATE INDEX blob_jobs_by_agent ON blob_jobs (kind, agent_id, not_before, blob_id)")
