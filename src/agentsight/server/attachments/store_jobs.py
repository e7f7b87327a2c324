"""Work that waits for blobs: whoever takes a job moves it past the time it needs, then removes it.

A process that dies with a job in hand leaves it to whoever comes after that time. Agents take
turns: a thousand files of one hold the next file of another up by one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, get_args

from agentsight.server.db import Tx, sql
from agentsight.server.db.interface import Row
from agentsight.server.ids import AgentId, BlobId
from agentsight.server.shares import BEFORE_ALL

JobKind = Literal["examine", "scan"]
MAX_COUNTED: Final = 10_000

_ADD = sql(
    "INSERT INTO blob_jobs (agent_id, blob_id, kind, attempts, not_before, created_at)"
    " VALUES ($1, $2, $3, 0, $4, $4) ON CONFLICT (agent_id, blob_id, kind) DO NOTHING"
)
_DUE = sql("SELECT 1 FROM blob_jobs WHERE kind = $1 AND not_before <= $2 LIMIT 1")
_PICK = sql(
    "SELECT agent_id, blob_id, attempts FROM blob_jobs"
    " WHERE kind = $1 AND agent_id > $2 AND not_before <= $3"
    " ORDER BY agent_id, not_before, blob_id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_MOVE = sql(
    "UPDATE blob_jobs SET not_before = $4, attempts = $5"
    " WHERE agent_id = $1 AND blob_id = $2 AND kind = $3"
)
_FINISH = sql("DELETE FROM blob_jobs WHERE agent_id = $1 AND blob_id = $2 AND kind = $3")
_FORGET = sql("DELETE FROM blob_jobs WHERE agent_id = $1 AND blob_id = $2")
_COUNT = sql(
    "SELECT count(*) FROM (SELECT 1 FROM blob_jobs WHERE kind = $1 LIMIT $2::bigint) waiting"
)


@dataclass(frozen=True, slots=True)
class Job:
    """One blob's turn. `attempts` counts this one."""

    agent_id: AgentId
    blob_id: BlobId
    attempts: int


async def add_job(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, kind: JobKind, *, now_us: int
) -> None:
    """Let a blob wait for a kind of work; one that waits already goes on waiting."""
    await tx.execute(_ADD, agent_id, blob_id, kind, now_us)


async def is_job_due(tx: Tx, kind: JobKind, now_us: int) -> bool:
    """Say whether there is something to take; reading, so that an idle server never writes."""
    return await tx.value(_DUE, kind, now_us) is not None


async def take_job(
    tx: Tx,
    kind: JobKind,
    *,
    now_us: int,
    lease_us: int,
    after: AgentId = BEFORE_ALL,
    last_in_line: Collection[AgentId] = (),
) -> Job | None:
    """Take a job that is due, if there is one; nobody else gets it for `lease_us`.

    Of the next agent behind `after` that has one, the longest waiting.

    Args:
        last_in_line: Agents that get a turn only where no other has anything due.
    """
    row = await _pick(tx, kind, after, now_us, last_in_line)
    if row is None and last_in_line:
        row = await _pick(tx, kind, after, now_us, ())
    if row is None:
        return None
    job = Job(AgentId(row[0]), BlobId(row[1]), row[2] + 1)
    await postpone_job(tx, job, kind, until_us=now_us + lease_us, attempts=job.attempts)
    return job


async def _pick(
    tx: Tx, kind: JobKind, after: AgentId, now_us: int, passed_over: Collection[AgentId]
) -> Row | None:
    """Find the first job behind an agent, and then from the first agent on."""
    for start in (after, BEFORE_ALL):
        turn = start
        while (row := await tx.row(_PICK, kind, turn, now_us)) is not None:
            if row[0] not in passed_over:
                return row
            turn = AgentId(row[0])
    return None


async def postpone_job(tx: Tx, job: Job, kind: JobKind, *, until_us: int, attempts: int) -> None:
    """Give a job back, to be taken again from `until_us` on, as one tried `attempts` times."""
    await tx.execute(_MOVE, job.agent_id, job.blob_id, kind, until_us, attempts)


async def finish_job(tx: Tx, agent_id: AgentId, blob_id: BlobId, kind: JobKind) -> None:
    """Remove a job that is done."""
    await tx.execute(_FINISH, agent_id, blob_id, kind)


async def forget_jobs(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> None:
    """Remove all jobs of a blob that is on its way out."""
    await tx.execute(_FORGET, agent_id, blob_id)


async def count_waiting(tx: Tx) -> dict[str, int]:
    """Count what waits, by kind; counting ends at `MAX_COUNTED`, as it is asked often."""
    return {kind: await tx.value(_COUNT, kind, MAX_COUNTED) for kind in get_args(JobKind)}
