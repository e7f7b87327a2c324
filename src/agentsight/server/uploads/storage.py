"""How much an agent keeps, what storing each content once has spared, and what the limits leave."""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.attachments import store_counts
from agentsight.server.db import Tx
from agentsight.server.parts import Parts
from agentsight.server.uploads import store, store_announcing
from agentsight.server.uploads.shapes import (
    PendingUploadsShape,
    StorageLimitsShape,
    StorageUsageShape,
)


@dataclass(frozen=True, slots=True)
class TakenBytes:
    """What lies in the store of an agent's, whole or not, and what will lie there once all requests
    that send uploads now have brought them whole."""

    now: int
    soon: int


async def taken_bytes(tx: Tx, access: Access, now_us: int) -> TakenBytes:
    """Count what an agent's limit is compared with: unfinished uploads count too, or bytes without
    end could be kept by never sending the last one."""
    stored = (await store_counts.read_counts(tx, access)).stored_bytes
    received, expected = await store_announcing.unfinished_bytes(tx, access, now_us)
    return TakenBytes(stored + received, stored + expected)


async def storage_usage(parts: Parts, access: Access) -> StorageUsageShape:
    """Read what the caller's agent keeps."""
    now, settings = parts.clock(), parts.settings

    async def query(
        tx: Tx,
    ) -> tuple[store_counts.StorageCounts, tuple[int, int, int], tuple[int, int]]:
        return (
            await store_counts.read_counts(tx, access),
            await store.count_pending(tx, access, now),
            await store.count_waiting(tx, access, now),
        )

    counts, pending, (_, waiting_bytes) = await parts.db.read(query, slow=True, snapshot=True)
    # What only uploads keep is stored and not referred to yet: it has spared nothing.
    spared = counts.referenced_bytes - (counts.stored_bytes - waiting_bytes)
    limit = settings.max_agent_bytes
    return StorageUsageShape(
        counts.n_attachments,
        counts.referenced_bytes,
        counts.n_blobs,
        counts.stored_bytes,
        max(0, spared),
        None if limit is None else max(0, limit - counts.stored_bytes),
        StorageLimitsShape(
            settings.max_file_bytes,
            settings.max_request_bytes,
            settings.max_conversation_bytes,
            limit,
        ),
        PendingUploadsShape(*pending),
    )
