"""The database: open it, run units and queries on it. Nothing above knows which one it is.

What differs between SQLite and PostgreSQL lives in this folder and nowhere else. Rooms write their
SQL once, in PostgreSQL's words (`sql.py`), and get a `Tx` (`interface.py`).
"""

from __future__ import annotations

from agentsight.server.db.errors import (
    ConstraintViolation,
    DatabaseError,
    DatabaseFull,
    DatabaseMissing,
    DatabaseUnavailable,
    DatabaseUrlError,
    QueryError,
    SchemaRefused,
    UniqueViolation,
    UnitSuspended,
)
from agentsight.server.db.interface import DEFAULT_POOL_SIZE, Database, Dialect, Tx, Unit
from agentsight.server.db.sql import Sql, sql
from agentsight.server.db.urls import DatabaseUrl, describe_url

__all__ = [
    "ConstraintViolation",
    "Database",
    "DatabaseError",
    "DatabaseFull",
    "DatabaseMissing",
    "DatabaseUnavailable",
    "DatabaseUrl",
    "DatabaseUrlError",
    "Dialect",
    "QueryError",
    "SchemaRefused",
    "Sql",
    "Tx",
    "UniqueViolation",
    "Unit",
    "UnitSuspended",
    "describe_url",
    "open_database",
    "sql",
]


async def open_database(
    url: str, *, create: bool = False, pool_size: int = DEFAULT_POOL_SIZE
) -> Database:
    """Open the database at `url`; it belongs to the running event loop, and its caller closes it.

    The schema is not looked at: that is `migrate.ensure_schema`'s job, once, before workers start.

    Args:
        url: `sqlite:///relative/path`, `sqlite:////absolute/path` or `postgresql://…`.
        create: Make an empty SQLite file where there is none.
        pool_size: How many connections a process holds at most (PostgreSQL).

    Raises:
        DatabaseUrlError: The address cannot be understood, or is on a network file system.
        DatabaseMissing: There is no such database.
        DatabaseUnavailable: It does not answer or cannot be opened.
    """
    where = DatabaseUrl.parse(url)
    # Each driver is imported where it is used: a SQLite instance never pays for asyncpg.
    if where.path is not None:
        from agentsight.server.db.sqlite import SqliteDatabase

        return await SqliteDatabase.open(where.path, create=create)
    from agentsight.server.db.postgresql import PostgresqlDatabase

    return await PostgresqlDatabase.open(where, pool_size=pool_size)
