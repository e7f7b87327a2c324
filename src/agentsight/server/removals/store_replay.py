"""Walk what a restored database brought back, to find what had been erased."""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, ConversationPk, OrganisationId
from agentsight.server.removals.store import GoingFile

_CONVERSATIONS = sql(
    "SELECT id, conversation_id, customer_id, created_at FROM conversations"
    " WHERE agent_id = $1 AND id > $2 AND erased_by IS NULL ORDER BY id LIMIT $3::bigint"
)
_ATTACHMENTS = sql(
    "SELECT id, uid, blob_id, size_bytes, item_key FROM attachments"
    " WHERE agent_id = $1 AND id > $2 ORDER BY id LIMIT $3::bigint"
)
_ORGANISATIONS = sql("SELECT id, uid FROM organisations ORDER BY id")
_AGENTS = sql("SELECT id, uid, organisation_id FROM agents ORDER BY id")


@dataclass(frozen=True, slots=True)
class SeenConversation:
    """What tells whether a conversation had been erased."""

    pk: ConversationPk
    conversation_id: str
    customer_id: str | None
    created_at: int


@dataclass(frozen=True, slots=True)
class Tenants:
    """Who there is in this database: uids by row id, and the organisation of each agent."""

    organisations: dict[int, str]
    agents: dict[int, str]
    organisation_of: dict[AgentId, OrganisationId]


async def tenants(tx: Tx) -> Tenants:
    """Read who there is. No access: a restore asks for all."""
    agents = await tx.rows(_AGENTS)
    return Tenants(
        dict(await tx.rows(_ORGANISATIONS)),  # pyright: ignore[reportArgumentType] # pairs
        {agent_id: uid for agent_id, uid, _ in agents},
        {AgentId(a): OrganisationId(o) for a, _, o in agents},
    )


async def some_conversations(
    tx: Tx, access: Access, after: int, limit: int
) -> list[SeenConversation]:
    """Read some of the agent's conversations, by row id."""
    rows = await tx.rows(_CONVERSATIONS, access.agent_id, after, limit)
    return [SeenConversation(*row) for row in rows]


async def some_attachments(tx: Tx, access: Access, after: int, limit: int) -> list[GoingFile]:
    """Read some of the agent's attachments, by row id."""
    rows = await tx.rows(_ATTACHMENTS, access.agent_id, after, limit)
    return [GoingFile(*row) for row in rows]
