"""Find messages that contain a text, without case: the index, and the scan of what is newer.

New messages stand in `search_queue` with their folded text, in the transaction that stored them; a
background step moves them into the index in large strides. Both are asked, so a search never misses
what has been answered as stored. Candidates of SQLite's contentless index are checked against the
message itself; PostgreSQL rechecks its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentsight.server.db import Database, Tx, sql
from agentsight.server.db.trigrams import (
    MIN_INDEXED_CHARS,
    ROW_MASK,
    ROWID_SHIFT,
    fts_query,
    index_range,
)
from agentsight.server.text import like_pattern

_STRIDE = 1_000
_STRIDE_CHARS = 400_000
"""Of text. SQLite indexes about 4 million characters a second, and nobody else writes meanwhile."""
_LOOK_AHEAD = 50
"""Messages whose lengths are looked at before they are taken: one may have a million characters."""

_TAKE = sql(
    "SELECT agent_id, message_id, content_folded FROM search_queue"
    " ORDER BY agent_id, message_id LIMIT $1::bigint FOR UPDATE SKIP LOCKED"
)
_LENGTHS = sql(
    "SELECT length(content_folded) FROM search_queue ORDER BY agent_id, message_id LIMIT $1::bigint"
)
_WAITING = sql("SELECT 1 FROM search_queue LIMIT 1")
_INDEX_POSTGRESQL = sql(
    "INSERT INTO message_search (agent_id, message_id, content_folded)"
    " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[])"
    " ON CONFLICT (agent_id, message_id) DO UPDATE SET content_folded = excluded.content_folded",
    sqlite="SELECT $1, $2, $3",
)
_INDEX_SQLITE = sql(
    "SELECT $1, $2",
    sqlite="INSERT INTO message_search (rowid, content) VALUES ($1, $2)",
)
_DROP = sql("DELETE FROM search_queue WHERE agent_id = $1 AND message_id = ANY($2::bigint[])")


def needle_args(agent_id: int, needle: str) -> list[str | int]:
    """Return the arguments of `containing_sql`: pattern, FTS query, first and last index row."""
    folded = needle.casefold()
    return [like_pattern(folded), fts_query(folded), *index_range(agent_id)]


def containing_sql(needle: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the sub-selects of conversation ids, for PostgreSQL and for SQLite.

    Args:
        needle: What to find; under three characters the index cannot help and all is scanned.
        names: Placeholders of `needle_args`, in its order. `$1` is the agent.
    """
    pattern, query, first, last = names
    queued = (
        "SELECT m.conversation_id FROM search_queue q JOIN messages m"
        " ON m.agent_id = q.agent_id AND m.id = q.message_id AND m.deleted_at IS NULL"
        f" WHERE q.agent_id = $1 AND q.content_folded LIKE {pattern}::text ESCAPE '\\'"
    )
    unused = f" AND {query}::text IS NOT NULL AND {first}::bigint <= {last}::bigint"
    postgresql = (
        "SELECT m.conversation_id FROM message_search s JOIN messages m"
        " ON m.agent_id = s.agent_id AND m.id = s.message_id AND m.deleted_at IS NULL"
        f" WHERE s.agent_id = $1 AND s.content_folded LIKE {pattern}::text ESCAPE '\\'{unused}"
        f" UNION {queued}"
    )
    if len(needle.casefold()) < MIN_INDEXED_CHARS:
        scan = (
            "SELECT m.conversation_id FROM messages m WHERE m.agent_id = $1"
            " AND m.deleted_at IS NULL AND m.kind <> 'usage'"
            f" AND fold(m.content) LIKE {pattern} ESCAPE '\\'{unused}"
        )
        return postgresql, scan
    sqlite = (
        # CROSS JOIN keeps the planner from walking all messages first.
        "SELECT m.conversation_id FROM message_search s CROSS JOIN messages m"
        f" ON m.id = (s.rowid & {ROW_MASK})"
        f" WHERE s.message_search MATCH {query} AND s.rowid BETWEEN {first} AND {last}"
        " AND m.agent_id = $1 AND m.deleted_at IS NULL"
        f" AND fold(m.content) LIKE {pattern} ESCAPE '\\'"
        f" UNION {queued}"
    )
    return postgresql, sqlite


async def index_step(db: Database) -> int:
    """Move one stride of queued messages into the index; returns how many were moved."""

    async def is_waiting(tx: Tx) -> bool:
        return await tx.value(_WAITING) is not None

    # Asked by reading: an idle server must not take the writer's lock every second.
    if not await db.read(is_waiting):
        return 0

    async def move(tx: Tx) -> int:
        n_moved = n_chars = 0
        while n_moved < _STRIDE and n_chars < _STRIDE_CHARS:
            lengths = [length for (length,) in await tx.rows(_LENGTHS, _LOOK_AHEAD)]
            rows = await tx.rows(_TAKE, _n_fitting(lengths, _STRIDE_CHARS - n_chars))
            if not rows:
                break
            await _index(tx, rows, is_postgresql=db.dialect == "postgresql")
            n_moved += len(rows)
            n_chars += sum(len(folded) for _, _, folded in rows)
        return n_moved

    return await db.write(move)


def _n_fitting(lengths: Sequence[int], room: int) -> int:
    """Say how many texts fit, from the first; one always does."""
    n_chars = 0
    for n, length in enumerate(lengths):
        n_chars += length
        if n and n_chars > room:
            return n
    return len(lengths)


async def _index(tx: Tx, rows: Sequence[tuple[Any, ...]], *, is_postgresql: bool) -> None:
    if is_postgresql:
        await tx.execute(_INDEX_POSTGRESQL, *(list(column) for column in zip(*rows, strict=True)))
    else:
        for agent_id, message_id, folded in rows:
            await tx.execute(_INDEX_SQLITE, (agent_id << ROWID_SHIFT) | message_id, folded)
    by_agent: dict[int, list[int]] = {}
    for agent_id, message_id, _ in rows:
        by_agent.setdefault(agent_id, []).append(message_id)
    for agent_id, ids in by_agent.items():
        await tx.execute(_DROP, agent_id, ids)
