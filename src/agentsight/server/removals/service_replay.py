"""Erase again what a backup brought back.

Every erasure leaves its hashes in the store of bytes as well as in the database. A database that
was restored from an older backup lacks the latest of them: before anybody is served, what they name
is looked for, and erased again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from agentsight.server.access import Access, job_access
from agentsight.server.blobs import ObjectMissing
from agentsight.server.db import Tx
from agentsight.server.ids import AgentId, ConversationPk, OrganisationId, new_uid
from agentsight.server.parts import Parts
from agentsight.server.removals import store, store_receipts, store_replay
from agentsight.server.removals.model import LEDGER_FOLDER, LedgerEntry, LedgerObject
from agentsight.server.removals.service import STEPS_OF_OPERATOR, begin_for_many
from agentsight.server.removals.service_work import finish, remove_files, write_ledger_object
from agentsight.server.removals.store import GoingFile
from agentsight.server.removals.store_replay import SeenConversation, Tenants

log = logging.getLogger("agentsight.server")
T = TypeVar("T")
_MAX_OBJECT_BYTES: Final = 256 * 1024 * 1024
_STRIDE: Final = 500


@dataclass(slots=True)
class Replayed:
    """What a replay found and did."""

    n_learned: int = 0
    """Erasures that the database did not know of."""
    n_written: int = 0
    """Erasures that the store did not know of."""
    n_foreign: int = 0
    """Erasures whose hashes were made with another key: nobody can tell what they name."""
    n_conversations: int = 0
    n_attachments: int = 0
    """Those that went with their conversations, too."""
    receipt_uids: list[str] = field(default_factory=list[str])

    @property
    def is_quiet(self) -> bool:
        """Say whether there was nothing to do."""
        return not (self.n_learned or self.n_written or self.n_foreign)


async def replay(parts: Parts) -> Replayed:
    """Make database and store know of the same erasures, and erase what came back.

    Safe to repeat, and to break off: what is learned is written down last.

    Raises:
        StorageUnavailable: The store does not answer.
    """
    replayed = Replayed()
    known = await parts.db.read(store_receipts.ledgered)
    kept: set[str] = set()
    learned: list[LedgerObject] = []
    async for item in parts.blobs.list_objects(LEDGER_FOLDER):
        uid = item.key.removeprefix(LEDGER_FOLDER)
        kept.add(uid)
        if uid in known:
            continue
        found = await _read_object(parts, item.key)
        if found is None:
            replayed.n_foreign += 1
        else:
            learned.append(found)
    if learned:
        tenants = await parts.db.read(store_replay.tenants)
        entries = [entry for one in learned for entry in _still_meant(one, tenants)]
        if entries:
            await _erase_again(parts, tenants, entries, replayed)
        for one in learned:
            replayed.n_learned += await _learn(parts, one, list(_still_meant(one, tenants)))
    await _write_missing(parts, known - kept, replayed)
    return replayed


async def _read_object(parts: Parts, key: str) -> LedgerObject | None:
    try:
        text = await parts.blobs.read_whole(key, max_bytes=_MAX_OBJECT_BYTES)
        found = msgspec.json.decode(text, type=LedgerObject)
    except (ObjectMissing, ValueError, msgspec.MsgspecError) as error:
        log.error("an erasure's entry in the store cannot be read: %s: %s", key, error)
        return None
    if found.key_id != parts.ledger.key_id:
        log.error(
            "%s was written with another key, which this database does not have: what it names"
            " cannot be found. Restore a backup made after the first start of this version, or"
            " copy the value `ledger_key` of the table instance_values from the database that was"
            " replaced.",
            key,
        )
        return None
    return found


def _still_meant(one: LedgerObject, tenants: Tenants) -> Iterable[LedgerEntry]:
    """Leave out entries whose agent is another one now: row ids begin anew in a restored copy."""
    for entry in one.entries:
        if tenants.organisations.get(entry.organisation_id) != one.organisation_uid:
            continue
        if entry.agent_id is None or tenants.agents.get(entry.agent_id) == entry.agent_uid:
            yield entry


async def _erase_again(
    parts: Parts, tenants: Tenants, entries: list[LedgerEntry], replayed: Replayed
) -> None:
    erased_at = {entry.subject_hash: entry.erased_at for entry in entries}
    with_files = {entry.agent_id for entry in entries if entry.kind == "attachment"}
    for agent_id, organisation_id in tenants.organisation_of.items():
        access = job_access(organisation_id, agent_id)
        await _erase_conversations(parts, access, erased_at, replayed)
        if agent_id in with_files:
            await _erase_attachments(parts, access, erased_at, replayed)


def _had_been_erased(
    parts: Parts, access: Access, seen: SeenConversation, erased_at: dict[str, int]
) -> bool:
    hashes = [parts.ledger.of_conversation(access.agent_id, seen.conversation_id)]
    if seen.customer_id is not None:
        hashes.append(parts.ledger.of_customer(access.organisation_id, seen.customer_id))
    # What was made after the erasure is another conversation under the same name.
    return any(seen.created_at <= erased_at.get(one, -1) for one in hashes)


async def _erase_conversations(
    parts: Parts, access: Access, erased_at: dict[str, int], replayed: Replayed
) -> None:
    after = 0
    while True:
        seen = await _some(parts, store_replay.some_conversations, access, after)
        pks = [one.pk for one in seen if _had_been_erased(parts, access, one, erased_at)]
        if pks:
            replayed.n_conversations += await _erase_pks(parts, access, pks, replayed)
        if len(seen) < _STRIDE:
            return
        after = seen[-1].pk


async def _erase_pks(
    parts: Parts, access: Access, pks: list[ConversationPk], replayed: Replayed
) -> int:
    now = parts.clock()
    uid = new_uid(now)

    async def unit(tx: Tx) -> int:
        await begin_for_many(tx, access, "replay", uid, now_us=now)
        return len(await store.mark_by_pks(tx, access, pks, uid, now_us=now))

    n_marked = await parts.db.write(unit)
    replayed.receipt_uids.append(uid)
    work = await finish(parts, uid, max_steps=STEPS_OF_OPERATOR)
    replayed.n_attachments += work.receipt.rows.attachments
    return n_marked


async def _erase_attachments(
    parts: Parts, access: Access, erased_at: dict[str, int], replayed: Replayed
) -> None:
    after = 0
    while True:
        seen = await _some(parts, store_replay.some_attachments, access, after)
        files = [f for f in seen if parts.ledger.of_attachment(access.agent_id, f.uid) in erased_at]
        if files:
            await _erase_files(parts, access, files, replayed)
        if len(seen) < _STRIDE:
            return
        after = seen[-1].attachment_id


async def _erase_files(
    parts: Parts, access: Access, files: list[GoingFile], replayed: Replayed
) -> None:
    now = parts.clock()
    uid = new_uid(now)

    async def unit(tx: Tx) -> None:
        work = await begin_for_many(tx, access, "replay", uid, now_us=now)
        await remove_files(tx, access, work, files, now_us=now)
        await store_receipts.put(tx, work, now_us=now)

    await parts.db.write(unit)
    replayed.n_attachments += len(files)
    replayed.receipt_uids.append(uid)
    await finish(parts, uid, max_steps=STEPS_OF_OPERATOR)


async def _some(
    parts: Parts,
    read: Callable[[Tx, Access, int, int], Coroutine[Any, Any, list[T]]],
    access: Access,
    after: int,
) -> list[T]:
    return await parts.db.read(lambda tx: read(tx, access, after, _STRIDE), slow=True)


async def _learn(parts: Parts, one: LedgerObject, entries: list[LedgerEntry]) -> bool:
    """Write entries into the database: late resends are dropped here too from now on."""

    async def unit(tx: Tx) -> bool:
        n_added = 0
        for entry in entries:
            n_added += await store_receipts.add_entry(
                tx,
                job_access(OrganisationId(entry.organisation_id)),
                uid=entry.uid,
                agent_id=None if entry.agent_id is None else AgentId(entry.agent_id),
                kind=entry.kind,
                subject_hash=entry.subject_hash,
                erased_at=entry.erased_at,
                receipt_uid=one.receipt_uid,
            )
        return n_added > 0

    return await parts.db.write(unit)


async def _write_missing(parts: Parts, missing: set[str], replayed: Replayed) -> None:
    """Write into the store what only the database knows (a store that was restored, or moved)."""
    for uid in sorted(missing):
        organisation_id = await parts.db.read(
            lambda tx, uid=uid: store_receipts.organisation_of(tx, uid)
        )
        if organisation_id is not None and await write_ledger_object(parts, organisation_id, uid):
            replayed.n_written += 1
