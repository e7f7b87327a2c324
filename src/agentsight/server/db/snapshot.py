"""For developers: freeze the schema snapshots as the first migration, before the first release.

    python -m agentsight.server.db.snapshot

Writes `migrations/versions/v0001_initial.<dialect>.sql` from `schema.<dialect>.sql`. Once there is
a second migration, the first one is history, and this refuses. From then on a change of the schema
is a new migration *and* the same change in both snapshots; a test compares them.
"""

from __future__ import annotations

import sys
from typing import get_args

from agentsight.server.db.interface import Dialect
from agentsight.server.db.migrate import History, own_history
from agentsight.server.db.sql import split_statements


def freeze(history: History) -> None:
    """Write the first migration's scripts from the snapshots.

    Raises:
        SystemExit: There is more than one migration.
    """
    if len(history.versions) != 1:
        sys.exit("0001 is history: write a new migration, and change the snapshots by hand")
    for dialect in get_args(Dialect):
        statements = split_statements(history.script(dialect))
        # Alembic keeps its own table.
        kept = [statement for statement in statements if "alembic_version" not in statement]
        target = history.migrations / "versions" / f"v0001_initial.{dialect}.sql"
        target.write_text("".join(f"{statement};\n\n" for statement in kept), encoding="utf-8")


if __name__ == "__main__":
    freeze(own_history())
