"""The child process that migrates: the only place that imports Alembic and SQLAlchemy.

Reads `{"url": …, "migrations": folder}` from standard input. Everything happens in one transaction
that begins by locking out other migrations, so that even a child whose parent was killed does no
harm, and a failure leaves the old schema.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import traceback
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from agentsight.server.db.migrate import ADVISORY_LOCK, BUSY_TIMEOUT_S, sqlite_statements
from agentsight.server.db.sql import split_statements
from agentsight.server.db.sqlite_connection import connect
from agentsight.server.db.urls import DatabaseUrl


def run_script(bind: Connection, script: str) -> None:
    """Run each statement of a script as it stands: no colon or percent sign means anything."""
    is_sqlite = bind.dialect.name == "sqlite"
    for statement in sqlite_statements(script) if is_sqlite else split_statements(script):
        bind.exec_driver_sql(statement)


def migrate(url: DatabaseUrl, migrations: Path) -> None:
    """Run all migrations that the database lacks, in one transaction."""
    if url.path is not None:
        _migrate_sqlite(url.path, migrations)
    else:
        asyncio.run(_migrate_postgresql(url, migrations))


def _upgrade(connection: Connection, migrations: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _migrate_sqlite(path: Path, migrations: Path) -> None:
    def open_connection() -> sqlite3.Connection:
        raw = connect(path, create=True, read_only=False, busy_timeout_s=BUSY_TIMEOUT_S)
        # A table that is made anew is dropped under its references; they are checked at the end.
        raw.execute("PRAGMA foreign_keys = OFF")
        return raw

    engine = sqlalchemy.create_engine("sqlite://", creator=open_connection, poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _upgrade(connection, migrations)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        if broken:
            raise RuntimeError(f"the migration breaks references: {broken[:5]}")
        connection.commit()
    engine.dispose()


async def _migrate_postgresql(url: DatabaseUrl, migrations: Path) -> None:
    address = url.text.partition("://")[2]
    engine = create_async_engine(f"postgresql+asyncpg://{address}", poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK + 1})")
        await connection.run_sync(_upgrade, migrations)
    await engine.dispose()


if __name__ == "__main__":
    order = json.load(sys.stdin)
    try:
        migrate(DatabaseUrl.parse(order["url"]), Path(order["migrations"]))
    except Exception as exc:  # noqa: BLE001 - the edge of a process
        traceback.print_exc()
        # The last line is what the parent tells; SQLAlchemy keeps the database's words in `orig`.
        reason = str(getattr(exc, "orig", None) or exc)
        sys.exit(" ".join(reason.split()))
