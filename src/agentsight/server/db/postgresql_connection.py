"""One connection to PostgreSQL: how it is opened, what its errors mean, how a unit runs on it.

Nothing here knows of the pool; `postgresql.py` does.
"""
# asyncpg brings no types; this file is the wall that keeps its `Unknown`s from the rest.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeArgument=false

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import asyncpg
from asyncpg import exceptions as pg

from agentsight.server.db.errors import (
    ConstraintViolation,
    DatabaseError,
    DatabaseFull,
    DatabaseMissing,
    DatabaseUnavailable,
    DatabaseUrlError,
    QueryError,
    UniqueViolation,
)
from agentsight.server.db.interface import Argument, Row, Unit
from agentsight.server.db.sql import Sql
from agentsight.server.db.urls import DatabaseUrl

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 10

_RETRYABLE: Final = (
    pg.SerializationError, pg.DeadlockDetectedError, pg.InvalidCachedStatementError,
)  # fmt: skip
_LOST: Final = (
    ConnectionError,
    pg.PostgresConnectionError,
    pg.AdminShutdownError,
    pg.CrashShutdownError,
    pg.CannotConnectNowError,
    pg.IdleInTransactionSessionTimeoutError,
    # asyncpg's own: "connection is closed", "another operation is in progress"
    pg.InterfaceError,
    pg.InternalClientError,
)
_AWAY: Final = (
    *_LOST, OSError, TimeoutError, pg.InsufficientResourcesError, pg.OperatorInterventionError,
    pg.PostgresSystemError, pg.InternalServerError, pg.LockNotAvailableError, pg.SerializationError,
    pg.DeadlockDetectedError, pg.InFailedSQLTransactionError,
)  # fmt: skip


async def connect(url: DatabaseUrl) -> Any:
    """Open one connection outside of any pool.

    Raises:
        DatabaseUnavailable: The server does not answer or does not let us in.
        DatabaseMissing: The server has no such database.
    """
    try:
        return await asyncpg.connect(url.text, timeout=CONNECT_TIMEOUT_S)
    except Exception as exc:
        raise translate_connect(exc, url) from exc


def translate_connect(exc: Exception, url: DatabaseUrl) -> DatabaseError:
    """Turn a failure to connect into one of ours, naming the server."""
    shown = url.describe()
    if isinstance(exc, pg.InvalidCatalogNameError):
        return DatabaseMissing(f"there is no database at {shown}: make it with `createdb`")
    if isinstance(exc, (pg.ClientConfigurationError, ValueError)):
        return DatabaseUrlError(f"{shown}: {exc}")
    return DatabaseUnavailable(f"{shown} does not answer: {exc or type(exc).__name__}")


def translate(exc: Exception, *, reading: bool = False) -> DatabaseError:
    """Turn an error of asyncpg into one of ours."""
    if isinstance(exc, DatabaseError):
        return exc
    if isinstance(exc, pg.UniqueViolationError):
        constraint = _columns(exc)
        return UniqueViolation(f"a row with the same {constraint} exists", constraint)
    if isinstance(exc, pg.IntegrityConstraintViolationError):
        details: Any = exc
        what = details.constraint_name or details.column_name or str(exc)
        return ConstraintViolation(str(exc), what)
    if isinstance(exc, pg.DiskFullError):
        return DatabaseFull(f"no room left to write: {exc}")
    if isinstance(exc, pg.ReadOnlySQLTransactionError):
        if reading:
            return QueryError("a read tried to write")
        return DatabaseUnavailable(f"the server takes no writes: {exc}")
    # asyncpg's InterfaceError is also the parent of its complaints about arguments.
    if isinstance(exc, (pg.DataError, pg.UnsupportedClientFeatureError, ValueError, TypeError)):
        return QueryError(str(exc))
    if isinstance(exc, _AWAY):
        return DatabaseUnavailable(f"the database does not answer: {exc or type(exc).__name__}")
    return QueryError(str(exc))


def lacks_privilege(exc: Exception) -> bool:
    """Say whether the server refused because of who we are."""
    return isinstance(exc, pg.InsufficientPrivilegeError)


def _columns(exc: Any) -> str:
    """Return `table(column, column)`, as SQLite's errors allow it too."""
    # "Key (agent_id, slug)=(1, x) already exists.", in any language
    match = re.search(r"\(([^()]*)\)=\(", exc.detail or "")
    return f"{exc.table_name}({match[1]})" if match else str(exc.constraint_name)


class PostgresqlTx:
    """The `Tx` of one unit or query."""

    __slots__ = ("_connection", "_reading", "cause", "failure")

    def __init__(self, connection: Any, *, reading: bool) -> None:
        self._connection = connection
        self._reading = reading
        self.failure: DatabaseError | None = None
        """Set by the first error; from then on every call raises it again."""
        self.cause: Exception | None = None

    def _fail(self, exc: Exception) -> DatabaseError:
        self.cause = exc
        self.failure = translate(exc, reading=self._reading)
        return self.failure

    def _check(self, sql: Sql, args: Sequence[Argument]) -> None:
        if self.failure is not None:
            raise self.failure
        if len(args) != sql.n_params:
            raise self._fail(
                TypeError(f"{sql.n_params} arguments wanted, {len(args)} given: {sql.postgresql}")
            )

    async def rows(self, sql: Sql, *args: Argument) -> list[Row]:
        self._check(sql, args)
        try:
            return list(map(tuple, await self._connection.fetch(sql.postgresql, *args)))
        except Exception as exc:
            raise self._fail(exc) from exc

    async def row(self, sql: Sql, *args: Argument) -> Row | None:
        self._check(sql, args)
        try:
            record = await self._connection.fetchrow(sql.postgresql, *args)
        except Exception as exc:
            raise self._fail(exc) from exc
        return None if record is None else tuple(record)

    async def value(self, sql: Sql, *args: Argument) -> Any:
        row = await self.row(sql, *args)
        return None if row is None else row[0]

    async def execute(self, sql: Sql, *args: Argument) -> int:
        self._check(sql, args)
        try:
            status = await self._connection.execute(sql.postgresql, *args)
        except Exception as exc:
            raise self._fail(exc) from exc
        count = status.rpartition(" ")[2]  # "INSERT 0 3", "UPDATE 3", "CREATE TABLE"
        return int(count) if count.isdigit() else 0

    async def execute_many(self, sql: Sql, rows: Sequence[Sequence[Argument]]) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            await self._connection.executemany(sql.postgresql, rows)
        except Exception as exc:
            raise self._fail(exc) from exc

    def end(self) -> None:
        """Make it useless: its unit has returned."""
        if self.failure is None:
            self.failure = QueryError("this tx has ended: it was used after its unit returned")


class CommitUnknown(DatabaseUnavailable):
    """The connection was lost while the commit was under way: it may or may not have happened."""


def may_be_tried_again(exc: DatabaseUnavailable) -> bool:
    """Say whether nothing has happened, and a second try may go better.

    Without a commit nothing has happened, whatever was lost.
    """
    if isinstance(exc, CommitUnknown):
        return False
    return isinstance(exc.__cause__, (*_RETRYABLE, *_LOST))


async def run(unit: Unit[T], tx: PostgresqlTx) -> T:
    """Run a unit; an error that it swallowed is raised all the same."""
    try:
        value = await unit(tx)
        failure = tx.failure
    finally:
        tx.end()
    if failure is not None:
        raise failure
    return value


async def begin(connection: Any, statement: str) -> None:
    try:
        await connection.execute(statement)
    except Exception as exc:
        raise translate(exc) from exc


async def commit(connection: Any) -> None:
    """Commit, and tell a refusal (nothing happened) from a loss (nobody knows)."""
    try:
        status = await connection.execute("COMMIT")
    except _RETRYABLE as exc:
        raise translate(exc) from exc
    except pg.PostgresError as exc:
        if isinstance(exc, _LOST):
            raise _unknown(exc) from exc
        raise translate(exc) from exc
    except (OSError, TimeoutError, pg.InterfaceError, pg.InternalClientError) as exc:
        raise _unknown(exc) from exc
    if status != "COMMIT":
        raise QueryError("the transaction had failed, and was undone")


def _unknown(exc: BaseException) -> CommitUnknown:
    return CommitUnknown(
        f"the connection was lost during the commit, which may have happened: {exc}"
    )
