"""Questions about what was learned of a blob: the columns, and the copies that rows show.

A content may have any number of attachments. The first of them are changed with the blob; for the
rest a row in `facts_queue` says how far the copies have come, and a chore goes on a stride at a
time. Whoever changes them holds the blob's row, so the copies are all of one text in the end, and a
new attachment takes the blob's. What is withheld or served is the blob's own state, never a copy.
"""

from __future__ import annotations

from typing import Final

from agentsight.server.attachments.facts import Facts, Scan, decode_facts, encode_facts
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, BlobId

STRIDE_ROWS: Final = 500
"""SQLite changes so many copies, which stand in an index too, in some 10 ms."""

_READ = sql(
    "SELECT facts, detected_mime_type, width, height, pages, seconds, scan FROM blobs"
    " WHERE agent_id = $1 AND id = $2 FOR UPDATE"
)
_PUT_BLOB = sql(
    "UPDATE blobs SET detected_mime_type = $3, width = $4, height = $5, pages = $6, seconds = $7,"
    " scan = $8, facts = $9, updated_at = $10 WHERE agent_id = $1 AND id = $2"
)
_SOME_COPIES = sql(
    "SELECT id FROM attachments WHERE agent_id = $1 AND blob_id = $2 AND id > $3"
    " ORDER BY id LIMIT $4::bigint"
)
# Rows that say so already are left alone.
_PUT_COPIES = sql(
    "UPDATE attachments SET facts = $3, updated_at = $4"
    " WHERE agent_id = $1 AND id = ANY($2::bigint[]) AND (facts IS NULL OR facts <> $3)"
)
_QUEUE = sql(
    "INSERT INTO facts_queue (agent_id, blob_id, after_id, created_at) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (agent_id, blob_id) DO UPDATE SET after_id = excluded.after_id"
)
_NEXT = sql(
    "SELECT agent_id, blob_id FROM facts_queue WHERE agent_id > $1"
    " ORDER BY agent_id, blob_id LIMIT 1"
)
_HOLD_TEXT = sql("SELECT facts FROM blobs WHERE agent_id = $1 AND id = $2 FOR UPDATE")
_AFTER = sql("SELECT after_id FROM facts_queue WHERE agent_id = $1 AND blob_id = $2")
_FINISH = sql("DELETE FROM facts_queue WHERE agent_id = $1 AND blob_id = $2")


async def read_facts(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> Facts | None:
    """Read what is known of a blob, and keep others from changing it until the unit ends.

    None where there is no such blob. A blob from before facts were kept has those of its columns.
    """
    row = await tx.row(_READ, agent_id, blob_id)
    if row is None:
        return None
    text, *columns = row
    if text is not None:
        return decode_facts(text)
    detected, width, height, pages, seconds, scan = columns
    return Facts(detected, width, height, pages, seconds, _scan(scan))


def _scan(text: str) -> Scan:
    if text == "clean" or text == "infected" or text == "failed":
        return text
    return "not_scanned"


async def put_facts(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, facts: Facts, *, now_us: int
) -> None:
    """Keep what was learned of a blob, in its row and in every row that refers to it.

    Of many rows, in the first; the others follow within seconds (`copy_some`).

    Read it in the same unit (`read_facts`): examining and scanning each change their own half.
    """
    text = encode_facts(facts)
    await tx.execute(
        _PUT_BLOB,
        agent_id,
        blob_id,
        facts.detected_mime_type,
        facts.width,
        facts.height,
        facts.pages,
        facts.seconds,
        facts.scan,
        text,
        now_us,
    )
    await _copy(tx, agent_id, blob_id, text, 0, now_us)


async def _copy(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, text: str, after_id: int, now_us: int
) -> bool:
    """Write the text into some rows; False when there are none behind them."""
    rows = await tx.rows(_SOME_COPIES, agent_id, blob_id, after_id, STRIDE_ROWS)
    ids = [row[0] for row in rows]
    await tx.execute(_PUT_COPIES, agent_id, ids, text, now_us)
    if len(ids) < STRIDE_ROWS:
        return False
    await tx.execute(_QUEUE, agent_id, blob_id, ids[-1], now_us)
    return True


async def next_to_copy(tx: Tx, after: AgentId) -> tuple[AgentId, BlobId] | None:
    """Return a blob whose copies are not all right yet, of the next agent behind `after`."""
    row = await tx.row(_NEXT, after) or await tx.row(_NEXT, 0)
    return None if row is None else (AgentId(row[0]), BlobId(row[1]))


async def copy_some(tx: Tx, agent_id: AgentId, blob_id: BlobId, *, now_us: int) -> None:
    """Write what is known of a blob into some more of its rows, and note how far that came."""
    text = await tx.value(_HOLD_TEXT, agent_id, blob_id)
    after_id = await tx.value(_AFTER, agent_id, blob_id)
    if after_id is None:  # another process was quicker
        return
    if text is None or not await _copy(tx, agent_id, blob_id, text, after_id, now_us):
        await tx.execute(_FINISH, agent_id, blob_id)
