"""What a person can do with files: hand one in, read a conversation's, open one.

Always bytes durable, then row, then answer. Handing in has two halves: `receive` makes the bytes
durable outside of any transaction; `attach` writes rows inside the caller's unit of work.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from agentsight.server import metrics
from agentsight.server.access import Access
from agentsight.server.attachments import keeping, store
from agentsight.server.attachments.model import (
    ConversationFiles,
    HandedIn,
    ReceivedFile,
    ReferredUpload,
    ServedRow,
)
from agentsight.server.attachments.names import clean_filename
from agentsight.server.attachments.types import attachment_type, effective_mime_type
from agentsight.server.blobs import BlobWriter, Chunk, blob_key, detect_mime_type
from agentsight.server.blobs.errors import StorageFull, StorageUnavailable
from agentsight.server.db import Tx
from agentsight.server.db.errors import DatabaseFull
from agentsight.server.ids import AttachmentId, BlobId, ConversationPk, MessageId, new_uid
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, not_found, too_large
from agentsight.server.text import mend_text

log = logging.getLogger("agentsight.server")
_WRITE_STEP_BYTES = 1024 * 1024
_NOTHING_STORED = (Problem, DatabaseFull, StorageFull, StorageUnavailable)
"""Errors after which no row is there: the store is asked before the unit of work begins."""


@dataclass(slots=True)
class Receiving:
    """The files of one request on their way in; what no row took up is removed again.

    Use as `async with Receiving(parts, access) as receiving: …`; call `settled` with what became of
    the files. After a refusal, or a full disk, all new objects are removed: certainly no row names
    them. After any other error they stay: the database may have gone away at the commit, and the
    rows may be there.
    """

    parts: Parts
    access: Access
    files: list[ReceivedFile] = field(default_factory=list[ReceivedFile])
    n_bytes: int = 0
    _kept: set[str] = field(default_factory=set[str])

    async def __aenter__(self) -> Receiving:
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and not isinstance(error, _NOTHING_STORED):
            return
        for received in self.files:
            if received.object_key not in self._kept:
                await self._remove(received.object_key)

    async def _remove(self, object_key: str) -> None:
        try:
            await self.parts.blobs.delete(object_key)
        except StorageUnavailable as error:
            log.warning("an object that no row names was left behind: %s: %s", object_key, error)

    def settled(self, kept_keys: Iterable[str]) -> None:
        """Say which objects rows now name; the others are removed at the end of the block."""
        self._kept.update(kept_keys)

    async def open(self) -> tuple[BlobWriter, str, str]:
        """Open a new object; returns its writer, blob uid and key.

        Raises:
            StorageFull: The disk is nearly full.
        """
        self.parts.disks.require_room()
        uid = new_uid(self.parts.clock())
        key = blob_key(self.access.agent_id, uid)
        return await self.parts.blobs.create(key), uid, key

    async def receive(
        self,
        chunks: AsyncIterator[Chunk],
        *,
        filename: str | None,
        declared_mime_type: str | None,
        item_key: str | None = None,
        metadata: str | None = None,
    ) -> ReceivedFile:
        """Make a file's bytes durable while they are hashed, and clean its name.

        Raises:
            Problem: 413 at the byte that passes `max_request_bytes`.
            StorageFull: The disk is nearly full.
        """
        writer, uid, key = await self.open()
        async with writer:
            async for chunk in chunks:
                self._count(len(chunk))
                await writer.write(chunk)
            stored = await writer.finish()
        metrics.uploads.inc()
        metrics.upload_bytes.inc(stored.size_bytes)
        received = ReceivedFile(
            clean_filename(filename),
            clean_declared(declared_mime_type),
            detect_mime_type(stored.head, stored.size_bytes),
            uid,
            key,
            stored.sha256,
            stored.size_bytes,
            metadata,
            item_key,
            await lost_object(self.parts, self.access, stored.sha256),
        )
        self.files.append(received)
        return received

    def _count(self, n_bytes: int) -> None:
        """Count bytes that have come, before they are written."""
        self.n_bytes += n_bytes
        limit = self.parts.settings.max_request_bytes
        if self.n_bytes > limit:
            raise too_large(
                f"The files of this request are larger than max_request_bytes ({limit} bytes)."
            )
        self.parts.disks.require_room(n_written=n_bytes)


async def lost_object(parts: Parts, access: Access, sha256: str) -> str | None:
    """Return the key of an object that a row of these bytes names and that is not there, or cut.

    Without this look, bytes lost behind our back (a restore of half a backup, a disk that was full)
    could never be brought back: the new ones would be dropped for the row's sake.
    """
    found = await parts.db.read(lambda tx: store.find_object(tx, access, sha256))
    if found is None:
        return None
    key, size_bytes = found
    if await parts.blobs.size(key) == size_bytes:
        return None
    log.error("an object was not there, or not whole, and is stored anew: %s", key)
    return key


def clean_declared(mime_type: str | None) -> str | None:
    """Keep the sender's word for the type, mended and without control characters; blank is None."""
    if mime_type is None:
        return None
    cleaned = "".join(c for c in mend_text(mime_type) if c.isprintable()).strip()[:255]
    return cleaned or None


async def in_steps(data: bytes) -> AsyncIterator[Chunk]:
    """Yield bytes that are in memory already, in steps, without copying them."""
    view = memoryview(data)
    for start in range(0, len(data), _WRITE_STEP_BYTES):
        yield view[start : start + _WRITE_STEP_BYTES]


@dataclass(slots=True)
class Attached:
    """What `attach` made: the rows' ids, the objects that rows now name, the bytes spared."""

    ids: list[AttachmentId]
    object_keys: list[str]
    deduplicated_bytes: int = 0


async def attach(
    tx: Tx,
    access: Access,
    files: Sequence[HandedIn],
    *,
    conversation_pk: ConversationPk,
    message_id: MessageId,
    rules: keeping.Rules,
    now_us: int,
) -> Attached:
    """Write the rows of files, inside the caller's unit of work.

    Bytes that the agent has already are not kept twice: the row refers to the blob that is there,
    and the new object's key is not among those returned.

    Raises:
        Problem: 400 when an item key belongs to another attachment; 403 for blocked bytes; 404,
            409, 410 for an upload that cannot be referred to; 507 past a limit.
    """
    if not files:
        return Attached([], [])
    await keeping.lock_limits(tx, access, rules, conversation_pk)
    attached, tally = Attached([], []), keeping.Tally()
    sha256s: list[str] = []
    for handed_in in files:
        if isinstance(handed_in, ReferredUpload):
            received, blob_id = await keeping.refer(tx, access, handed_in, now_us=now_us)
        else:
            received = handed_in
            kept = await keeping.keep(tx, access, received, rules=rules, now_us=now_us)
            blob_id = kept.blob_id
            if kept.is_new:
                tally = tally.with_blob(received.size_bytes)
            else:
                attached.deduplicated_bytes += received.size_bytes
            if kept.is_named:
                attached.object_keys.append(received.object_key)
        sha256s.append(received.sha256)
        tally = tally.with_attachment(received.size_bytes)
        place = _Place(conversation_pk, message_id, blob_id)
        attached.ids.append(await _insert(tx, access, received, place, now_us))
    await keeping.refuse_quarantined(tx, sha256s)
    await keeping.count(
        tx, access, tally, rules=rules, shard=message_id, conversation_pk=conversation_pk
    )
    return attached


@dataclass(frozen=True, slots=True)
class _Place:
    """What a new row refers to."""

    conversation_pk: ConversationPk
    message_id: MessageId
    blob_id: BlobId


async def _insert(
    tx: Tx, access: Access, received: ReceivedFile, place: _Place, now_us: int
) -> AttachmentId:
    mime_type = effective_mime_type(
        received.declared_mime_type, received.filename, received.detected_mime_type
    )
    attachment_id = await store.insert(
        tx,
        access,
        received,
        conversation_pk=place.conversation_pk,
        message_id=place.message_id,
        blob_id=place.blob_id,
        uid=new_uid(now_us),
        type_name=attachment_type(mime_type),
        mime_type=mime_type,
        now_us=now_us,
    )
    if attachment_id is None:
        text = f"item_key {received.item_key!r} belongs to another attachment; make a new one."
        raise Problem(400, "invalid", fields={"item_key": [text]})
    return attachment_id


async def conversation_files(parts: Parts, access: Access, pk: ConversationPk) -> ConversationFiles:
    """Read all files of a conversation, deleted conversations too.

    Raises:
        Problem: 404 when there is no such conversation for this caller.
    """
    files = await parts.db.read(lambda tx: store.of_conversation(tx, access, pk))
    if files is None:
        raise not_found()
    parts.audit.read(access, "read", "conversation", pk)
    return files


async def served_file(parts: Parts, uid: str) -> ServedRow | None:
    """Find what a link's uid names; its signature is still to be checked."""
    return await parts.db.read(lambda tx: store.served_by_uid(tx, uid))


async def owned_file(parts: Parts, access: Access, uid: str) -> ServedRow:
    """Find a file of the caller's agent by its uid.

    Raises:
        Problem: 404 when there is none, it is deleted, or it is another agent's.
    """
    row = await parts.db.read(lambda tx: store.owned_by_uid(tx, access, uid))
    if row is None or row.is_deleted:
        raise not_found()
    return row
