"""Reads on their way into the audit log: counted in memory, written in steps.

A read must not cost a write. So the first of equal reads (same principal, action, subject and
detail) is written within a second, and those after it within the same minute are counted and
written as one record when the minute is over. A crash loses the reads of the last second, and how
often those of the last minute were repeated; an orderly stop loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, TypeAlias

from agentsight.server import metrics
from agentsight.server.access import Access
from agentsight.server.audits import store
from agentsight.server.audits.model import ReadKey
from agentsight.server.db import Database
from agentsight.server.db.errors import DatabaseError
from agentsight.server.ids import AgentId, OrganisationId

log = logging.getLogger("agentsight.server")
FLUSH_PAUSE_S: Final = 1.0
MAX_KEYS: Final = 20_000
"""Different reads that wait at a time, some 6 MB. More within a second than a process answers, so
they are passed only while the database is away: what is read then is not recorded, but counted."""
_MINUTE_US: Final = 60_000_000
_PER_UNIT: Final = 2000
"""Records of one unit of work: other writers must not wait long behind it."""


_Key: TypeAlias = tuple[
    OrganisationId, AgentId, str, str | None, str, str, str | int | None, str | None
]
"""A `ReadKey` as a plain tuple: half of what noting a read costs is making it."""


class Trail:
    """What one process has not yet written. Belongs to one event loop.

    Args:
        keeps_reads: Whether reads are kept at all (`AGENTSIGHT_AUDIT_READS`).
    """

    def __init__(self, *, keeps_reads: bool = True) -> None:
        self._keeps_reads = keeps_reads
        self._new: dict[_Key, int] = {}
        self._repeats: dict[_Key, int] = {}
        """Counts of what was written already in this minute; zero until it is repeated."""
        self._minute = 0
        self._n_lost = 0
        self._lock = asyncio.Lock()

    def read(
        self,
        access: Access,
        action: str,
        subject_kind: str,
        subject: str | int | None,
        *,
        detail: str | None = None,
    ) -> None:
        """Note that somebody has read something. Touches memory only.

        Args:
            action: One of `model.READS`.
            subject_kind: `conversation`, `attachment` or `agent`.
            subject: Its uid, or a conversation's row id.
            detail: What sets this read apart, as JSON text of our own words.
        """
        if not self._keeps_reads:
            return
        key = (
            access.organisation_id,
            access.agent_id,
            access.principal,
            access.principal_uid,
            action,
            subject_kind,
            subject,
            detail,
        )
        if key in self._repeats:
            self._repeats[key] += 1
        elif key in self._new:
            self._new[key] += 1
        elif len(self._new) < MAX_KEYS:
            self._new[key] = 1
        else:
            self._n_lost += 1

    async def flush(self, db: Database, now_us: int, *, is_last: bool = False) -> int:
        """Write what is new, and at the end of a minute (or of all) what was repeated.

        Returns the number of records. After a failure all of it waits for the next time; where the
        connection was lost at the commit itself, a record can then stand twice.

        Raises:
            DatabaseError: The database does not take it now.
        """
        # What was handed to the database is written whether or not the caller still waits: a stop
        # in the middle must neither lose it nor write it again.
        writing = asyncio.ensure_future(self._flush(db, now_us, is_last=is_last))
        writing.add_done_callback(_heard)
        return await asyncio.shield(writing)

    async def _flush(self, db: Database, now_us: int, *, is_last: bool) -> int:
        async with self._lock:
            self._tell_of_losses()
            minute = now_us // _MINUTE_US
            if is_last or minute != self._minute or len(self._repeats) > MAX_KEYS:
                await self._write_repeats(db, now_us)
                self._minute = minute
            n_written = 0
            while self._new:
                batch = list(self._new.items())[:_PER_UNIT]
                await _write(db, batch, now_us)
                n_written += len(batch)
                for key, n in batch:
                    # What came in while it was being written is a repeat of it.
                    self._repeats[key] = self._new.pop(key) - n
            return n_written

    async def _write_repeats(self, db: Database, now_us: int) -> None:
        batch = [(key, n) for key, n in self._repeats.items() if n]
        for start in range(0, len(batch), _PER_UNIT):
            part = batch[start : start + _PER_UNIT]
            await _write(db, part, now_us)
            for key, n in part:
                self._repeats[key] -= n
        # Once more within the new minute: that is a new read.
        self._repeats = {key: n for key, n in self._repeats.items() if n}

    def _tell_of_losses(self) -> None:
        if self._n_lost:
            log.error("the audit log missed reads: too many were waiting: %s", self._n_lost)
            metrics.audit_reads_lost.inc(self._n_lost)
            self._n_lost = 0


async def _write(db: Database, batch: list[tuple[_Key, int]], now_us: int) -> None:
    counts = [(ReadKey(*key), n) for key, n in batch]
    await db.write(lambda tx: store.add_reads(tx, counts, now_us=now_us))


def _heard(writing: asyncio.Future[int]) -> None:
    """Take note of the error of a write that nobody waits for any more."""
    if not writing.cancelled() and isinstance(writing.exception(), DatabaseError):
        log.debug("the audit log was not written: %s", writing.exception())
