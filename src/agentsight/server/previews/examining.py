"""The background look at what came in: facts, and text for the search.

A file that ends the examining process is tried three times, with pauses in between; then it is left
alone, and counted. A store that is away costs a file no attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Final

import msgspec

from agentsight.server import metrics
from agentsight.server.attachments.facts import Facts
from agentsight.server.attachments.store_facts import put_facts, read_facts
from agentsight.server.attachments.store_jobs import (
    Job,
    finish_job,
    is_job_due,
    postpone_job,
    take_job,
)
from agentsight.server.attachments.store_texts import put_text
from agentsight.server.blobs import ObjectMissing
from agentsight.server.db import Tx
from agentsight.server.db.errors import DatabaseError
from agentsight.server.ids import AgentId, BlobId
from agentsight.server.media import (
    Examined,
    Examiner,
    ExaminerDied,
    can_examine,
    can_play,
    can_preview,
    settled_type,
)
from agentsight.server.parts import Parts
from agentsight.server.previews import store
from agentsight.server.previews.model import (
    PLAYBACK_KIND,
    ROW_SIZE,
    Source,
    TextState,
    thumbnail_kind,
)
from agentsight.server.previews.sources import local_file
from agentsight.server.problems import Problem
from agentsight.server.text import mend_text

log = logging.getLogger("agentsight.server")
PAUSE_S: Final = 1.0
MAX_ATTEMPTS: Final = 3
_US: Final = 1_000_000
_DOWNLOAD_S: Final = 60
"""What fetching a large file from an object store may take, beside examining it."""
_PAUSE_US: Final = 60 * _US


async def examine_step(parts: Parts) -> int:
    """Examine the next blob that waits; returns how many were taken.

    One at a time: those behind it in a list would wait for it, whoever had come meanwhile.
    """
    examiner = parts.examiner
    if examiner is None:
        return 0
    now, shares = parts.clock(), parts.examining
    if not await parts.db.read(lambda tx: is_job_due(tx, "examine", now)):
        return 0
    lease_us = (parts.settings.examine_timeout_s + _DOWNLOAD_S) * _US
    after, last_in_line = shares.last, shares.owing()
    job = await parts.db.write(
        lambda tx: take_job(
            tx, "examine", now_us=now, lease_us=lease_us, after=after, last_in_line=last_in_line
        )
    )
    if job is None:  # another process was quicker
        return 0
    with shares.turn(job.agent_id):
        await _examine_or_give_back(parts, examiner, job)
    return 1


async def _examine_or_give_back(parts: Parts, examiner: Examiner, job: Job) -> None:
    try:
        await _examine_job(parts, examiner, job)
    except BaseException as error:
        # The store is away, or this server ends: no fault of a file's.
        pause_us = 0 if isinstance(error, asyncio.CancelledError) else _PAUSE_US
        with contextlib.suppress(DatabaseError):
            await _give_back(parts, job, parts.clock() + pause_us)
        raise


async def examine_now(parts: Parts, agent_id: AgentId, blob_id: BlobId) -> None:
    """Examine one blob because somebody waits for it. One that ends the process is not tried again.

    Raises:
        Problem: 410 when its bytes are gone, 503 when store or examiner are away.
    """
    examiner = parts.examiner
    source = await parts.db.read(lambda tx: store.read_source(tx, agent_id, blob_id))
    if examiner is None or source is None:
        return
    try:
        if examiner.is_closed:
            raise _stopping()
        outcome = await _look(parts, examiner, source)
    except ObjectMissing as error:
        log.error("an object is not there or not whole: %s", source.object_key)
        raise Problem(410, "gone", "The file's bytes are no longer there.") from error
    except ExaminerDied as error:
        if examiner.is_closed:
            raise _stopping() from error
        outcome = _failed(agent_id, blob_id, error)
    await _keep(parts, agent_id, blob_id, source, outcome)


def _stopping() -> Problem:
    return Problem(503, "busy", "This server is stopping.", retry_after_s=5)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is to be kept of a look at a blob."""

    examined: Examined
    text_state: TextState
    text: str = ""
    is_failure: bool = False


async def _examine_job(parts: Parts, examiner: Examiner, job: Job) -> None:
    agent_id, blob_id = job.agent_id, job.blob_id
    source = await parts.db.read(lambda tx: store.read_source(tx, agent_id, blob_id))
    if source is None:
        await parts.db.write(lambda tx: finish_job(tx, agent_id, blob_id, "examine"))
        return
    try:
        outcome = await _look(parts, examiner, source)
    except (ExaminerDied, ObjectMissing) as error:
        if examiner.is_closed:
            await _give_back(parts, job, parts.clock())
            return
        if job.attempts < MAX_ATTEMPTS:
            until = parts.clock() + _PAUSE_US * job.attempts**2
            await parts.db.write(
                lambda tx: postpone_job(tx, job, "examine", until_us=until, attempts=job.attempts)
            )
            return
        outcome = _failed(agent_id, blob_id, error)
    await _keep(parts, agent_id, blob_id, source, outcome)


def _failed(agent_id: AgentId, blob_id: BlobId, error: Exception) -> _Outcome:
    log.warning("a file cannot be examined: blob %s of agent %s: %s", blob_id, agent_id, error)
    return _Outcome(Examined(), "failed", is_failure=True)


async def _look(parts: Parts, examiner: Examiner, source: Source) -> _Outcome:
    mime_type = source.detected_mime_type
    if mime_type is None or source.size_bytes == 0 or not can_examine(mime_type):
        return _Outcome(Examined(), "none")
    if source.size_bytes > parts.settings.max_examined_bytes:
        return _Outcome(Examined(), "none", is_failure=True)
    async with parts.scratch.folder() as folder:
        path = await local_file(parts, source.object_key, source.size_bytes, folder)
        examined = await examiner.examine(path, mime_type=mime_type, filename=source.filename)
    text = mend_text(examined.text or "")
    is_failure = examined.note is not None
    if text.strip():
        return _Outcome(examined, "stored", text, is_failure)
    return _Outcome(examined, "none", is_failure=is_failure)


async def _give_back(parts: Parts, job: Job, until_us: int) -> None:
    """Let a job wait as if it had not been taken."""
    attempts = job.attempts - 1
    await parts.db.write(
        lambda tx: postpone_job(tx, job, "examine", until_us=until_us, attempts=attempts)
    )


async def _keep(
    parts: Parts, agent_id: AgentId, blob_id: BlobId, source: Source, outcome: _Outcome
) -> None:
    now = parts.clock()
    if outcome.is_failure:
        metrics.extraction_failures.inc()

    async def unit(tx: Tx) -> None:
        known = await read_facts(tx, agent_id, blob_id)
        if known is None or await store.read_source(tx, agent_id, blob_id) is None:
            await finish_job(tx, agent_id, blob_id, "examine")
            return
        facts = await _facts(tx, agent_id, blob_id, known, source, outcome.examined)
        await put_facts(tx, agent_id, blob_id, facts, now_us=now)
        if outcome.text_state == "stored":
            is_cut = outcome.examined.is_text_cut
            await put_text(tx, agent_id, blob_id, outcome.text, is_cut=is_cut, now_us=now)
        await store.put_text_state(tx, agent_id, blob_id, outcome.text_state)
        await finish_job(tx, agent_id, blob_id, "examine")

    await parts.db.write(unit)


async def _facts(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, known: Facts, source: Source, examined: Examined
) -> Facts:
    """Join what was found with what others know: the scan, and what could not be made."""
    mime_type = settled_type(source.detected_mime_type, examined.mime_type)
    preview = can_preview(mime_type) if examined.has_preview else None
    thumbnail = thumbnail_kind(ROW_SIZE)
    if preview == "image" and await store.is_known_as_none(tx, agent_id, blob_id, thumbnail):
        preview = None
    if preview is None and examined.text and examined.text.strip():
        preview = "text"
    playback = can_play(mime_type) if examined.has_playback else None
    if playback and await store.is_known_as_none(tx, agent_id, blob_id, PLAYBACK_KIND):
        playback = None
    return msgspec.structs.replace(
        known,
        detected_mime_type=mime_type,
        width=examined.width,
        height=examined.height,
        pages=examined.pages,
        seconds=examined.seconds,
        preview=preview,
        playback=playback,
    )
