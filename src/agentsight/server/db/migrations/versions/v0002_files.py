"""What files need: uploads, facts, derivatives, texts, limits, erasure, the audit log."""

from pathlib import Path

import sqlalchemy
from alembic import op

from agentsight.server.db.migrate_child import run_script

revision = "0002"
down_revision = "0001"
_STEP = 5_000


def upgrade() -> None:
    bind = op.get_bind()
    script = Path(__file__).with_name(f"v0002_files.{bind.dialect.name}.sql")
    run_script(bind, script.read_text())
    _fold_names(bind)


def _fold_names(bind: sqlalchemy.Connection) -> None:
    """Fill `filename_folded`, which no database folds as Python does."""
    take = sqlalchemy.text(
        "SELECT agent_id, id, filename FROM attachments WHERE (agent_id, id) > (:agent, :after)"
        " ORDER BY agent_id, id LIMIT :step"
    )
    put = sqlalchemy.text(
        "UPDATE attachments SET filename_folded = :folded WHERE agent_id = :agent AND id = :id"
    )
    agent, after = 0, 0
    while rows := bind.execute(take, {"agent": agent, "after": after, "step": _STEP}).all():
        values = [{"folded": name.casefold(), "agent": a, "id": i} for a, i, name in rows]
        bind.execute(put, values)
        agent, after = rows[-1][0], rows[-1][1]
