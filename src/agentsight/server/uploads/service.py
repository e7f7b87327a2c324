"""What a person can do with an upload: announce it, send bytes, ask, take it back.

The last byte makes a blob of it: published under its key, hashed (read back once where the hash was
not kept running), compared with what was announced, and only then a row.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Final

from agentsight.server import metrics
from agentsight.server.access import Access, Permission, job_access
from agentsight.server.attachments import keeping, store_referred
from agentsight.server.attachments import store as attachments
from agentsight.server.attachments.model import ReceivedFile
from agentsight.server.attachments.service import lost_object
from agentsight.server.blobs import (
    Chunk,
    ObjectBusy,
    ObjectMissing,
    StorageUnavailable,
    blob_key,
    detect_mime_type,
)
from agentsight.server.db import Tx
from agentsight.server.ids import BlobId, OrganisationId, new_uid
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, not_found, too_large
from agentsight.server.settings import Settings
from agentsight.server.uploads import store, store_announcing
from agentsight.server.uploads.hashes import RunningHash
from agentsight.server.uploads.model import (
    KEPT_AFTER_EXPIRY_DAYS,
    LEASE_S,
    OFFER_S,
    Announced,
    Upload,
)
from agentsight.server.uploads.storage import taken_bytes
from agentsight.server.uploads.turns import await_turn, await_twin, locked
from agentsight.server.uploads.visits import Visit, conflict, size_mismatch

log = logging.getLogger("agentsight.server")
_HOUR_US: Final = 3600 * 1_000_000
_EXPIRED_A_STEP: Final = 20
_ROWS_A_STEP: Final = 500
"""So many rows take SQLite some 10 ms, in which nobody else writes."""
_PLACE_RETRY_S: Final = 30
"""When others have finished, or nobody will soon."""


# --- Announcing -----------------------------------------------------------------------------------


async def announce(
    parts: Parts, access: Access, announced: Announced, *, may_be_here: bool = True
) -> Upload:
    """Make an upload: stored at once where the agent has these bytes, else waiting for them.

    An unfinished upload of the same file that nobody sends any more is gone on with: its client
    was stopped, and has forgotten it. Bytes that are here and were announced before, under the same
    name and type, are the same upload, which lives for longer.

    Args:
        parts: The process's parts.
        access: Who uploads.
        announced: What is to come.
        may_be_here: Whether the answer may be that all of it, or its beginning, has not to be sent.
            It is given only to who may read the agent's files: a hash must not tell anybody else
            that they are there.

    Raises:
        Problem: 413 for a larger file than may be, 403 for blocked bytes, 507 past a limit, 429
            when the agent has too many unfinished uploads.
        StorageFull: It would not fit on the disk.
    """
    limit = parts.settings.max_file_bytes
    if announced.size_bytes > limit:
        raise too_large(f"The file is larger than max_file_bytes ({limit} bytes).")
    sha256 = announced.sha256
    is_asked = may_be_here and sha256 is not None and access.may(Permission.READ)
    if is_asked and sha256 is not None and await lost_object(parts, access, sha256) is not None:
        is_asked = False
    if is_asked:
        await await_twin(parts, access, announced)
    now = parts.clock()
    uid, blob_uid = new_uid(now), new_uid(now)
    expires_at = now + parts.settings.upload_pin_hours * _HOUR_US
    max_agent_bytes = parts.settings.max_agent_bytes

    async def unit(tx: Tx) -> Upload:
        if sha256 is not None:
            await keeping.refuse_quarantined(tx, [sha256])
        blob_id = await _find_here(tx, access, announced) if is_asked else None
        if blob_id is not None:
            pinned = await store_announcing.pin_again(
                tx, access, announced, blob_id, now_us=now, expires_at=expires_at
            )
            if pinned is not None:
                return pinned
        if is_asked and blob_id is None:
            offered_until = now + OFFER_S * 1_000_000
            unfinished = await store.offer_unfinished(
                tx, access, announced, now_us=now, until_us=offered_until, expires_at=expires_at
            )
            if unfinished is not None:
                return unfinished
        if blob_id is None:
            await _require_place(tx, access, parts.settings, now)
        if blob_id is None and max_agent_bytes is not None:
            taken = (await taken_bytes(tx, access, now)).now
            if taken + announced.size_bytes > max_agent_bytes:
                raise keeping.agent_limit_reached(taken, max_agent_bytes)
        return await store.insert(
            tx,
            access,
            announced,
            uid=uid,
            blob_uid=blob_uid,
            object_key=blob_key(access.agent_id, blob_uid),
            blob_id=blob_id,
            now_us=now,
            expires_at=expires_at,
        )

    parts.disks.require_room()
    upload = await parts.db.write(unit)
    if upload.state == "stored":
        metrics.deduplicated_bytes.inc(upload.size_bytes)
        return upload
    parts.disks.require_room(announced.size_bytes - upload.offset)
    return await settle(parts, access, upload)


async def _require_place(tx: Tx, access: Access, settings: Settings, now_us: int) -> None:
    """Refuse one unfinished upload more than an agent may have. Those who announce at the same
    moment on PostgreSQL do not see each other, and may pass the limit by their number."""
    limit = settings.max_pending_uploads
    if await store_announcing.count_unfinished(tx, access, now_us, limit=limit) >= limit:
        raise Problem(
            429,
            "too_many_uploads",
            f"This agent has as many unfinished uploads as max_pending_uploads allows ({limit}):"
            " finish some, or take them back by DELETE. They expire"
            f" {settings.upload_pin_hours} hours after their last byte.",
            retry_after_s=_PLACE_RETRY_S,
        )


async def _find_here(tx: Tx, access: Access, announced: Announced) -> BlobId | None:
    """Find the agent's blob of exactly these bytes, and hold it until the unit ends."""
    blob_id = await attachments.find_blob(tx, access, announced.sha256 or "")
    blob = None if blob_id is None else await store_referred.hold_blob(tx, access, blob_id)
    return blob_id if blob is not None and blob.size_bytes == announced.size_bytes else None


# --- Asking and taking back -----------------------------------------------------------------------


async def find(parts: Parts, access: Access, uid: str) -> Upload:
    """Find an upload.

    Raises:
        Problem: 404 when this agent has none of that uid.
    """
    upload = await parts.db.read(lambda tx: store.find(tx, access, uid))
    if upload is None:
        raise not_found()
    return upload


async def find_living(parts: Parts, access: Access, uid: str) -> Upload:
    """Find an upload that has not expired, as somebody who will go on with it: a request that
    still writes it is stopped, and one that only lacks its last step is taken to its end.

    Raises:
        Problem: 404, 410 when it has expired, 423 when its writer does not let go, and what the
            last step finds wrong.
    """
    upload = await await_turn(parts, access, await find(parts, access, uid))
    if upload.state_at(parts.clock()) == "expired":
        raise keeping.upload_expired(uid)
    return await settle(parts, access, upload)


async def settle(parts: Parts, access: Access, upload: Upload) -> Upload:
    """Take an upload to its end that has all of its bytes: an empty one, or one that a crash cut
    off between its last byte and its row."""
    if not upload.is_whole or upload.is_leased_at(parts.clock()):
        return upload
    async with Visit(parts, access, upload.uid, offset=upload.offset) as visit:
        return await _complete(parts, access, visit)


async def take_back(parts: Parts, access: Access, uid: str) -> None:
    """Let an upload expire: unfinished bytes are removed, a stored blob is not kept for it.

    Raises:
        Problem: 404; 410 when it has expired; 423 when its writer does not let go.
    """
    upload = await await_turn(parts, access, await find(parts, access, uid))
    now = parts.clock()
    state = upload.state_at(now)
    if state == "expired":
        raise keeping.upload_expired(uid)
    if state == "stored":
        await parts.db.write(lambda tx: store.unpin(tx, access, uid, now_us=now))
        return
    async with Visit(parts, access, uid, offset=upload.offset) as visit:
        await visit.refuse()


# --- Sending bytes --------------------------------------------------------------------------------


async def receive(
    parts: Parts,
    access: Access,
    uid: str,
    chunks: AsyncIterator[Chunk],
    *,
    offset: int | None,
    content_length: int | None,
) -> Upload:
    """Take bytes, as many as come, and make a blob of the upload when they are all.

    Args:
        parts: The process's parts.
        access: Who uploads.
        uid: The upload's.
        chunks: The bytes as they arrive.
        offset: Where they belong; None: they are the whole file.
        content_length: How many are announced by this request, where it says so.

    Raises:
        Problem: 400 `size_mismatch` or `hash_mismatch` (then the upload is over), 404, 409 for
            another offset or when a newer request has taken over, 410, 413, 423 when the older
            one does not let go, 507.
    """
    upload = await await_turn(parts, access, await find(parts, access, uid))
    state = upload.state_at(parts.clock())
    if state == "expired":
        raise keeping.upload_expired(uid)
    if state == "stored" and (offset is None or offset == upload.size_bytes):
        _check_length(parts, upload, offset, content_length)
        return upload  # it was heard before, and its answer lost
    if state == "stored" or (offset is not None and offset != upload.offset):
        raise conflict(upload)
    _check_length(parts, upload, offset, content_length)
    limit = parts.settings.max_agent_bytes
    async with Visit(parts, access, uid, offset=offset, max_agent_bytes=limit) as visit:
        if not visit.is_published:
            await _take_all(parts, visit, chunks)
        if visit.is_published or visit.taken == upload.size_bytes:
            return await _complete(parts, access, visit)
        if offset is None:
            await visit.refuse()
            raise size_mismatch(upload, f"Only {visit.taken} bytes came; nothing was stored")
    return await find(parts, access, uid)


def _check_length(
    parts: Parts, upload: Upload, offset: int | None, content_length: int | None
) -> None:
    """Refuse what cannot fit before its first byte; the upload stays as it is."""
    if content_length is None:
        return
    end = (offset or 0) + content_length
    if end > upload.size_bytes or (offset is None and end < upload.size_bytes):
        raise size_mismatch(upload, f"This request would end at byte {end}")
    _check_request(parts, content_length)


def _check_request(parts: Parts, n_bytes: int) -> None:
    limit = parts.settings.max_request_bytes
    if n_bytes > limit:
        raise too_large(f"This request is larger than max_request_bytes ({limit} bytes).")


async def _take_all(parts: Parts, visit: Visit, chunks: AsyncIterator[Chunk]) -> None:
    n_bytes = 0
    async for chunk in chunks:
        n_bytes += len(chunk)
        _check_request(parts, n_bytes)
        await visit.take(chunk)


async def _complete(parts: Parts, access: Access, visit: Visit) -> Upload:
    """Publish, verify, and make the rows; what is refused leaves nothing."""
    running = await visit.publish()
    upload = visit.upload
    if running is None or running.n_bytes != upload.size_bytes:
        running = await _read_back(parts, upload.object_key)
    sha256 = running.hexdigest()
    if running.n_bytes != upload.size_bytes:
        await visit.refuse()
        raise size_mismatch(upload, f"{running.n_bytes} bytes are there")
    if upload.sha256 is not None and sha256 != upload.sha256:
        await visit.refuse()
        text = f"The bytes have the SHA-256 {sha256}, not the announced one; nothing was stored."
        raise Problem(400, "hash_mismatch", text)
    received = ReceivedFile(
        upload.filename,
        upload.declared_mime_type,
        detect_mime_type(running.head, upload.size_bytes),
        upload.blob_uid,
        upload.object_key,
        sha256,
        upload.size_bytes,
        lost_object_key=await lost_object(parts, access, sha256),
    )
    try:
        stored, kept = await _store(parts, access, visit, received)
    except Problem as problem:
        if problem.status in (403, 507):
            await visit.refuse()
        raise
    visit.done()
    metrics.uploads.inc()
    metrics.upload_bytes.inc(upload.size_bytes)
    if not kept.is_new:
        metrics.deduplicated_bytes.inc(upload.size_bytes)
    if not kept.is_named:
        await _drop(parts, upload.object_key)
    return stored


async def _read_back(parts: Parts, object_key: str) -> RunningHash:
    """Hash an object that is there, in a thread beside the reading."""
    running = RunningHash()
    try:
        async with await parts.blobs.read(object_key) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(running.update, chunk)
    except ObjectMissing as error:
        raise StorageUnavailable("An upload's bytes are not there any more.") from error
    return running


async def _store(
    parts: Parts, access: Access, visit: Visit, received: ReceivedFile
) -> tuple[Upload, keeping.Kept]:
    now, rules = parts.clock(), keeping.Rules.of(parts.settings)
    uid, lease = visit.upload.uid, visit.lease
    expires_at = now + parts.settings.upload_pin_hours * _HOUR_US

    async def unit(tx: Tx) -> tuple[Upload, keeping.Kept]:
        await keeping.lock_limits(tx, access, rules)
        await keeping.refuse_quarantined(tx, [received.sha256])
        kept = await keeping.keep(tx, access, received, rules=rules, now_us=now)
        if kept.is_new:
            tally = keeping.Tally().with_blob(received.size_bytes)
            await keeping.count(tx, access, tally, rules=rules, shard=kept.blob_id)
        upload = await store.finish(
            tx,
            access,
            uid,
            lease,
            blob_id=kept.blob_id,
            sha256=received.sha256,
            detected_mime_type=received.detected_mime_type,
            expires_at=expires_at,
            now_us=now,
        )
        if upload is None:
            raise locked(visit.upload, now)
        return upload, kept

    return await parts.db.write(unit)


async def _drop(parts: Parts, object_key: str) -> None:
    """Remove an object whose bytes are kept under another key."""
    try:
        await parts.blobs.delete(object_key)
    except StorageUnavailable as error:
        log.warning("an object that no row names was left behind: %s: %s", object_key, error)


# --- The chore ------------------------------------------------------------------------------------


async def expire_step(parts: Parts) -> int:
    """Let uploads expire whose time has passed, with the bytes of unfinished ones; count them.

    A crash on the way leaves rows that are still pending and held: the next step takes them up.
    """
    now = parts.clock()
    forgotten_us = now - KEPT_AFTER_EXPIRY_DAYS * 24 * _HOUR_US
    if not await parts.db.read(lambda tx: store.is_expiry_due(tx, now, forgotten_us)):
        return 0
    lease, until = secrets.token_hex(16), now + LEASE_S * 1_000_000

    async def unit(tx: Tx) -> tuple[int, list[Upload]]:
        n_rows = await store.forget_expired(tx, forgotten_us, _ROWS_A_STEP)
        n_rows += await store.expire_stored(tx, now, _ROWS_A_STEP)
        held = await store.hold_expired(
            tx, lease, limit=_EXPIRED_A_STEP, now_us=now, until_us=until
        )
        return n_rows, held

    n_done, held = await parts.db.write(unit)
    for upload in held:
        n_done += await _expire(parts, upload, lease)
    return n_done


async def _expire(parts: Parts, upload: Upload, lease: str) -> int:
    access = job_access(OrganisationId(0), upload.agent_id)
    try:
        await parts.blobs.abandon_parts(upload.object_key, upload.parts)
        await parts.blobs.delete(upload.object_key)
    except ObjectBusy:  # a writer that has lost its lease and not heard of it
        return 0
    now = parts.clock()
    await parts.db.write(lambda tx: store.end(tx, access, upload.uid, lease, now_us=now))
    return 1
