"""Bytes per agent, counted by the writes: what is stored, and what attachments refer to.

In shards, so that writers on PostgreSQL do not queue behind one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, ConversationPk

N_SHARDS: Final = 16

_ADD = sql(
    "INSERT INTO storage_counts"
    " (agent_id, shard, n_blobs, stored_bytes, n_attachments, referenced_bytes)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (agent_id, shard) DO UPDATE SET"
    " n_blobs = storage_counts.n_blobs + excluded.n_blobs,"
    " stored_bytes = storage_counts.stored_bytes + excluded.stored_bytes,"
    " n_attachments = storage_counts.n_attachments + excluded.n_attachments,"
    " referenced_bytes = storage_counts.referenced_bytes + excluded.referenced_bytes"
)
_READ = sql(
    "SELECT coalesce(sum(n_blobs), 0)::bigint, coalesce(sum(stored_bytes), 0)::bigint,"
    " coalesce(sum(n_attachments), 0)::bigint, coalesce(sum(referenced_bytes), 0)::bigint"
    " FROM storage_counts WHERE agent_id = $1"
)
_GATE_SHARD: Final = 0
_LOCK = sql("SELECT 1 FROM storage_counts WHERE agent_id = $1 AND shard = $2 FOR UPDATE")
_MAKE = sql(
    "INSERT INTO storage_counts"
    " (agent_id, shard, n_blobs, stored_bytes, n_attachments, referenced_bytes)"
    " VALUES ($1, $2, 0, 0, 0, 0) ON CONFLICT (agent_id, shard) DO NOTHING"
)
_LOCK_CONVERSATION = sql(
    "SELECT 1 FROM conversations WHERE agent_id = $1 AND id = $2 FOR NO KEY UPDATE"
)
_OF_CONVERSATION = sql(
    "SELECT coalesce(sum(size_bytes), 0)::bigint FROM attachments"
    " WHERE agent_id = $1 AND conversation_id = $2 AND deleted_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class StorageCounts:
    """What an agent keeps. Attachments that are hidden, and can be brought back, count."""

    n_blobs: int
    stored_bytes: int
    n_attachments: int
    referenced_bytes: int


async def add_counts(
    tx: Tx,
    agent_id: AgentId,
    shard: int,
    n_blobs: int = 0,
    stored_bytes: int = 0,
    n_attachments: int = 0,
    referenced_bytes: int = 0,
) -> None:
    """Count more, or with negative numbers less, in the unit that writes or removes the rows.

    Args:
        shard: Any whole number, best one that differs between writers: a row id.
    """
    numbers = (n_blobs, stored_bytes, n_attachments, referenced_bytes)
    if any(numbers):
        await tx.execute(_ADD, agent_id, shard % N_SHARDS, *numbers)


async def read_counts(tx: Tx, access: Access) -> StorageCounts:
    """Read what the caller's agent keeps."""
    row = await tx.row(_READ, access.agent_id)
    return StorageCounts(*row) if row is not None else StorageCounts(0, 0, 0, 0)


async def lock_counts(tx: Tx, access: Access) -> None:
    """Let nobody else pass here for this agent until the unit ends: for a limit that must hold.

    One row is the gate, made where an agent has none yet: what is not there cannot be locked.
    """
    if not await tx.rows(_LOCK, access.agent_id, _GATE_SHARD):
        await tx.execute(_MAKE, access.agent_id, _GATE_SHARD)
        await tx.rows(_LOCK, access.agent_id, _GATE_SHARD)


async def lock_conversation(tx: Tx, access: Access, pk: ConversationPk) -> None:
    """Let nobody else add files to a conversation until the unit ends."""
    await tx.rows(_LOCK_CONVERSATION, access.agent_id, pk)


async def conversation_bytes(tx: Tx, access: Access, pk: ConversationPk) -> int:
    """Add up the files of a conversation."""
    return await tx.value(_OF_CONVERSATION, access.agent_id, pk)
