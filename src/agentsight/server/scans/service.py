"""Scanning in the background: take a blob that waits, stream it to the daemon, keep the verdict.

The daemon is asked whether it is there before anything is taken: while it is away, jobs wait as
they are and nothing is written. A file is `not_scanned`, and served, until its scan has ended.
"""

from __future__ import annotations

import logging
from typing import Final

from agentsight.server import metrics
from agentsight.server.attachments.store_jobs import (
    Job,
    finish_job,
    is_job_due,
    postpone_job,
    take_job,
)
from agentsight.server.blobs import ObjectMissing, StorageUnavailable
from agentsight.server.parts import Parts
from agentsight.server.scans import store
from agentsight.server.scans.clamd import SCAN_TIMEOUT_S, ping, scan_stream
from agentsight.server.scans.model import DaemonAway, Verdict

log = logging.getLogger("agentsight.server")
PAUSE_S: Final = 2.0
"""How long a new file waits at most while nothing else does; also how soon an absent daemon is
asked again."""
AT_ONCE: Final = 4
"""Of one process; clamd's own MaxThreads is 10 by default (clamd.conf(5))."""
_US: Final = 1_000_000
_LEASE_US: Final = int(SCAN_TIMEOUT_S + 60) * _US
MAX_ATTEMPTS: Final = 5
_FIRST_PAUSE_US: Final = 30 * _US
_told_away: set[str] = set()
"""Daemons whose absence is in this process's log."""


async def scan_step(parts: Parts) -> int:
    """Scan the next blob that waits; returns how many were taken. `AT_ONCE` may run beside."""
    address = parts.settings.clamd
    if address is None:
        return 0
    now, shares = parts.clock(), parts.scanning
    if not await parts.db.read(lambda tx: is_job_due(tx, "scan", now)):
        return 0
    if not await _is_there(address):
        return 0
    after, last_in_line = shares.last, shares.owing()
    job = await parts.db.write(
        lambda tx: take_job(
            tx, "scan", now_us=now, lease_us=_LEASE_US, after=after, last_in_line=last_in_line
        )
    )
    if job is None:  # another process was quicker
        return 0
    with shares.turn(job.agent_id):
        await _scan(parts, address, job)
    return 1


async def _is_there(address: str) -> bool:
    try:
        await ping(address)
    except DaemonAway as error:
        if address not in _told_away:
            _told_away.add(address)
            log.warning("malware scans wait: clamd does not answer: %s", error)
        return False
    if address in _told_away:
        _told_away.remove(address)
        log.info("clamd answers again, and malware scans go on: %s", address)
    return True


async def _scan(parts: Parts, address: str, job: Job) -> None:
    blob = await parts.db.read(lambda tx: store.read_scannable(tx, job.agent_id, job.blob_id))
    if blob is None:
        await parts.db.write(lambda tx: finish_job(tx, job.agent_id, job.blob_id, "scan"))
        return
    try:
        stream = await parts.blobs.read(blob.object_key, 0, blob.size_bytes)
        async with stream:
            if stream.size_bytes != blob.size_bytes:
                verdict = Verdict("failed", "its bytes are not whole")
            else:
                verdict = await scan_stream(address, aiter(stream))
    except ObjectMissing:
        verdict = Verdict("failed", "its bytes are gone")
    except StorageUnavailable as error:
        await _later(parts, job, attempts=job.attempts - 1)
        log.warning("a malware scan waits for the store: %s", error)
        return
    except DaemonAway as error:
        # It answered PING a moment ago: it may be this very file that it dies of.
        if job.attempts < MAX_ATTEMPTS:
            await _later(parts, job, attempts=job.attempts)
            return
        verdict = Verdict("failed", f"no verdict in {MAX_ATTEMPTS} attempts: {error}")
    await _keep(parts, job, blob, verdict)


async def _later(parts: Parts, job: Job, *, attempts: int) -> None:
    until = parts.clock() + (_FIRST_PAUSE_US << max(0, min(attempts, MAX_ATTEMPTS) - 1))
    await parts.db.write(
        lambda tx: postpone_job(tx, job, "scan", until_us=until, attempts=attempts)
    )


async def _keep(parts: Parts, job: Job, blob: store.Scannable, verdict: Verdict) -> None:
    now = parts.clock()
    await parts.db.write(
        lambda tx: store.put_verdict(tx, job.agent_id, job.blob_id, verdict, now_us=now)
    )
    metrics.scans.labels(verdict.result).inc()
    if verdict.result != "clean":
        log.warning(
            "a file is %s: blob %s of agent %s: %s",
            "infected" if verdict.result == "infected" else "not scanned",
            blob.uid,
            job.agent_id,
            verdict.detail,
        )
