"""The text found in blobs: as it is shown, and folded in the search index.

On SQLite the index keeps no copy of what it holds, so whoever removes a row must say what stood in
it: the text is folded again.
"""

from __future__ import annotations

from agentsight.server.db import Tx, sql
from agentsight.server.db.trigrams import ROWID_SHIFT
from agentsight.server.ids import AgentId, BlobId

_READ = sql("SELECT content FROM blob_texts WHERE agent_id = $1 AND blob_id = $2")
_START = sql(
    "SELECT substr(content, 1, $3::int) FROM blob_texts WHERE agent_id = $1 AND blob_id = $2"
)
_PUT = sql(
    "INSERT INTO blob_texts (agent_id, blob_id, content, is_cut, created_at)"
    " VALUES ($1, $2, $3, $4, $5)"
)
_DROP = sql("DELETE FROM blob_texts WHERE agent_id = $1 AND blob_id = $2")
# Under one statement each database keeps its own index: PostgreSQL a table with the folded text,
# SQLite a contentless one by a row number that begins with the agent.
_INDEX = sql(
    "INSERT INTO attachment_search (agent_id, blob_id, content_folded) VALUES ($1, $2, $3)",
    sqlite="INSERT INTO attachment_search (rowid, content)"
    f" VALUES (($1 << {ROWID_SHIFT}) | $2, $3)",
)
_UNINDEX = sql(
    "DELETE FROM attachment_search WHERE agent_id = $1 AND blob_id = $2 AND $3::text IS NOT NULL",
    sqlite="INSERT INTO attachment_search (attachment_search, rowid, content)"
    f" VALUES ('delete', ($1 << {ROWID_SHIFT}) | $2, $3)",
)


async def read_text_start(tx: Tx, agent_id: AgentId, blob_id: BlobId, n_chars: int) -> str | None:
    """Read the first characters of a blob's text; None where none is kept."""
    return await tx.value(_START, agent_id, blob_id, n_chars)


async def put_text(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, text: str, *, is_cut: bool, now_us: int
) -> None:
    """Keep a blob's text, and let searches find it, in place of what was kept before."""
    await drop_text(tx, agent_id, blob_id)
    await tx.execute(_PUT, agent_id, blob_id, text, int(is_cut), now_us)
    await tx.execute(_INDEX, agent_id, blob_id, text.casefold())


async def drop_text(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> bool:
    """Remove a blob's text from its row and from the index; False when there was none."""
    text = await tx.value(_READ, agent_id, blob_id)
    if text is None:
        return False
    await tx.execute(_UNINDEX, agent_id, blob_id, text.casefold())
    await tx.execute(_DROP, agent_id, blob_id)
    return True
