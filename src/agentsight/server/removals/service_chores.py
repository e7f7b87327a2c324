"""What goes on beside requests: erasures are finished, grace periods and retention kept.

Each step may run in several processes at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from agentsight.server.access import Access, job_access
from agentsight.server.audits import store as audits
from agentsight.server.blobs import StorageUnavailable
from agentsight.server.db import Tx
from agentsight.server.ids import AgentId, OrganisationId, new_uid
from agentsight.server.parts import Parts
from agentsight.server.removals import store, store_blobs, store_hidden, store_receipts
from agentsight.server.removals import store_retention as retention
from agentsight.server.removals.model import ReceiptKind
from agentsight.server.removals.service import begin_for_many, forget_files
from agentsight.server.removals.service_work import (
    advance,
    collect,
    finish,
    remember_conversations,
    remove_object,
    remove_rows,
)
from agentsight.server.removals.store_retention import DueRule

log = logging.getLogger("agentsight.server")
_DAY_US: Final = 24 * 3600 * 1_000_000
_AT_ONCE: Final = 100
"""Conversations, or attachments, that one run takes: one receipt each run."""
_STEPS_A_RUN: Final = 2_000
_STEPS_A_TURN: Final = 500
"""Of one erasure, before another one has its turn."""
_IDLE_US: Final = 3_000_000
"""Whoever has begun an erasure goes on with it: two at it would only wait for each other."""
_WALKED: Final = 500
WALK_PAUSE_S: Final = 5.0


# --- What was begun -------------------------------------------------------------------------------


async def removals_step(parts: Parts) -> int:
    """Carry on what a crash, a full step or a store that was away has left unfinished."""
    return await carry_on(parts, idle_us=_IDLE_US, n_steps=_STEPS_A_TURN)


async def carry_on(parts: Parts, *, idle_us: int = 0, n_steps: int = 1) -> int:
    """Carry on each erasure that nobody has been at for so long; returns how many steps it took.

    Args:
        n_steps: Of each erasure. Whoever takes one step makes it fresh again: with single steps an
            erasure that must be idle first would rest after each.
    """
    n_done, since = 0, parts.clock() - idle_us
    failure: StorageUnavailable | None = None
    for uid in await parts.db.read(lambda tx: store_receipts.unfinished(tx, since, _AT_ONCE)):
        try:
            for _ in range(n_steps):
                if not await advance(parts, uid):
                    break
                n_done += 1
        except StorageUnavailable as error:  # the others may have rows to remove
            failure = error
    for blob in await parts.db.read(lambda tx: store_blobs.going(tx, None, _AT_ONCE)):
        await remove_object(parts, blob, None)
        n_done += 1
    if failure is not None and not n_done:
        raise failure
    return n_done


class Collector:
    """Finds contents that nothing refers to: an upload whose message never came, above all.

    It walks all blobs, some at a time, and begins anew at the end. Where it stands is nobody's
    business but its own: a new process begins anew too.
    """

    def __init__(self) -> None:
        self._after = (0, 0)

    async def step(self, parts: Parts) -> int:
        """Look at some blobs; returns how many were let go."""
        after, now = self._after, parts.clock()
        found = await parts.db.read(
            lambda tx: store_blobs.walk_stored(tx, after, _WALKED, now), slow=True
        )
        # At the end it rests with the first: `running` pauses wherever nothing was done.
        self._after = (found[-1][0], found[-1][2]) if len(found) == _WALKED else (0, 0)
        n_gone = 0
        for agent_id, organisation_id, blob_id, is_needed in found:
            if not is_needed:
                access = job_access(OrganisationId(organisation_id), agent_id)
                n_gone += await collect(parts, blob_id, access)
        return n_gone


# --- The grace period -----------------------------------------------------------------------------


async def grace_step(parts: Parts) -> int:
    """Erase what was hidden and not brought back in time."""
    until = parts.clock() - parts.settings.deletion_grace_days * _DAY_US
    due = await parts.db.read(lambda tx: store_hidden.due_conversation(tx, until))
    if due is not None:
        return await _erase_hidden_conversations(parts, *due, until)
    due = await parts.db.read(lambda tx: store_hidden.due_attachment(tx, until))
    return 0 if due is None else await _erase_hidden_attachments(parts, *due, until)


async def _erase_hidden_conversations(
    parts: Parts, agent_id: AgentId, organisation_id: OrganisationId, until: int
) -> int:
    access, now = job_access(organisation_id, agent_id), parts.clock()
    uid, is_sqlite = new_uid(now), parts.db.dialect == "sqlite"

    async def unit(tx: Tx) -> int:
        pks = await store_hidden.due_conversations(tx, access, until, _AT_ONCE)
        marked = await store.mark_by_pks(tx, access, pks, uid, now_us=now) if pks else []
        if not marked:
            return 0
        work = await begin_for_many(tx, access, "grace", uid, now_us=now)
        await remember_conversations(tx, parts, access, work, marked)
        await _audit(tx, access, "conversation", len(marked), "grace", now)
        await remove_rows(tx, work, is_sqlite=is_sqlite, now_us=now)
        await store_receipts.put(tx, work, now_us=now)
        return len(marked)

    return await _run(parts, uid, await parts.db.write(unit), "grace period")


async def _erase_hidden_attachments(
    parts: Parts, agent_id: AgentId, organisation_id: OrganisationId, until: int
) -> int:
    access, now = job_access(organisation_id, agent_id), parts.clock()
    uid = new_uid(now)

    async def unit(tx: Tx) -> int:
        files = await store_hidden.due_attachments(tx, access, until, _AT_ONCE)
        if not files:
            return 0
        work = await begin_for_many(tx, access, "grace", uid, now_us=now)
        work.stage = "ledger"
        await forget_files(tx, parts, access, work, files, now_us=now)
        await _audit(tx, access, "attachment", len(files), "grace", now)
        await store_receipts.put(tx, work, now_us=now)
        return len(files)

    return await _run(parts, uid, await parts.db.write(unit), "grace period")


# --- Retention ------------------------------------------------------------------------------------


async def retention_step(parts: Parts) -> int:
    """Erase some of the conversations that are older than their agent's rule."""
    n_done = 0
    for rule in await parts.db.read(retention.all_rules):
        n_done += await _keep_rule(parts, rule)
        await asyncio.sleep(0)
    return n_done


async def _keep_rule(parts: Parts, rule: DueRule) -> int:
    access, now = job_access(rule.organisation_id, rule.agent_id), parts.clock()
    before, where = now - rule.retention_days * _DAY_US, rule.environment_id
    uid, is_sqlite = new_uid(now), parts.db.dialect == "sqlite"
    # Asked by reading: an idle server must not take the writer's lock.
    pks = await parts.db.read(
        lambda tx: retention.due(tx, access, where, before, _AT_ONCE), slow=True
    )
    if not pks:
        return 0

    async def unit(tx: Tx) -> int:
        # Again, in the unit: a message may have come meanwhile, or another process.
        still = await retention.due(tx, access, where, before, _AT_ONCE)
        marked = await store.mark_by_pks(tx, access, still, uid, now_us=now) if still else []
        if not marked:
            return 0
        work = await begin_for_many(tx, access, "retention", uid, now_us=now)
        await _audit(tx, access, "conversation", len(marked), "retention", now)
        await remove_rows(tx, work, is_sqlite=is_sqlite, now_us=now)
        await store_receipts.put(tx, work, now_us=now)
        return len(marked)

    return await _run(parts, uid, await parts.db.write(unit), "retention")


# --- Both -----------------------------------------------------------------------------------------


async def _audit(tx: Tx, access: Access, kind: str, n: int, why: ReceiptKind, now_us: int) -> None:
    detail = f'{{"because": "{why}"}}'
    await audits.add(tx, access, "erase", kind, None, n=n, detail=detail, now_us=now_us)


async def _run(parts: Parts, uid: str, n: int, why: str) -> int:
    if n:
        work = await finish(parts, uid, max_steps=_STEPS_A_RUN)
        log.info("erased %s (%s), receipt %s: %s", n, why, uid, work.stage)
    return n
