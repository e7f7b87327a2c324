"""The one thread that writes to a SQLite file, and commits many units at once.

A commit with `synchronous=FULL` waits for the disk, many times as long as a small unit takes
(`benchmarks/database.py`). So units that wait together share one transaction and one commit, each
in a savepoint of its own; who asked hears of it after the commit, in one call into the event loop.

Other processes may write to the same file: their locks are waited for here, in `BEGIN IMMEDIATE`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentsight.server.db.errors import DatabaseFull, DatabaseUnavailable
from agentsight.server.db.interface import Tx, Unit
from agentsight.server.db.sqlite_connection import SqliteTx, run_to_end, translate

MAX_GROUP_UNITS: Final = 512
_SCRUB_PATIENCE_MS: Final = 200
MAX_GROUP_S: Final = 0.05
"""A group takes no new unit after this: what came first must not wait for what comes for ever."""


@dataclass(slots=True, eq=False)
class _Job:
    unit: Unit[Any]
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class _TransactionLostError(Exception):
    """A unit's error made SQLite undo the whole transaction by itself (disk full, I/O error)."""


class Writer:
    """Owns the writing connection and its thread. `close` ends both, from another thread."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._scrubs: deque[asyncio.Future[bool]] = deque()
        self._is_ending = False
        self.thread = threading.Thread(target=self._work, name=f"write {path.name}", daemon=True)
        self.thread.start()

    def submit(self, unit: Unit[Any]) -> asyncio.Future[Any]:
        """Let `unit` wait for its turn; the future holds its answer after the commit."""
        future = self._loop.create_future()
        self._jobs.put(_Job(unit, future))
        return future

    def scrub(self) -> asyncio.Future[bool]:
        """Empty the write-ahead log between two groups; the future says whether it is empty."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._scrubs.append(future)
        self.submit(_nothing)  # wakes the thread; what was committed before it is committed now
        return future

    def end(self) -> None:
        """Let the thread finish what waits, and then close its connection."""
        self._jobs.put(None)

    # --- in the thread ---

    def _work(self) -> None:
        while not self._is_ending:
            job = self._jobs.get()
            if job is None:
                break
            self._commit(self._take(job))
            while self._scrubs:
                self._empty_log(self._scrubs.popleft())
        with contextlib.suppress(sqlite3.Error):
            # Another process may be reading: then the next one to close does this.
            self._connection.execute("PRAGMA busy_timeout = 200")
            self._connection.execute("PRAGMA analysis_limit = 400")
            self._connection.execute("PRAGMA optimize").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._connection.close()

    def _empty_log(self, future: asyncio.Future[bool]) -> None:
        """Copy the log into the file and cut it to nothing, unless somebody reads from it."""
        execute = self._connection.execute
        is_empty = False
        with contextlib.suppress(sqlite3.Error):
            (patience_ms,) = execute("PRAGMA busy_timeout").fetchone()
            execute(f"PRAGMA busy_timeout = {_SCRUB_PATIENCE_MS}")  # writers wait behind this
            try:
                is_empty = execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            finally:
                execute(f"PRAGMA busy_timeout = {patience_ms}")
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, future, is_empty)

    def _commit(self, jobs: Iterable[_Job]) -> None:
        """Run jobs in one transaction, commit it, answer them all."""
        group: list[_Job] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            # The lock that was waited for in vain would be waited for again by each of the others.
            group = [*jobs, *self._waiting()]
            self._fail(group, exc)
            self._answer(group)
            return
        try:
            for job in jobs:
                group.append(job)
                self._run(job)
            self._connection.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001 - the edge of a thread: everyone must hear
            self._roll_back()
            if len(group) > 1 and self._has_a_culprit(exc):
                self._commit_each(group)
                return
            self._fail(group, exc)
        self._answer(group)

    def _has_a_culprit(self, exc: Exception) -> bool:
        """Say whether one unit may be to blame, and certainly nothing was committed.

        A full disk is told before the commit's last frame is written; of any other error in a
        commit nobody knows whether the disk has it.
        """
        is_full = isinstance(translate(exc, self._path), DatabaseFull)
        return is_full or isinstance(exc, _TransactionLostError)

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    def _commit_each(self, group: list[_Job]) -> None:
        """Run again, each in a transaction of its own, what was lost, perhaps through one of them.

        On a full disk SQLite undoes everything, not just the statement that did not fit
        (sqlite.org/lang_transaction.html, 3.1); the small ones may still fit.
        """
        for job in group:
            job.value, job.error = None, None
            self._commit([job])

    def _take(self, first: _Job) -> Iterator[_Job]:
        """Yield waiting units until there is none, or the group is large or old enough."""
        yield first
        until = time.monotonic() + MAX_GROUP_S
        for _ in range(MAX_GROUP_UNITS - 1):
            if time.monotonic() > until:
                return
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._is_ending = True
                return
            yield job

    def _waiting(self) -> Iterator[_Job]:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is None:
                    self._is_ending = True
                else:
                    yield job

    def _run(self, job: _Job) -> None:
        """Run one unit in its savepoint; its own error undoes it alone."""
        if job.future.cancelled():
            return
        execute = self._connection.execute
        execute("SAVEPOINT unit")
        try:
            job.value = run_to_end(job.unit, SqliteTx(self._connection, self._path, reading=False))
        except BaseException as exc:
            job.error = exc
            if not self._connection.in_transaction:
                raise _TransactionLostError from exc
            execute("ROLLBACK TO unit")
        execute("RELEASE unit")

    def _fail(self, group: list[_Job], exc: Exception) -> None:
        """Give the error to all that have none of their own."""
        is_full = isinstance(translate(exc, self._path), DatabaseFull)
        kind = DatabaseFull if is_full else DatabaseUnavailable
        for job in group:
            if job.error is None:
                # One instance each: raising an error writes into it.
                job.error = kind(f"nothing was written to {self._path}: {exc}")
                job.error.__cause__ = exc

    def _answer(self, group: list[_Job]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear
            self._loop.call_soon_threadsafe(_deliver, group)


async def _nothing(tx: Tx) -> None:
    """Do nothing, as a unit."""


def _settle(future: asyncio.Future[bool], is_empty: bool) -> None:
    """Hand out one answer, on the event loop."""
    if not future.done():
        future.set_result(is_empty)


def _deliver(group: list[_Job]) -> None:
    """Hand out answers, on the event loop."""
    for job in group:
        if job.future.done():  # its caller was cancelled
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.value)
