"""Carry erasures on, step by step, until nothing is left: what a request begins, a chore ends.

Each step is bounded, so that nobody waits long for SQLite's one writer; each may be done by any
process, by several at once, and again after a crash.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agentsight.server import metrics
from agentsight.server.access import Access, job_access
from agentsight.server.attachments.store_counts import add_counts
from agentsight.server.blobs import ObjectExists, StorageUnavailable
from agentsight.server.db import Tx
from agentsight.server.db.errors import ConstraintViolation
from agentsight.server.ids import AgentId, BlobId, ConversationPk, OrganisationId, new_uid
from agentsight.server.parts import Parts
from agentsight.server.removals import (
    store,
    store_blobs,
    store_customers,
    store_receipts,
    store_scrubs,
    store_search,
    store_uploads,
)
from agentsight.server.removals.model import (
    LEDGER_FOLDER,
    LedgerObject,
    Receipt,
    Rows,
    Stage,
    add_rows,
    content_name,
    count_kept,
)
from agentsight.server.removals.service_uploads import (
    end_unfinished,
    end_uploads,
    end_uploads_of_kept,
)
from agentsight.server.removals.store import GoingFile, GoneFile, Marked
from agentsight.server.removals.store_blobs import GoingBlob
from agentsight.server.removals.store_receipts import Work

log = logging.getLogger("agentsight.server")
STRIDE_ROWS: Final = 500
_STRIDE_FILES: Final = 200
_STRIDE_CHARS: Final = 200_000
"""SQLite takes about 4 million characters a second out of its index, and is closed to others."""
_MARK_STRIDE: Final = 200
_OBJECTS_A_STEP: Final = 20


@dataclass(slots=True)
class _Room:
    """What one unit may still do."""

    rows: int = STRIDE_ROWS
    chars: int = _STRIDE_CHARS


# --- Rows -----------------------------------------------------------------------------------------


async def remove_rows(tx: Tx, work: Work, *, is_sqlite: bool, now_us: int) -> None:
    """Remove some rows of an erasure's conversations; its stage says when none is left."""
    room = _Room()
    while room.rows > 0 and room.chars > 0:
        found = await store.next_marked(tx, work.uid)
        if found is None:
            work.stage = "ledger"
            return
        agent_id, pk = found
        access = job_access(work.organisation_id, agent_id)
        await _remove_some(tx, access, work, pk, room, is_sqlite=is_sqlite, now_us=now_us)


async def _remove_some(
    tx: Tx,
    access: Access,
    work: Work,
    pk: ConversationPk,
    room: _Room,
    *,
    is_sqlite: bool,
    now_us: int,
) -> None:
    """Remove one kind of a conversation's rows: its links die first, its own row goes last."""
    files = await store.some_attachments(tx, access, pk, min(room.rows, _STRIDE_FILES))
    if files:
        await remove_files(tx, access, work, files, now_us=now_us)
        room.rows -= len(files)  # also those that another erasure has taken meanwhile
        return
    ids, n_chars = await store.some_messages(tx, access, pk, limit=room.rows, max_chars=room.chars)
    if ids:
        rows = await store.remove_messages(tx, access, ids, is_sqlite=is_sqlite, now_us=now_us)
        add_rows(work.receipt.rows, rows)
        room.rows -= len(ids)
        room.chars -= n_chars
        return
    n_feedbacks = await store.remove_feedbacks(tx, access, pk, limit=room.rows, now_us=now_us)
    room.rows -= n_feedbacks or 1
    if n_feedbacks:
        work.receipt.rows.feedbacks += n_feedbacks
        return
    n_removed = await store.remove_conversation(tx, access, pk, now_us=now_us)
    work.receipt.rows.conversations += n_removed


async def remove_files(
    tx: Tx, access: Access, work: Work, files: list[GoingFile], *, now_us: int
) -> None:
    """Remove attachments, and let go of the contents that nothing else refers to.

    What another erasure has removed meanwhile is its: it is not counted here.
    """
    ids = [file.attachment_id for file in files]
    gone = await store.remove_attachments(tx, access, ids, now_us=now_us)
    if not gone:
        return
    n_bytes = sum(file.size_bytes for file in gone)
    await add_counts(
        tx,
        access.agent_id,
        gone[0].attachment_id,
        n_attachments=-len(gone),
        referenced_bytes=-n_bytes,
    )
    sent_until = _take_notes(work.receipt, access.agent_id, gone)
    released = await store_blobs.release(
        tx, access, sent_until.keys(), work.uid, sent_until=sent_until, now_us=now_us
    )
    # A content is kept as long as the last of its attachments that go has not found it free.
    for blob_id, size_bytes in released.kept.items():
        name = content_name(access.agent_id, BlobId(blob_id))
        work.receipt.kept_now[name] = size_bytes
        work.receipt.sent_until[name] = sent_until[BlobId(blob_id)]
    n_uploads = 0
    for blob_id, filename, made_until in _names_of_kept(gone, released.kept):
        n_uploads += await store_uploads.end_named(
            tx, access, blob_id, filename, made_until_us=made_until, limit=_STRIDE_FILES,
            now_us=now_us,
        )  # fmt: skip
    add_rows(
        work.receipt.rows,
        Rows(
            attachments=len(gone),
            uploads=n_uploads,
            blobs=released.n_gone,
            blob_texts=released.n_texts,
        ),
    )


def _names_of_kept(gone: list[GoneFile], kept: Collection[int]) -> list[tuple[BlobId, str, int]]:
    """Return contents that stay and the names they lose, with when the last of each was made."""
    latest: dict[tuple[BlobId, str], int] = {}
    for file in gone:
        if file.blob_id in kept:
            key = (file.blob_id, file.filename)
            latest[key] = max(latest.get(key, 0), file.created_at)
    return [(blob_id, filename, at) for (blob_id, filename), at in latest.items()]


def _take_notes(receipt: Receipt, agent_id: AgentId, gone: list[GoneFile]) -> dict[BlobId, int]:
    """Take out of a receipt what it says of contents, and say when their last files were made."""
    sent_until: dict[BlobId, int] = {}
    for file in gone:
        sent_until[file.blob_id] = max(sent_until.get(file.blob_id, 0), file.created_at)
    for blob_id in sent_until:
        name = content_name(agent_id, blob_id)
        receipt.kept_now.pop(name, None)
        sent_until[blob_id] = max(sent_until[blob_id], receipt.sent_until.pop(name, 0))
    return sent_until


# --- Steps ----------------------------------------------------------------------------------------


async def _find(parts: Parts, work: Work) -> bool:
    """Mark some of the conversations of whom an erasure looks for."""
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        held = await store_receipts.hold(tx, work.uid, "finding")
        if held is None:
            return
        await find_some(tx, parts, held, now_us=now)
        await store_receipts.put(tx, held, now_us=now)

    await parts.db.write(unit)
    return True


async def find_some(tx: Tx, parts: Parts, work: Work, *, now_us: int) -> None:
    """Mark some of a customer's conversations, and remember them; the stage says when all are."""
    room = _MARK_STRIDE
    organisation = job_access(work.organisation_id)
    for agent_id in await store_customers.agents_of(tx, organisation):
        access = job_access(work.organisation_id, agent_id)
        marked = await store.mark_by_customer(
            tx,
            access,
            work.subject or "",
            work.uid,
            made_until_us=work.receipt.asked_at,
            limit=room,
            now_us=now_us,
        )
        await remember_conversations(tx, parts, access, work, marked)
        room -= len(marked)
        if room <= 0:
            return
    work.stage = "rows"
    work.subject = None


async def remember_conversations(
    tx: Tx, parts: Parts, access: Access, work: Work, marked: list[Marked]
) -> None:
    """Write marked conversations into the ledger."""
    for one in marked:
        await store_receipts.add_entry(
            tx,
            access,
            uid=new_uid(work.receipt.asked_at),
            agent_id=access.agent_id,
            kind="conversation",
            subject_hash=parts.ledger.of_conversation(access.agent_id, one.conversation_id),
            erased_at=work.receipt.asked_at,
            receipt_uid=work.uid,
        )
    work.receipt.is_ledgered |= bool(marked)


async def _remove(parts: Parts, work: Work) -> bool:
    now, is_sqlite = parts.clock(), parts.db.dialect == "sqlite"

    async def unit(tx: Tx) -> None:
        held = await store_receipts.hold(tx, work.uid, "rows")
        if held is not None:
            await remove_rows(tx, held, is_sqlite=is_sqlite, now_us=now)
            await store_receipts.put(tx, held, now_us=now)

    await parts.db.write(unit)
    return True


async def _write_ledger(parts: Parts, work: Work) -> bool:
    await write_ledger_object(parts, work.organisation_id, work.uid)
    return await _move(parts, work.uid, "ledger", "objects")


async def write_ledger_object(
    parts: Parts, organisation_id: OrganisationId, receipt_uid: str
) -> bool:
    """Keep an erasure's entries in the store of bytes too; False where it has none, or had one."""
    access = job_access(organisation_id)

    async def query(tx: Tx) -> LedgerObject:
        return LedgerObject(
            receipt_uid=receipt_uid,
            key_id=parts.ledger.key_id,
            organisation_uid=await store_receipts.organisation_uid(tx, access) or "",
            entries=await store_receipts.entries(tx, receipt_uid),
        )

    kept = await parts.db.read(query)
    if not kept.entries:
        return False
    try:
        async with await parts.blobs.create(LEDGER_FOLDER + receipt_uid) as writer:
            await writer.write(msgspec.json.encode(kept))
            await writer.finish()
    except ObjectExists:  # a crash, or another process, after it was written
        return False
    return True


async def _remove_objects(parts: Parts, work: Work) -> bool:
    """Remove objects, the uploads that hold the same first: what names a content outlives it in
    no row."""
    if work.receipt.sent_until:
        await end_uploads_of_kept(parts, work.uid)
        return True
    asked_at = work.receipt.asked_at
    blobs = await parts.db.read(
        lambda tx: store_blobs.going(tx, work.uid, _OBJECTS_A_STEP, begun_until_us=asked_at)
    )
    for blob in blobs:
        if blob.has_stored:
            await end_uploads(parts, work.uid, blob)
            return True
        if blob.has_unfinished:
            return await end_unfinished(parts, work, blob)
        await remove_object(parts, blob, work.uid)
    if blobs:
        return True
    if parts.db.dialect != "sqlite":
        return await _move(parts, work.uid, "objects", "complete")
    is_indexed = store_search.indexes_of(work.receipt.rows)
    return await _move(parts, work.uid, "objects", "index" if is_indexed else "scrub")


async def remove_object(parts: Parts, blob: GoingBlob, receipt_uid: str | None) -> None:
    """Remove a content's object with all that was made of it, then bury its row."""
    access = job_access(OrganisationId(blob.organisation_id), blob.agent_id)
    made = await parts.db.read(lambda tx: store_blobs.made_of(tx, access, blob.blob_id))
    for derived in made:
        await parts.blobs.delete(derived.object_key)
    await parts.blobs.delete(blob.object_key)
    now, is_sqlite = parts.clock(), parts.db.dialect == "sqlite"

    async def unit(tx: Tx) -> list[str]:
        held = None if receipt_uid is None else await store_receipts.lock(tx, receipt_uid)
        keys = await store_blobs.bury(tx, access, blob.blob_id, now_us=now)
        if keys is None:
            return []
        if receipt_uid is None and is_sqlite:  # no receipt will see to it
            await store_scrubs.ask_for_scrub(tx, with_index=False, now_us=now)
        if held is not None:
            held.receipt.objects += 1 + len(made)
            held.receipt.bytes += blob.size_bytes + sum(one.size_bytes for one in made)
            held.receipt.rows.derivatives += len(made)
            await store_receipts.put(tx, held, now_us=now)
        return keys

    known = {derived.object_key for derived in made}
    for key in await parts.db.write(unit):
        if key not in known:  # made between our look and the end
            await parts.blobs.delete(key)


async def _merge(parts: Parts, work: Work) -> bool:
    """Rewrite the search indexes that lost something, for all erasures that wait together."""
    del work
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        merging = await store_receipts.in_stage(tx, "merging")
        if not merging:
            waiting = await store_receipts.in_stage(tx, "index")
            await store_search.begin_merging(tx, await _indexes_of(tx, waiting))
            for uid in waiting:
                await _set_stage(tx, uid, "index", "merging", now)
        elif not await store_search.go_on_merging(tx, await _indexes_of(tx, merging)):
            for uid in merging:
                await _set_stage(tx, uid, "merging", "scrub", now)

    await parts.db.write(unit)
    return True


async def _indexes_of(tx: Tx, uids: Sequence[str]) -> list[str]:
    """Name the indexes that some erasures have taken something out of."""
    works = [await store_receipts.read_any(tx, uid) for uid in uids]
    return sorted(
        {table for work in works if work for table in store_search.indexes_of(work.receipt.rows)}
    )


async def _scrub(parts: Parts, work: Work) -> bool:
    """Empty the write-ahead log, for all erasures that wait for it together."""
    del work
    waiting = await parts.db.read(lambda tx: store_receipts.in_stage(tx, "scrub"))
    if not await parts.db.scrub():
        return False  # somebody reads an older state; the chore comes again
    for uid in waiting:
        await _move(parts, uid, "scrub", "complete")
    return False


_STEPS: Final[dict[Stage, Callable[[Parts, Work], Awaitable[bool]]]] = {
    "finding": _find,
    "rows": _remove,
    "ledger": _write_ledger,
    "objects": _remove_objects,
    "index": _merge,
    "merging": _merge,
    "scrub": _scrub,
}


async def _set_stage(tx: Tx, uid: str, old: Stage, new: Stage, now_us: int) -> bool:
    held = await store_receipts.hold(tx, uid, old)
    if held is None:
        return False
    held.stage = new
    if new == "complete":
        held.receipt.completed_at = now_us
        count_kept(held.receipt)
    await store_receipts.put(tx, held, now_us=now_us)
    return True


async def _move(parts: Parts, uid: str, old: Stage, new: Stage) -> bool:
    now = parts.clock()
    is_moved = await parts.db.write(lambda tx: _set_stage(tx, uid, old, new, now))
    if is_moved and new == "complete":
        metrics.erasures.inc()
    return new != "complete"


async def advance(parts: Parts, uid: str) -> bool:
    """Take one step of an erasure.

    Returns:
        False when it is complete, or cannot go on now.

    Raises:
        StorageUnavailable: The store of bytes does not answer; what was done stays done.
    """
    work = await parts.db.read(lambda tx: store_receipts.read_any(tx, uid))
    if work is None or work.stage == "complete":
        return False
    return await _STEPS[work.stage](parts, work)


async def finish(parts: Parts, uid: str, *, max_steps: int) -> Work:
    """Carry an erasure on as far as it goes; what is left then is the chore's."""
    try:
        for _ in range(max_steps):
            if not await advance(parts, uid):
                break
    except (StorageUnavailable, ConstraintViolation) as error:
        # The rows are gone for everybody already; whoever asked is told that it goes on.
        log.warning("an erasure goes on later: receipt %s: %s", uid, error)
    work = await parts.db.read(lambda tx: store_receipts.read_any(tx, uid))
    if work is None:
        raise LookupError(f"there is no receipt {uid}")
    return work


async def collect(parts: Parts, blob_id: BlobId, access: Access) -> bool:
    """Let go of a content that nothing refers to; False when something does after all."""
    now, is_sqlite = parts.clock(), parts.db.dialect == "sqlite"

    async def unit(tx: Tx) -> int:
        released = await store_blobs.release(tx, access, [blob_id], None, now_us=now)
        if released.n_texts and is_sqlite:
            await store_scrubs.ask_for_scrub(tx, with_index=True, now_us=now)
        return released.n_gone

    return await parts.db.write(unit) == 1
