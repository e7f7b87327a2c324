"""Reads of a SQLite file: short ones on the event loop, slow ones in a few threads.

A thread costs more than a short query (see `benchmarks/database.py`), so the short ones run right
where they are asked for, on a connection that can change nothing and does not wait for locks: in
WAL mode a writer never blocks a reader, and in the rare moments when something does (recovery after
a crash, the last connection of another process closing), the query moves to a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from agentsight.server.db.errors import DatabaseUnavailable
from agentsight.server.db.interface import Unit
from agentsight.server.db.sqlite_connection import SqliteTx, connect, run_to_end, translate

T = TypeVar("T")

SLOW_READ_THREADS: Final = 4
"""SQLite's calls release the interpreter's lock, so threads help; more of them only swap caches."""


def run_query(connection: sqlite3.Connection, path: Path, query: Unit[T], *, snapshot: bool) -> T:
    """Run a query to its end; with `snapshot`, all its statements see one state."""
    if not snapshot:
        return run_to_end(query, SqliteTx(connection, path, reading=True))
    try:
        connection.execute("BEGIN")
    except sqlite3.Error as exc:
        raise translate(exc, path, reading=True) from exc
    try:
        return run_to_end(query, SqliteTx(connection, path, reading=True))
    finally:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")  # a read has nothing to commit


class _SlowRead:
    """One query in a thread, and the means to stop it from outside."""

    def __init__(self, readers: SlowReaders, query: Unit[Any], *, snapshot: bool) -> None:
        self._readers = readers
        self._query = query
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._is_stopped = False

    def run(self) -> Any:
        connection = self._readers.take()
        try:
            with self._lock:
                if self._is_stopped:
                    raise DatabaseUnavailable("the read was interrupted")
                self._connection = connection
                # SQLite forgets an interrupt that comes between two statements; this does not.
                connection.set_progress_handler(self._must_stop, 20_000)
            return run_query(connection, self._readers.path, self._query, snapshot=self._snapshot)
        finally:
            with self._lock:
                self._connection = None
            connection.set_progress_handler(None, 0)
            self._readers.give_back(connection)

    def _must_stop(self) -> int:
        return int(self._is_stopped)

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            if self._connection is not None:
                self._connection.interrupt()


class SlowReaders:
    """A few threads, each query with a connection of its own. Opened when first needed."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._pool = ThreadPoolExecutor(SLOW_READ_THREADS, f"read {path.name}")
        self._idle: list[sqlite3.Connection] = []
        self._running: set[_SlowRead] = set()

    async def read(self, query: Unit[T], *, snapshot: bool) -> T:
        """Run a query in a thread; cancelling the caller interrupts it."""
        work = _SlowRead(self, query, snapshot=snapshot)
        self._running.add(work)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work.run)
        except asyncio.CancelledError:
            work.stop()
            raise
        finally:
            self._running.discard(work)

    def take(self) -> sqlite3.Connection:
        """Take an idle connection, or open one (in a thread of the pool)."""
        try:
            return self._idle.pop()
        except IndexError:
            return connect(
                self.path, create=False, read_only=True, busy_timeout_s=self._busy_timeout_s
            )

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Keep a connection for the next query."""
        self._idle.append(connection)

    def interrupt(self) -> None:
        """Stop what runs: nobody will wait for it."""
        for work in list(self._running):
            work.stop()

    def close(self) -> None:
        """Wait for the threads, close the connections. Blocks."""
        # What still waits for a thread runs, finds itself stopped, and tells its caller so.
        self._pool.shutdown(wait=True)
        while self._idle:
            self._idle.pop().close()
