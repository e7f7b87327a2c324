"""End the uploads of contents that are being erased: some at a time, the unfinished ones too.

Which uploads were whose nobody has written down. One that was made before a content's last
attachment may be the one that attachment was sent by; a stored one that is younger waits for a
message of its own, and keeps the content. An unfinished one has the beginning of the same bytes
under some name: of a content that goes, all end that were begun before the erasure was asked for.
Of a content that stays, because others have sent the same bytes, those of the erased name end.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import BlobId
from agentsight.server.uploads.store import ENDED

_END_STORED = sql(
    f"UPDATE uploads SET {ENDED}, expires_at = $4, updated_at = $4 WHERE agent_id = $1"
    " AND id IN (SELECT id FROM uploads WHERE agent_id = $1 AND blob_id = $2 AND created_at <= $3"
    " LIMIT $5::bigint)"
)
_END_NAMED = sql(
    f"UPDATE uploads SET {ENDED}, expires_at = $5, updated_at = $5 WHERE agent_id = $1"
    " AND id IN (SELECT id FROM uploads WHERE agent_id = $1 AND blob_id = $2 AND filename = $3"
    " AND state = 'stored' AND created_at <= $4 LIMIT $6::bigint)"
)
_HOLD_UNFINISHED = sql(
    "UPDATE uploads SET lease = $4, leased_until = $5, expires_at = $6, filename = '',"
    " declared_mime_type = NULL, updated_at = $6 WHERE agent_id = $1"
    " AND id IN (SELECT id FROM uploads WHERE agent_id = $1 AND sha256 = $2 AND state = 'pending'"
    " AND created_at <= $3 LIMIT $7::bigint)"
    " RETURNING uid, object_key, parts"
)
_END_HELD = sql(
    f"UPDATE uploads SET {ENDED}, updated_at = $4 WHERE agent_id = $1 AND uid = $2 AND lease = $3"
)
_IS_REFERRED = sql("SELECT 1 FROM attachments WHERE agent_id = $1 AND blob_id = $2 LIMIT 1")


@dataclass(frozen=True, slots=True)
class HeldUpload:
    """An unfinished upload that nobody else writes any more, and what is there of it."""

    uid: str
    object_key: str
    parts: str


async def end_stored(
    tx: Tx, access: Access, blob_id: BlobId, *, made_until_us: int, limit: int, now_us: int
) -> int:
    """End some of a content's stored uploads that were made until then; returns how many."""
    return await tx.execute(_END_STORED, access.agent_id, blob_id, made_until_us, now_us, limit)


async def end_named(
    tx: Tx,
    access: Access,
    blob_id: BlobId,
    filename: str,
    *,
    made_until_us: int,
    limit: int,
    now_us: int,
) -> int:
    """End some of a content's stored uploads of one name that were made until then.

    An erased attachment came by one of them, where it kept the upload's name. Somebody else's of
    the same name is told `upload_expired`, and sends again.
    """
    return await tx.execute(
        _END_NAMED, access.agent_id, blob_id, filename, made_until_us, now_us, limit
    )


async def is_referred(tx: Tx, access: Access, blob_id: BlobId) -> bool:
    """Say whether an attachment has a content, be it hidden."""
    return await tx.value(_IS_REFERRED, access.agent_id, blob_id) is not None


async def hold_unfinished(
    tx: Tx,
    access: Access,
    sha256: str,
    lease: str,
    *,
    begun_until_us: int,
    until_us: int,
    limit: int,
    now_us: int,
) -> list[HeldUpload]:
    """Take some unfinished uploads of these bytes from whoever writes them: they are over.

    Their rows stay unfinished until their bytes are removed, so that a crash forgets none.
    """
    rows = await tx.rows(
        _HOLD_UNFINISHED,
        access.agent_id,
        sha256,
        begun_until_us,
        lease,
        until_us,
        now_us,
        limit,
    )
    return [HeldUpload(*row) for row in rows]


async def end_held(tx: Tx, access: Access, uid: str, lease: str, *, now_us: int) -> int:
    """Note that a held upload's bytes are removed; 0 when somebody else has done so."""
    return await tx.execute(_END_HELD, access.agent_id, uid, lease, now_us)
