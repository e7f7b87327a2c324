"""What fsck asks a database. It reads for the operator, across all agents, on no one's behalf."""

from __future__ import annotations

from collections.abc import Sequence

from agentsight.server.db import Tx, sql
from agentsight.server.fsck.model import BlobRow, CopyRow
from agentsight.server.ids import AgentId, BlobId

_BLOBS = sql(
    "SELECT agent_id, id, object_key, size_bytes, sha256 FROM blobs WHERE state = 'stored'"
    " AND (agent_id, id) > ($1::bigint, $2::bigint) ORDER BY agent_id, id LIMIT $3::bigint"
)
_COPIES = sql(
    "SELECT agent_id, blob_id, kind, object_key, size_bytes FROM derivatives"
    " WHERE state = 'stored' AND (agent_id, blob_id, kind) > ($1::bigint, $2::bigint, $3::text)"
    " ORDER BY agent_id, blob_id, kind LIMIT $4::bigint"
)
_BLOB_IS_STORED = sql(
    "SELECT 1 FROM blobs WHERE agent_id = $1 AND id = $2 AND object_key = $3 AND state = 'stored'"
)
# Whatever a row still means to do with an object: read it, remove it, or finish it.
_NAMED = sql(
    "SELECT object_key FROM blobs WHERE object_key = ANY($1::text[]) AND state <> 'gone'"
    " UNION ALL SELECT object_key FROM derivatives WHERE object_key = ANY($1::text[])"
    " UNION ALL SELECT object_key FROM uploads WHERE object_key = ANY($1::text[])"
    " AND state = 'pending'"
)
_FORGET_COPY = sql(
    "DELETE FROM derivatives WHERE agent_id = $1 AND blob_id = $2 AND kind = $3 AND object_key = $4"
)
_GOING = sql(
    "SELECT agent_id, object_key, size_bytes FROM blobs WHERE state = 'deleting'"
    " ORDER BY agent_id, id"
)
_N_REFERENCES = sql("SELECT count(*) FROM attachments WHERE agent_id = $1 AND blob_id = $2")
_AGENTS = sql("SELECT id, slug FROM agents ORDER BY id")
_COUNTED = sql(
    "SELECT coalesce(sum(n_blobs), 0)::bigint, coalesce(sum(stored_bytes), 0)::bigint,"
    " coalesce(sum(n_attachments), 0)::bigint, coalesce(sum(referenced_bytes), 0)::bigint"
    " FROM storage_counts WHERE agent_id = $1"
)
_TRUE_BLOBS = sql(
    "SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM blobs"
    " WHERE agent_id = $1 AND state = 'stored'"
)
_TRUE_ATTACHMENTS = sql(
    "SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM attachments WHERE agent_id = $1"
)
_CLEAR_COUNTS = sql("DELETE FROM storage_counts WHERE agent_id = $1")
_LOCK_COUNTS = sql("SELECT 1 FROM storage_counts WHERE agent_id = $1 ORDER BY shard FOR UPDATE")
_CONVERSATIONS_COUNTED = sql(
    "SELECT coalesce(sum(n_live), 0)::bigint, coalesce(sum(n_deleted), 0)::bigint"
    " FROM conversation_counts WHERE agent_id = $1"
)
_CONVERSATIONS_TRUE = sql(
    "SELECT coalesce(sum(CASE WHEN deleted_at IS NULL THEN 1 ELSE 0 END), 0)::bigint,"
    " coalesce(sum(CASE WHEN deleted_at IS NULL THEN 0 ELSE 1 END), 0)::bigint"
    " FROM conversations WHERE agent_id = $1"
)
_ADD_CONVERSATIONS = sql(
    "INSERT INTO conversation_counts (agent_id, shard, n_live, n_deleted) VALUES ($1, 0, $2, $3)"
    " ON CONFLICT (agent_id, shard) DO UPDATE SET"
    " n_live = conversation_counts.n_live + excluded.n_live,"
    " n_deleted = conversation_counts.n_deleted + excluded.n_deleted"
)
# What a server is still copying is not wrong.
_STALE = sql(
    "SELECT a.agent_id, a.id, a.uid FROM attachments a"
    " JOIN blobs b ON b.agent_id = a.agent_id AND b.id = a.blob_id"
    " WHERE b.facts IS NOT NULL AND (a.facts IS NULL OR a.facts <> b.facts)"
    " AND NOT EXISTS (SELECT 1 FROM facts_queue q"
    " WHERE q.agent_id = a.agent_id AND q.blob_id = a.blob_id)"
    " ORDER BY a.agent_id, a.id LIMIT $1::bigint"
)
_MEND_STALE = sql(
    "UPDATE attachments SET facts = (SELECT b.facts FROM blobs b"
    " WHERE b.agent_id = attachments.agent_id AND b.id = attachments.blob_id)"
    " WHERE agent_id = $1 AND id = $2"
)

Counts = tuple[int, int, int, int]


async def blobs_after(tx: Tx, after: tuple[int, int], limit: int) -> list[BlobRow]:
    """Read stored blobs in order of (agent, id)."""
    return [BlobRow(*row) for row in await tx.rows(_BLOBS, *after, limit)]


async def copies_after(tx: Tx, after: tuple[int, int, str], limit: int) -> list[CopyRow]:
    """Read what was made of blobs, in order."""
    return [CopyRow(*row) for row in await tx.rows(_COPIES, *after, limit)]


async def is_stored(tx: Tx, row: BlobRow) -> bool:
    """Say whether a blob's row still names this object."""
    return await tx.value(_BLOB_IS_STORED, row.agent_id, row.blob_id, row.object_key) is not None


async def named_among(tx: Tx, keys: Sequence[str]) -> set[str]:
    """Return those object keys that some row still names."""
    return {key for (key,) in await tx.rows(_NAMED, list(keys))}


async def forget_copy(tx: Tx, row: CopyRow) -> None:
    """Forget something that was made of a blob; it is made again when it is asked for."""
    await tx.execute(_FORGET_COPY, row.agent_id, row.blob_id, row.kind, row.object_key)


async def going(tx: Tx) -> list[tuple[AgentId, str, int]]:
    """Read blobs whose removal has begun: agent, object, size."""
    return [(AgentId(agent), key, size) for agent, key, size in await tx.rows(_GOING)]


async def n_references(tx: Tx, agent_id: int, blob_id: int) -> int:
    """Count the attachments that refer to a blob, hidden ones too."""
    return await tx.value(_N_REFERENCES, AgentId(agent_id), BlobId(blob_id))


async def agents(tx: Tx) -> list[tuple[AgentId, str]]:
    """Read all agents: id, slug."""
    return [(AgentId(agent_id), slug) for agent_id, slug in await tx.rows(_AGENTS)]


async def lock_counts(tx: Tx, agent_id: AgentId) -> None:
    """Let nobody count for this agent until the unit ends."""
    await tx.rows(_LOCK_COUNTS, agent_id)


async def storage_counts(tx: Tx, agent_id: AgentId) -> tuple[Counts, Counts]:
    """Return what is counted of an agent's files, and what its rows say."""
    counted = await tx.row(_COUNTED, agent_id)
    blobs = await tx.row(_TRUE_BLOBS, agent_id)
    attachments = await tx.row(_TRUE_ATTACHMENTS, agent_id)
    if counted is None or blobs is None or attachments is None:
        raise AssertionError("an aggregate always has a row")
    n, stored, n_attachments, referenced = counted
    return (n, stored, n_attachments, referenced), (*_pair(blobs), *_pair(attachments))


async def clear_storage_counts(tx: Tx, agent_id: AgentId) -> None:
    """Forget what is counted; whoever calls it counts anew in the same unit."""
    await tx.execute(_CLEAR_COUNTS, agent_id)


async def conversation_counts(tx: Tx, agent_id: AgentId) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what is counted of an agent's conversations, and what its rows say."""
    counted = await tx.row(_CONVERSATIONS_COUNTED, agent_id)
    true = await tx.row(_CONVERSATIONS_TRUE, agent_id)
    if counted is None or true is None:
        raise AssertionError("an aggregate always has a row")
    return _pair(counted), _pair(true)


async def add_conversations(tx: Tx, agent_id: AgentId, n_live: int, n_deleted: int) -> None:
    """Correct the counters of conversations by a difference."""
    await tx.execute(_ADD_CONVERSATIONS, agent_id, n_live, n_deleted)


async def stale_facts(tx: Tx, limit: int) -> list[tuple[AgentId, int, str]]:
    """Read attachments whose copy of the facts is not their blob's: agent, id, uid."""
    return [(AgentId(agent), pk, uid) for agent, pk, uid in await tx.rows(_STALE, limit)]


async def mend_facts(tx: Tx, agent_id: AgentId, attachment_id: int) -> None:
    """Copy the blob's facts into an attachment's row."""
    await tx.execute(_MEND_STALE, agent_id, attachment_id)


def _pair(row: tuple[int, ...]) -> tuple[int, int]:
    first, second = row
    return first, second
