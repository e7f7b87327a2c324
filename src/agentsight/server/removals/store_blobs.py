"""Let go of bytes that nothing refers to any more: `deleting`, the object removed, `gone`.

A blob's row is locked before its references are counted, and whoever makes a reference holds the
row (`attachments.store.find_blob`): so of a removal and a new reference to the same bytes at once,
one sees what the other did, and the bytes that anybody refers to stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from agentsight.server.access import Access
from agentsight.server.attachments.store_counts import add_counts
from agentsight.server.attachments.store_jobs import forget_jobs
from agentsight.server.attachments.store_texts import drop_text
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, BlobId
from agentsight.server.previews.store import forget_blob

_LOCK = sql(
    "SELECT id, size_bytes FROM blobs WHERE agent_id = $1 AND id = ANY($2::bigint[])"
    " AND state = 'stored' ORDER BY id FOR UPDATE"
)
_IS_REFERRED = sql("SELECT 1 FROM attachments WHERE agent_id = $1 AND blob_id = $2 LIMIT 1")
# Only stored uploads name a blob. One index has all that is asked of them, however many there are.
_IS_PINNED = sql(
    "SELECT 1 FROM uploads WHERE agent_id = $1 AND blob_id = $2 AND expires_at > $3"
    " AND created_at > $4 LIMIT 1"
)
_LET_GO = sql(
    "UPDATE blobs SET state = 'deleting', erased_by = $3, updated_at = $4"
    " WHERE agent_id = $1 AND id = $2 AND state = 'stored'"
)
_GOING = sql(
    "SELECT b.agent_id, g.organisation_id, b.id, b.object_key, b.size_bytes, b.sha256,"
    " CASE WHEN EXISTS (SELECT 1 FROM uploads u WHERE u.agent_id = b.agent_id AND u.blob_id = b.id)"
    " THEN 1 ELSE 0 END, CASE WHEN EXISTS (SELECT 1 FROM uploads u WHERE u.agent_id = b.agent_id"
    " AND u.sha256 = b.sha256 AND u.state = 'pending' AND u.created_at <= $3) THEN 1 ELSE 0 END"
    " FROM blobs b JOIN agents g ON g.id = b.agent_id"
    " WHERE b.state = 'deleting' AND b.erased_by IS NOT DISTINCT FROM $1::text"
    " ORDER BY b.agent_id, b.id LIMIT $2::bigint"
)
_MADE_OF = sql(
    "SELECT object_key, coalesce(size_bytes, 0) FROM derivatives"
    " WHERE agent_id = $1 AND blob_id = $2 AND object_key IS NOT NULL ORDER BY kind"
)
_LOCK_GOING = sql(
    "SELECT id FROM blobs WHERE agent_id = $1 AND id = $2 AND state = 'deleting' FOR UPDATE"
)
# The row stays, for those who refer to it by number; what it said of the content does not.
_GONE = sql(
    "UPDATE blobs SET state = 'gone', sha256 = '', size_bytes = 0, detected_mime_type = NULL,"
    " width = NULL, height = NULL, pages = NULL, seconds = NULL, scan = 'not_scanned',"
    " scan_detail = NULL, text_state = 'none', facts = NULL, updated_at = $3"
    " WHERE agent_id = $1 AND id = $2 AND state = 'deleting'"
)
_UNREFERRED = sql(
    "SELECT b.agent_id, g.organisation_id, b.id,"
    " CASE WHEN EXISTS (SELECT 1 FROM attachments a WHERE a.agent_id = b.agent_id"
    " AND a.blob_id = b.id) THEN 1"
    " WHEN EXISTS (SELECT 1 FROM uploads u WHERE u.agent_id = b.agent_id AND u.blob_id = b.id"
    " AND u.expires_at > $4) THEN 1 ELSE 0 END"
    " FROM blobs b JOIN agents g ON g.id = b.agent_id"
    " WHERE b.state = 'stored' AND (b.agent_id, b.id) > ($1::bigint, $2::bigint)"
    " ORDER BY b.agent_id, b.id LIMIT $3::bigint"
)
_NONE_SENT: Final[Mapping[BlobId, int]] = MappingProxyType({})


@dataclass(slots=True)
class Released:
    """What became of contents: let go (their objects are to be removed), or kept (id and bytes)."""

    n_gone: int = 0
    n_texts: int = 0
    kept: dict[int, int] = field(default_factory=dict[int, int])


@dataclass(frozen=True, slots=True)
class GoingBlob:
    """A content whose object is to be removed; of it there may still be uploads."""

    agent_id: AgentId
    organisation_id: int
    blob_id: BlobId
    object_key: str
    size_bytes: int
    sha256: str
    has_stored: bool
    has_unfinished: bool


@dataclass(frozen=True, slots=True)
class Derived:
    """An object made of a blob."""

    object_key: str
    size_bytes: int


async def release(
    tx: Tx,
    access: Access,
    blob_ids: Collection[BlobId],
    receipt_uid: str | None,
    *,
    sent_until: Mapping[BlobId, int] = _NONE_SENT,
    now_us: int,
) -> Released:
    """Let go of those of the contents that nothing refers to, and no upload waits with.

    Args:
        sent_until: Until when (µs) a content's uploads can have been its attachments', which were
            removed: those keep nothing.
    """
    released = Released()
    agent_id = access.agent_id
    for blob_id, size_bytes in await tx.rows(_LOCK, agent_id, sorted(set(blob_ids))):
        sent = sent_until.get(blob_id, -1)
        if (
            await tx.value(_IS_REFERRED, agent_id, blob_id) is not None
            or await tx.value(_IS_PINNED, agent_id, blob_id, now_us, sent) is not None
        ):
            released.kept[blob_id] = size_bytes
            continue
        await tx.execute(_LET_GO, agent_id, blob_id, receipt_uid, now_us)
        await forget_jobs(tx, agent_id, blob_id)
        released.n_texts += await drop_text(tx, agent_id, blob_id)
        released.n_gone += 1
        await add_counts(tx, agent_id, blob_id, n_blobs=-1, stored_bytes=-size_bytes)
    return released


async def going(
    tx: Tx, receipt_uid: str | None, limit: int, *, begun_until_us: int = -1
) -> list[GoingBlob]:
    """Read contents that are to go, of one erasure or of none. No access: they are nobody's.

    Args:
        begun_until_us: Unfinished uploads of the same bytes that were begun until then go too.
    """
    rows = await tx.rows(_GOING, receipt_uid, limit, begun_until_us)
    return [
        GoingBlob(
            AgentId(agent), org, BlobId(pk), key, size, sha256, bool(stored), bool(unfinished)
        )
        for agent, org, pk, key, size, sha256, stored, unfinished in rows
    ]


async def made_of(tx: Tx, access: Access, blob_id: BlobId) -> list[Derived]:
    """Read which objects were made of a blob."""
    return [Derived(*row) for row in await tx.rows(_MADE_OF, access.agent_id, blob_id)]


async def bury(tx: Tx, access: Access, blob_id: BlobId, *, now_us: int) -> list[str] | None:
    """Note that a blob's object is gone, and forget what was made of it.

    Returns:
        The keys of the objects made of it, as the rows say at last; None when another was first.
    """
    if await tx.value(_LOCK_GOING, access.agent_id, blob_id) is None:
        return None
    keys = await forget_blob(tx, access.agent_id, blob_id)
    await forget_jobs(tx, access.agent_id, blob_id)
    await tx.execute(_GONE, access.agent_id, blob_id, now_us)
    return keys


async def walk_stored(
    tx: Tx, after: tuple[int, int], limit: int, now_us: int
) -> list[tuple[AgentId, int, BlobId, bool]]:
    """Read some stored blobs of whomever: agent, organisation, id, whether anything needs it.

    No access: whoever collects what is left over asks for all.
    """
    rows = await tx.rows(_UNREFERRED, *after, limit, now_us)
    return [(AgentId(a), o, BlobId(b), bool(needed)) for a, o, b, needed in rows]
