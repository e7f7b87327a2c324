"""Questions about what was learned of a blob: the columns, and the copies that rows show."""

from __future__ import annotations

from agentsight.server.attachments.facts import Facts, Scan, decode_facts, encode_facts
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, BlobId

_READ = sql(
    "SELECT facts, detected_mime_type, width, height, pages, seconds, scan FROM blobs"
    " WHERE agent_id = $1 AND id = $2 FOR UPDATE"
)
_PUT_BLOB = sql(
    "UPDATE blobs SET detected_mime_type = $3, width = $4, height = $5, pages = $6, seconds = $7,"
    " scan = $8, facts = $9, updated_at = $10 WHERE agent_id = $1 AND id = $2"
)
# Rows that say so already are left alone: a file that was sent ten thousand times has as many.
_PUT_COPIES = sql(
    "UPDATE attachments SET facts = $3, updated_at = $4"
    " WHERE agent_id = $1 AND blob_id = $2 AND (facts IS NULL OR facts <> $3)"
)


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
    await tx.execute(_PUT_COPIES, agent_id, blob_id, text, now_us)
