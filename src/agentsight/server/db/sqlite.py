"""SQLite as a `Database`: one thread that writes, the event loop and a few threads that read."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

from agentsight.server.db.errors import DatabaseUnavailable
from agentsight.server.db.interface import Unit
from agentsight.server.db.sqlite_connection import (
    connect,
    is_busy,
    refuse_network_filesystem,
    require_sqlite,
)
from agentsight.server.db.sqlite_readers import SlowReaders, run_query
from agentsight.server.db.sqlite_writer import Writer

T = TypeVar("T")
_Connections = tuple[sqlite3.Connection, sqlite3.Connection]

BUSY_TIMEOUT_S: Final = 10.0
"""How long another process's lock is waited for, in the writer's thread; then 503."""


class SqliteDatabase:
    """A SQLite file in WAL mode, which other processes may read and write at the same time.

    Belongs to the event loop it was opened on. Who opened it calls `close`, or uses it as an async
    context manager; forgetting warns.
    """

    def __init__(self, path: Path, busy_timeout_s: float, connections: _Connections) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        writing, self._reading = connections
        self._slow = SlowReaders(path, busy_timeout_s)
        self._writer = Writer(writing, path)
        self._is_closed = False

    @classmethod
    async def open(
        cls, path: Path, *, create: bool = False, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> SqliteDatabase:
        """Open the file at `path`; make an empty one only if `create`.

        Raises:
            DatabaseMissing: There is no file, and `create` is False.
            DatabaseUrlError: It is on a network file system.
            DatabaseUnavailable: It cannot be opened.
        """
        # In a thread: switching a fresh file to WAL may wait for another process's lock.
        connections = await asyncio.to_thread(_open_both, path, create, busy_timeout_s)
        return cls(path, busy_timeout_s, connections)

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        return "sqlite"

    async def write(self, unit: Unit[T]) -> T:
        self._check()
        return await self._writer.submit(unit)

    async def read(self, query: Unit[T], *, slow: bool = False, snapshot: bool = False) -> T:
        self._check()
        if not slow:
            try:
                return run_query(self._reading, self._path, query, snapshot=snapshot)
            except DatabaseUnavailable as exc:
                if not is_busy(exc):
                    raise
        return await self._slow.read(query, snapshot=snapshot)

    async def scrub(self) -> bool:
        self._check()
        return await self._writer.scrub()

    def _check(self) -> None:
        if self._is_closed:
            raise DatabaseUnavailable(f"{self._path} is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a Database belongs to the event loop it was opened on")

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._slow.interrupt()
        await asyncio.to_thread(self._close_all)

    def _close_all(self) -> None:
        self._slow.close()
        self._reading.close()
        self._writer.end()  # last: the writer is then alone, and the log goes with its connection
        self._writer.thread.join()

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
            warnings.warn(f"{self._path} was not closed", ResourceWarning, stacklevel=2)
            self._writer.end()
            self._slow.close()
            self._reading.close()


def _open_both(path: Path, create: bool, busy_timeout_s: float) -> _Connections:
    """Open the writing and the event loop's reading connection."""
    require_sqlite()
    refuse_network_filesystem(path)
    writing = connect(path, create=create, read_only=False, busy_timeout_s=busy_timeout_s)
    try:
        # No waiting on the event loop: a query that meets a lock moves to a thread.
        return writing, connect(path, create=False, read_only=True, busy_timeout_s=0)
    except BaseException:
        writing.close()
        raise
