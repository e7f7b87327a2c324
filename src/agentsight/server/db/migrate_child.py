"""The child process that migrates: the only place that imports Alembic and SQLAlchemy.

Reads `{"url": …, "migrations": folder}` from standard input. Everything happens in one transaction
that begins by locking out other migrations, so that even a child whose parent was killed does no
harm, and a failure leaves the old schema. A SQLite file of the first schema is rewritten before
that. What the operator should know is printed, a line each: the parent logs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sqlite3
import sys
import traceback
from pathlib import Path
from typing import Final

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

_LEAVING_TRACES: Final = frozenset({"0001"})
"""Schemas whose servers did not overwrite what they deleted (`secure_delete` came after them)."""
_READERS_MS: Final = 1_000


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


def rewrite_without_traces(path: Path, *, free_bytes: int) -> str | None:
    """Rewrite a SQLite file of an old schema, so that free pages hold nothing that was deleted.

    Before the migration, not after it: a crash in between then leaves an old schema, and the next
    start does both.

    Args:
        free_bytes: How much may be written beside the file. It takes the size of what is alive in
            it twice: a copy, and the write-ahead log that brings it back.

    Returns:
        Why it was not done, for the operator; else None.
    """
    connection = connect(path, create=False, read_only=False, busy_timeout_s=BUSY_TIMEOUT_S)
    with contextlib.closing(connection):
        if _schema_of(connection) not in _LEAVING_TRACES:
            return None
        pages, n_free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        needed = 2 * (pages - n_free) * size
        if needed > free_bytes:
            return _not_rewritten(path, f"that takes {needed} bytes, and {free_bytes} are free")
        try:
            # In a file: the server's connections keep what is temporary in memory.
            connection.execute("PRAGMA temp_store = FILE")
            connection.execute("VACUUM")
            # Who reads an older state now may do so for hours.
            connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}").fetchall()
            is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as exc:
            return _not_rewritten(path, str(exc))
    return _not_rewritten(path, "another process is reading it") if is_busy else None


def _schema_of(connection: sqlite3.Connection) -> str | None:
    with contextlib.suppress(sqlite3.Error):
        for (version,) in connection.execute("SELECT version_num FROM alembic_version"):
            return str(version)
    return None


def _not_rewritten(path: Path, reason: str) -> str:
    return (
        f"{path} was not rewritten ({reason}): its free pages may still hold texts that an older"
        f" version deleted. Stop the server and run: sqlite3 {path} VACUUM"
    )


def _migrate_sqlite(path: Path, migrations: Path) -> None:
    note = rewrite_without_traces(path, free_bytes=shutil.disk_usage(path.parent).free)
    if note is not None:
        print(note)

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
