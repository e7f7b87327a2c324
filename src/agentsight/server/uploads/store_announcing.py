"""What announcing an upload, and going on with one, ask of the agent's other uploads.

All of it reads one range of one index: an agent with many uploads must not slow others down.
"""

from __future__ import annotations

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import BlobId
from agentsight.server.uploads.model import Announced, Upload
from agentsight.server.uploads.store import UPLOAD_COLUMNS

_N_UNFINISHED = sql(
    "SELECT count(*) FROM (SELECT 1 FROM uploads WHERE agent_id = $1 AND state = 'pending'"
    " AND expires_at > $2 LIMIT $3::bigint) AS found"
)
_UNFINISHED_BYTES = sql(
    "SELECT coalesce(sum(offset_bytes), 0)::bigint,"
    " coalesce(sum(CASE WHEN leased_until > $2 THEN size_bytes ELSE offset_bytes END), 0)::bigint"
    " FROM uploads WHERE agent_id = $1 AND state = 'pending' AND expires_at > $2"
)
# The state is asked twice: whoever ends the row that was found may be quicker.
_PIN_AGAIN = sql(
    "UPDATE uploads SET expires_at = $6, updated_at = $5"
    " WHERE agent_id = $1 AND state = 'stored' AND id ="
    " (SELECT id FROM uploads WHERE agent_id = $1 AND blob_id = $2 AND filename = $3"
    " AND coalesce(declared_mime_type, '') = $4 AND state = 'stored' AND +expires_at > $5 LIMIT 1)"
    f" RETURNING {UPLOAD_COLUMNS}"
)


async def count_unfinished(tx: Tx, access: Access, now_us: int, *, limit: int) -> int:
    """Count an agent's unfinished uploads, up to `limit`."""
    return int(await tx.value(_N_UNFINISHED, access.agent_id, now_us, limit))


async def unfinished_bytes(tx: Tx, access: Access, now_us: int) -> tuple[int, int]:
    """Add up an agent's unfinished uploads: what has come of them, and what will have come once
    the requests that send some of them now have brought all that was announced."""
    row = await tx.row(_UNFINISHED_BYTES, access.agent_id, now_us)
    return (row[0], row[1]) if row is not None else (0, 0)


async def pin_again(
    tx: Tx, access: Access, announced: Announced, blob_id: BlobId, *, now_us: int, expires_at: int
) -> Upload | None:
    """Let a stored upload of this blob, name and type live for longer; None when there is none."""
    row = await tx.row(
        _PIN_AGAIN,
        access.agent_id,
        blob_id,
        announced.filename,
        announced.declared_mime_type or "",
        now_us,
        expires_at,
    )
    return None if row is None else Upload(*row)
