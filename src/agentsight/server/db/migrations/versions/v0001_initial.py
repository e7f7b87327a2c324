"""The first schema, as it was on that day: the scripts beside this file are never changed again."""

from pathlib import Path

from alembic import op

from agentsight.server.db.migrate_child import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    bind = op.get_bind()
    script = Path(__file__).with_name(f"v0001_initial.{bind.dialect.name}.sql")
    run_script(bind, script.read_text())
