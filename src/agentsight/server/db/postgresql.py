"""PostgreSQL as a `Database`: a pool of connections, one transaction a unit.

Connections start read-only (`default_transaction_read_only`), and only a unit's `BEGIN READ WRITE`
may change anything, so that a read cannot write here either. The pool skips asyncpg's reset between
uses because nothing uses session state; what a unit left uncommitted is rolled back before.
"""
# asyncpg brings no types; this file is the wall that keeps its `Unknown`s from the rest.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeArgument=false

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import warnings
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

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

POOL_SIZE: Final = 10
"""Connections of one process. PostgreSQL allows 100 in all by default: eight workers fit."""
CONNECT_TIMEOUT_S: Final = 10
ACQUIRE_TIMEOUT_S: Final = 10.0
"""How long a free connection is waited for; then 503."""
COMMAND_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 30.0
"""How long `close` waits for what runs; then connections are cut, and PostgreSQL rolls back."""
MAX_TRIES: Final = 6
"""Of one unit that others' transactions got in the way of."""
BACKOFF_S: Final = 0.01
"""Before the second try, doubled each time, times a random half to whole."""

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


class _CommitUnknown(DatabaseUnavailable):
    """The connection was lost while the commit was under way: it may or may not have happened."""


class PostgresqlDatabase:
    """A PostgreSQL database, reconnected to by itself whenever it comes back.

    Belongs to the event loop it was opened on. Who opened it calls `close`, or uses it as an async
    context manager; forgetting warns.
    """

    def __init__(self, url: DatabaseUrl, pool: Any) -> None:
        self._url = url
        self._pool = pool
        self._is_closed = False
        self._n_running = 0
        self._is_idle = asyncio.Event()

    @classmethod
    async def open(cls, url: DatabaseUrl, *, pool_size: int = POOL_SIZE) -> PostgresqlDatabase:
        """Open a pool with one connection, so that a wrong address is heard of now.

        Raises:
            DatabaseUnavailable: The server does not answer or does not let us in.
            DatabaseMissing: The server has no such database.
        """
        pool = asyncpg.create_pool(
            url.text, min_size=1, max_size=pool_size, reset=_leave_as_it_is,
            timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S, statement_cache_size=512,
            server_settings={
                "application_name": "agentsight",
                "default_transaction_read_only": "on",
                # A process that stands still in a unit must not hold its locks for ever.
                "idle_in_transaction_session_timeout": "60s",
            },
        )  # fmt: skip
        try:
            await pool
        except Exception as exc:
            raise translate_connect(exc, url) from exc
        return cls(url, pool)

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        return "postgresql"

    async def _take(self) -> Any:
        """Take a connection out of the pool."""
        try:
            return await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except Exception as exc:
            raise translate_connect(exc, self._url) from exc

    async def _give_back(self, connection: Any, *, undo: bool) -> None:
        """Put a connection back; with `undo`, roll back first what was not committed."""
        # A connection that cannot be cleaned is thrown away by the pool; the unit's own outcome,
        # or error, is what counts.
        if undo:
            with contextlib.suppress(Exception):
                await connection.execute("ROLLBACK", timeout=ACQUIRE_TIMEOUT_S)
        with contextlib.suppress(Exception):
            await self._pool.release(connection, timeout=ACQUIRE_TIMEOUT_S)

    @contextlib.contextmanager
    def _counted(self) -> Generator[None]:
        """Let `close` wait for what goes on inside."""
        if self._is_closed:
            raise DatabaseUnavailable(f"{self._url.describe()} is closed")
        self._n_running += 1
        try:
            yield
        finally:
            self._n_running -= 1
            if self._is_closed and self._n_running == 0:
                self._is_idle.set()

    async def write(self, unit: Unit[T]) -> T:
        with self._counted():
            for attempt in range(1, MAX_TRIES):
                try:
                    return await self._write_once(unit)
                except _CommitUnknown:
                    raise
                except DatabaseUnavailable as exc:
                    # Without a commit nothing has happened, so that trying again is safe.
                    if not isinstance(exc.__cause__, (*_RETRYABLE, *_LOST)):
                        raise
                await asyncio.sleep(BACKOFF_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311
            return await self._write_once(unit)

    async def _write_once(self, unit: Unit[T]) -> T:
        connection = await self._take()
        undo = True
        try:
            await _begin(connection, "BEGIN READ WRITE")
            value = await _run(unit, PostgresqlTx(connection, reading=False))
            await _commit(connection)
            undo = False
            return value
        finally:
            # Shielded: a caller that is cancelled must not leave a transaction behind.
            await asyncio.shield(self._give_back(connection, undo=undo))

    async def read(self, query: Unit[T], *, slow: bool = False, snapshot: bool = False) -> T:
        del slow  # every read waits for the server, and holds nobody up
        with self._counted():
            try:
                return await self._read_once(query, snapshot=snapshot)
            except DatabaseUnavailable as exc:
                if not isinstance(exc.__cause__, (*_RETRYABLE, *_LOST)):
                    raise
            # The connection had died in the pool, perhaps with a server that is back by now.
            return await self._read_once(query, snapshot=snapshot)

    async def _read_once(self, query: Unit[T], *, snapshot: bool) -> T:
        connection = await self._take()
        try:
            if snapshot:
                await _begin(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return await _run(query, PostgresqlTx(connection, reading=True))
        finally:
            # A read has nothing to commit.
            await asyncio.shield(self._give_back(connection, undo=snapshot))

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._n_running:
                    await self._is_idle.wait()
                await self._pool.close()
        except (OSError, pg.PostgresError, pg.InterfaceError):  # a timeout is an OSError
            self._pool.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_closed", True):
            warnings.warn(f"{self._url.describe()} was not closed", ResourceWarning, stacklevel=2)
            with contextlib.suppress(Exception):  # the loop may be gone
                self._pool.terminate()


async def _leave_as_it_is(connection: Any) -> None:
    """Take the place of asyncpg's reset, a round trip that undoes what we never do."""


async def _run(unit: Unit[T], tx: PostgresqlTx) -> T:
    """Run a unit; an error that it swallowed is raised all the same."""
    try:
        value = await unit(tx)
        failure = tx.failure
    finally:
        tx.end()
    if failure is not None:
        raise failure
    return value


async def _begin(connection: Any, statement: str) -> None:
    try:
        await connection.execute(statement)
    except Exception as exc:
        raise translate(exc) from exc


async def _commit(connection: Any) -> None:
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


def _unknown(exc: BaseException) -> _CommitUnknown:
    return _CommitUnknown(
        f"the connection was lost during the commit, which may have happened: {exc}"
    )
