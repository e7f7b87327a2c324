"""What is kept of a customer, in all agents of an organisation; customer ids are taken exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId
from agentsight.server.removals.model import Rows

_AGENTS = sql("SELECT id FROM agents WHERE organisation_id = $1 ORDER BY id")
_MINE = (
    "(SELECT c.id FROM conversations c WHERE c.agent_id = $1 AND c.customer_id = $2"
    " AND c.erased_by IS NULL)"
)
_HOLDINGS = sql(
    "SELECT g.slug, count(*), coalesce(sum(c.n_messages), 0)::bigint, min(c.started_at),"
    " max(coalesce(c.ended_at, c.started_at)),"
    " coalesce(sum(CASE WHEN c.deleted_at IS NULL THEN 0 ELSE 1 END), 0)::bigint"
    " FROM conversations c JOIN agents g ON g.id = c.agent_id"
    " WHERE c.agent_id = $1 AND c.customer_id = $2 AND c.erased_by IS NULL GROUP BY g.slug"
)
_FILES = sql(
    "SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM attachments"
    f" WHERE agent_id = $1 AND conversation_id IN {_MINE}"
)
# Written in another case: for a person who looks for what is not there.
_LIKE_IT = sql(
    "SELECT DISTINCT customer_id FROM conversations WHERE agent_id = $1"
    " AND customer_id_folded = $2 AND customer_id <> $3 AND erased_by IS NULL"
    " ORDER BY customer_id LIMIT 5"
)
_OF_MESSAGES = f"message_id IN (SELECT m.id FROM messages m WHERE m.agent_id = $1 AND m.conversation_id IN {_MINE})"  # noqa: E501 - one condition
_COUNTS = {
    name: sql(f"SELECT count(*) FROM {name} WHERE agent_id = $1 AND {condition}")
    for name, condition in {
        "conversations": "customer_id = $2 AND erased_by IS NULL",
        "messages": f"conversation_id IN {_MINE}",
        "actions": _OF_MESSAGES,
        "buttons": _OF_MESSAGES,
        "usages": f"conversation_id IN {_MINE}",
        "feedbacks": f"conversation_id IN {_MINE}",
        "attachments": f"conversation_id IN {_MINE}",
        "search_queue": _OF_MESSAGES,
    }.items()
}
_INDEXED = sql(
    "SELECT count(*) FROM messages m WHERE m.agent_id = $1 AND m.kind <> 'usage'"
    f" AND m.conversation_id IN {_MINE} AND NOT EXISTS (SELECT 1 FROM search_queue q"
    " WHERE q.agent_id = m.agent_id AND q.message_id = m.id)"
)
# Each content once: its bytes, what was made of it, and whether something else needs it.
_CONTENTS = sql(
    "SELECT b.id, b.size_bytes,"
    " (SELECT count(*) FROM derivatives d WHERE d.agent_id = $1 AND d.blob_id = b.id"
    " AND d.object_key IS NOT NULL),"
    " (SELECT coalesce(sum(d.size_bytes), 0)::bigint FROM derivatives d WHERE d.agent_id = $1"
    " AND d.blob_id = b.id AND d.object_key IS NOT NULL),"
    " (SELECT count(*) FROM blob_texts t WHERE t.agent_id = $1 AND t.blob_id = b.id),"
    " (SELECT count(*) FROM uploads u WHERE u.agent_id = $1 AND u.blob_id = b.id"
    " AND u.created_at <= r.last_at),"
    " (SELECT count(*) FROM uploads u WHERE u.agent_id = $1 AND u.sha256 = b.sha256"
    " AND u.state = 'pending' AND u.created_at <= $3),"
    " (SELECT count(*) FROM uploads u WHERE u.agent_id = $1 AND u.blob_id = b.id"
    " AND u.state = 'stored' AND EXISTS (SELECT 1 FROM attachments n WHERE n.agent_id = $1"
    " AND n.blob_id = b.id AND n.filename = u.filename AND n.created_at >= u.created_at"
    f" AND n.conversation_id IN {_MINE})),"
    " CASE WHEN EXISTS (SELECT 1 FROM attachments o WHERE o.agent_id = $1 AND o.blob_id = b.id"
    f" AND o.conversation_id NOT IN {_MINE}) THEN 2"
    " WHEN EXISTS (SELECT 1 FROM uploads u WHERE u.agent_id = $1 AND u.blob_id = b.id"
    " AND u.expires_at > $3 AND u.created_at > r.last_at) THEN 1 ELSE 0 END"
    " FROM (SELECT a.blob_id, max(a.created_at) AS last_at FROM attachments a"
    f" WHERE a.agent_id = $1 AND a.conversation_id IN {_MINE} GROUP BY a.blob_id) r"
    " JOIN blobs b ON b.agent_id = $1 AND b.id = r.blob_id WHERE b.state = 'stored' ORDER BY b.id"
)


@dataclass(frozen=True, slots=True)
class Holding:
    """What one agent keeps of a customer; times are µs since 1970 UTC."""

    agent: str
    n_conversations: int
    n_messages: int
    first_at: int
    last_at: int
    n_hidden: int
    n_files: int
    n_bytes: int


@dataclass(slots=True)
class Would:
    """What an erasure would do in one agent."""

    rows: Rows
    objects: int = 0
    n_bytes: int = 0
    kept_blobs: int = 0
    kept_bytes: int = 0


async def agents_of(tx: Tx, access: Access) -> list[AgentId]:
    """Return all agents of the caller's organisation, those that were removed too."""
    return [AgentId(row[0]) for row in await tx.rows(_AGENTS, access.organisation_id)]


async def holding(tx: Tx, access: Access, customer_id: str) -> Holding | None:
    """Say what the caller's agent keeps of a customer; None for nothing."""
    row = await tx.row(_HOLDINGS, access.agent_id, customer_id)
    if row is None:
        return None
    files = await tx.row(_FILES, access.agent_id, customer_id) or (0, 0)
    return Holding(*row, *files)


async def like_it(tx: Tx, access: Access, customer_id: str) -> list[str]:
    """Return customer ids of the agent that differ from this one in case only."""
    rows = await tx.rows(_LIKE_IT, access.agent_id, customer_id.casefold(), customer_id)
    return [row[0] for row in rows]


async def would_remove(tx: Tx, access: Access, customer_id: str, *, now_us: int) -> Would:
    """Count what erasing a customer would remove and keep in the caller's agent."""
    agent_id = access.agent_id
    counts: dict[str, Any] = {
        name: await tx.value(statement, agent_id, customer_id)
        for name, statement in _COUNTS.items()
    }
    would = Would(Rows(**counts))
    would.rows.message_search = await tx.value(_INDEXED, agent_id, customer_id)
    for row in await tx.rows(_CONTENTS, agent_id, customer_id, now_us):
        _, size_bytes, n_made, made_bytes, n_texts, n_uploads, n_unfinished, n_named, need = row
        # 2: another attachment has it, whose upload may be any but those of the erased names.
        would.rows.uploads += n_uploads if need < 2 else n_named
        if need:
            would.kept_blobs += 1
            would.kept_bytes += size_bytes
            continue
        would.rows.blobs += 1
        would.rows.derivatives += n_made
        would.rows.blob_texts += n_texts
        would.rows.uploads += n_unfinished
        would.objects += 1 + n_made
        would.n_bytes += size_bytes + made_bytes
    return would
