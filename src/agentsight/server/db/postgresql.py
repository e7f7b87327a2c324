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
import warnings
from collections.abc import Generator
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

import asyncpg
from asyncpg import exceptions as pg

from agentsight.server.db.errors import DatabaseUnavailable
from agentsight.server.db.interface import DEFAULT_POOL_SIZE, Unit
from agentsight.server.db.postgresql_connection import (
    CONNECT_TIMEOUT_S,
    PostgresqlTx,
    begin,
    commit,
    may_be_tried_again,
    run,
    translate_connect,
)
from agentsight.server.db.urls import DatabaseUrl

T = TypeVar("T")

ACQUIRE_TIMEOUT_S: Final = 10.0
"""How long a free connection is waited for; then 503."""
COMMAND_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 30.0
"""How long `close` waits for what runs; then connections are cut, and PostgreSQL rolls back."""
MAX_TRIES: Final = 6
"""Of one unit that others' transactions got in the way of."""
BACKOFF_S: Final = 0.01
"""Before the second try, doubled each time, times a random half to whole."""


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
    async def open(
        cls, url: DatabaseUrl, *, pool_size: int = DEFAULT_POOL_SIZE
    ) -> PostgresqlDatabase:
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

    async def _give_back(self, connection: Any) -> None:
        # A connection that cannot be cleaned is thrown away by the pool; the unit's own outcome,
        # or error, is what counts. The pool shields this from the caller's cancellation.
        with contextlib.suppress(Exception):
            await self._pool.release(connection, timeout=ACQUIRE_TIMEOUT_S)

    async def _undo(self, connection: Any) -> None:
        """Roll back what was not committed, and put the connection back."""
        with contextlib.suppress(Exception):
            await connection.execute("ROLLBACK", timeout=ACQUIRE_TIMEOUT_S)
        await self._give_back(connection)

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
                except DatabaseUnavailable as exc:
                    if not may_be_tried_again(exc):
                        raise
                await asyncio.sleep(BACKOFF_S * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 - no secret
            return await self._write_once(unit)

    async def _write_once(self, unit: Unit[T]) -> T:
        connection = await self._take()
        try:
            # Stores look again for what another unit has just committed; a server's default may be
            # a level that would hide it.
            await begin(connection, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            value = await run(unit, PostgresqlTx(connection, reading=False))
            await commit(connection)
        except BaseException:
            # Shielded: a caller that is cancelled must not leave a transaction behind.
            await asyncio.shield(self._undo(connection))
            raise
        await self._give_back(connection)
        return value

    async def read(self, query: Unit[T], *, slow: bool = False, snapshot: bool = False) -> T:
        del slow  # every read waits for the server, and holds nobody up
        with self._counted():
            try:
                return await self._read_once(query, snapshot=snapshot)
            except DatabaseUnavailable as exc:
                if not may_be_tried_again(exc):
                    raise
            # The connection had died in the pool, perhaps with a server that is back by now.
            return await self._read_once(query, snapshot=snapshot)

    async def _read_once(self, query: Unit[T], *, snapshot: bool) -> T:
        connection = await self._take()
        try:
            if snapshot:
                await begin(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return await run(query, PostgresqlTx(connection, reading=True))
        finally:
            if snapshot:  # a read has nothing to commit
                await asyncio.shield(self._undo(connection))
            else:
                await self._give_back(connection)

    async def scrub(self) -> bool:
        return True

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
