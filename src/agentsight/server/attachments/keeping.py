"""How durable bytes become a blob's row, inside a unit: once per agent, counted, within limits.

Whoever brings bytes comes through `keep`; whoever names an upload instead, through `refer`. The
checks stand behind the rows they judge, in the same unit: what they refuse is undone with it, and
two writers at once cannot both get the last bytes of a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentsight.server.access import Access
from agentsight.server.attachments import store, store_counts, store_referred
from agentsight.server.attachments.model import ReceivedFile, ReferredUpload
from agentsight.server.attachments.store_jobs import add_job
from agentsight.server.attachments.store_quarantine import quarantined_among
from agentsight.server.db import Tx
from agentsight.server.ids import BlobId, ConversationPk
from agentsight.server.problems import Problem
from agentsight.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say about keeping bytes. Limits are in bytes; None is no limit."""

    is_scanned: bool = False
    max_conversation_bytes: int | None = None
    max_agent_bytes: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Take them from the settings."""
        return cls(
            settings.clamd is not None, settings.max_conversation_bytes, settings.max_agent_bytes
        )


@dataclass(frozen=True, slots=True)
class Kept:
    """Where bytes are now: their blob, whether it is new, whether it names the object just sent."""

    blob_id: BlobId
    is_new: bool
    is_named: bool


async def keep(
    tx: Tx, access: Access, received: ReceivedFile, *, rules: Rules, now_us: int
) -> Kept:
    """Make a blob of received bytes, or find the one that the agent has of them already.

    The new blob waits to be scanned, where files are. Counting is the caller's: `count`.

    Raises:
        Problem: 503 when somebody stores or removes the same bytes at this moment.
    """
    # Twice: between our look and our insert another writer may store the same bytes.
    for _ in range(2):
        known = await store.find_blob(tx, access, received.sha256)
        if known is not None:
            is_mended = received.lost_object_key is not None and await store.replace_object(
                tx, access, known, received, lost_key=received.lost_object_key, now_us=now_us
            )
            return Kept(known, is_new=False, is_named=is_mended)
        made = await store.insert_blob(tx, access, received, now_us=now_us)
        if made is not None:
            if rules.is_scanned:
                await add_job(tx, access.agent_id, made, "scan", now_us=now_us)
            return Kept(made, is_new=True, is_named=True)
    raise Problem(
        503, "busy", "The same bytes are being stored or removed; try again.", retry_after_s=1
    )


async def refer(
    tx: Tx, access: Access, referred: ReferredUpload, *, now_us: int
) -> tuple[ReceivedFile, BlobId]:
    """Find the blob of an upload, and keep it from going until the unit ends.

    Raises:
        Problem: 404 for no upload of this agent's, 409 for one that is not whole yet, 410 for one
            that has expired or whose bytes are gone.
    """
    upload = await store_referred.find_upload(tx, access, referred.upload_uid)
    if upload is None:
        text = f"There is no upload {referred.upload_uid[:100]!r}."
        raise Problem(404, "not_found", text)
    if upload.state == "pending" and upload.expires_at > now_us:
        text = f"Upload {referred.upload_uid} is not whole yet: finish it first."
        raise Problem(409, "upload_pending", text)
    blob = None
    if upload.state == "stored" and upload.expires_at > now_us and upload.blob_id is not None:
        blob = await store_referred.hold_blob(tx, access, upload.blob_id)
    if blob is None or upload.blob_id is None:
        raise upload_expired(referred.upload_uid)
    received = ReceivedFile(
        referred.filename or upload.filename,
        referred.declared_mime_type or upload.declared_mime_type,
        blob.detected_mime_type,
        upload.blob_uid,
        upload.object_key,
        blob.sha256,
        blob.size_bytes,
        referred.metadata,
        referred.item_key,
    )
    return received, upload.blob_id


def upload_expired(uid: str) -> Problem:
    """Make the answer for an upload that nobody may refer to any more."""
    return Problem(410, "upload_expired", f"Upload {uid} is gone or has expired; upload it again.")


async def refuse_quarantined(tx: Tx, sha256s: Sequence[str]) -> None:
    """Refuse bytes that the operator has blocked.

    Raises:
        Problem: 403, naming the first of them.
    """
    blocked = await quarantined_among(tx, sha256s) if sha256s else set[str]()
    if blocked:
        raise Problem(
            403, "quarantined", f"The operator has blocked these bytes (sha256 {min(blocked)})."
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What one unit adds."""

    n_blobs: int = 0
    stored_bytes: int = 0
    n_attachments: int = 0
    referenced_bytes: int = 0

    def with_blob(self, size_bytes: int) -> Tally:
        """Count a new blob."""
        return replace(self, n_blobs=self.n_blobs + 1, stored_bytes=self.stored_bytes + size_bytes)

    def with_attachment(self, size_bytes: int) -> Tally:
        """Count a new reference."""
        return replace(
            self,
            n_attachments=self.n_attachments + 1,
            referenced_bytes=self.referenced_bytes + size_bytes,
        )


async def lock_limits(
    tx: Tx, access: Access, rules: Rules, conversation_pk: ConversationPk | None = None
) -> None:
    """Wait for other writers where a limit must hold. Called before the unit's first row."""
    if rules.max_conversation_bytes is not None and conversation_pk is not None:
        await store_counts.lock_conversation(tx, access, conversation_pk)
    if rules.max_agent_bytes is not None:
        await store_counts.lock_counts(tx, access)


async def count(
    tx: Tx,
    access: Access,
    tally: Tally,
    *,
    rules: Rules,
    shard: int,
    conversation_pk: ConversationPk | None = None,
) -> None:
    """Count what a unit has written, and refuse it where that passes a limit.

    Raises:
        Problem: 507, naming the limit and its value.
    """
    await store_counts.add_counts(
        tx,
        access.agent_id,
        shard,
        tally.n_blobs,
        tally.stored_bytes,
        tally.n_attachments,
        tally.referenced_bytes,
    )
    limit = rules.max_agent_bytes
    if limit is not None and tally.stored_bytes:
        counts = await store_counts.read_counts(tx, access)
        if counts.stored_bytes > limit:
            raise agent_limit_reached(counts.stored_bytes - tally.stored_bytes, limit)
    limit = rules.max_conversation_bytes
    if limit is not None and conversation_pk is not None and tally.referenced_bytes:
        total = await store_counts.conversation_bytes(tx, access, conversation_pk)
        if total > limit:
            raise Problem(
                507,
                "storage_limit",
                f"The files of this conversation would pass max_conversation_bytes ({limit} bytes;"
                f" {total - tally.referenced_bytes} are taken); nothing was stored.",
            )


def agent_limit_reached(taken_bytes: int, limit: int) -> Problem:
    """Make the answer for bytes that this agent may not keep."""
    return Problem(
        507,
        "storage_limit",
        f"This agent's files would pass max_agent_bytes ({limit} bytes; {taken_bytes} are taken);"
        " nothing was stored.",
    )
