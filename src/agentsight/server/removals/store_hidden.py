"""What is hidden and can be brought back, and whose time to be erased has come."""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.conversations.store import shift_counts
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, ConversationPk, MessageId, OrganisationId
from agentsight.server.removals.store import GoingFile

_ATTACHMENT = sql(
    "SELECT a.id, a.uid, a.blob_id, a.size_bytes, a.item_key, a.message_id, a.deleted_at"
    " FROM attachments a JOIN conversations c ON c.agent_id = a.agent_id"
    " AND c.id = a.conversation_id AND c.erased_by IS NULL"
    " WHERE a.agent_id = $1 AND a.uid = $2"
)
# The row by its number: its index by uid alone would also find another agent's.
_SET_ATTACHMENT = sql(
    "UPDATE attachments SET deleted_at = $3::bigint, updated_at = $4"
    " WHERE agent_id = $1 AND id = $2"
    " AND (deleted_at IS NULL) <> ($3::bigint IS NULL)"
)
_LOCK_ATTACHMENT = sql("SELECT id FROM attachments WHERE agent_id = $1 AND id = $2 FOR UPDATE")
_CONVERSATION_STATE = sql(
    "SELECT deleted_at FROM conversations WHERE agent_id = $1 AND id = $2 AND erased_by IS NULL"
    " FOR UPDATE"
)
_RESTORE_CONVERSATION = sql(
    "UPDATE conversations SET deleted_at = NULL, updated_at = $3"
    " WHERE agent_id = $1 AND id = $2 AND deleted_at IS NOT NULL AND erased_by IS NULL"
)
_DUE_CONVERSATION = sql(
    "SELECT c.agent_id, g.organisation_id FROM conversations c JOIN agents g ON g.id = c.agent_id"
    " WHERE c.deleted_at <= $1 AND c.erased_by IS NULL LIMIT 1"
)
_DUE_CONVERSATIONS = sql(
    "SELECT id FROM conversations WHERE agent_id = $1 AND deleted_at <= $2 AND erased_by IS NULL"
    " ORDER BY id LIMIT $3::bigint FOR UPDATE SKIP LOCKED"
)
# Those of a conversation that is being erased go with it.
_DUE_ATTACHMENT = sql(
    "SELECT a.agent_id, g.organisation_id FROM attachments a JOIN agents g ON g.id = a.agent_id"
    " JOIN conversations c ON c.agent_id = a.agent_id AND c.id = a.conversation_id"
    " WHERE a.deleted_at <= $1 AND c.erased_by IS NULL LIMIT 1"
)
_DUE_ATTACHMENTS = sql(
    "SELECT a.id, a.uid, a.blob_id, a.size_bytes, a.item_key FROM attachments a"
    " JOIN conversations c ON c.agent_id = a.agent_id AND c.id = a.conversation_id"
    " WHERE a.agent_id = $1 AND a.deleted_at <= $2 AND c.erased_by IS NULL"
    " ORDER BY a.id LIMIT $3::bigint FOR UPDATE OF a SKIP LOCKED"
)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One of the caller's attachments, hidden or not."""

    file: GoingFile
    message_id: MessageId
    deleted_at: int | None


async def find_attachment(tx: Tx, access: Access, uid: str) -> FoundFile | None:
    """Find one of the caller's attachments, hidden ones too."""
    row = await tx.row(_ATTACHMENT, access.agent_id, uid)
    return None if row is None else FoundFile(GoingFile(*row[:5]), *row[5:])


async def lock_attachment(tx: Tx, access: Access, attachment_id: int) -> bool:
    """Let nobody else change an attachment until the unit ends; False when it is not there."""
    return await tx.value(_LOCK_ATTACHMENT, access.agent_id, attachment_id) is not None


async def set_hidden(
    tx: Tx, access: Access, attachment_id: int, *, deleted_at: int | None, now_us: int
) -> bool:
    """Hide an attachment, or (None) show it again; False when it is so already."""
    done = await tx.execute(_SET_ATTACHMENT, access.agent_id, attachment_id, deleted_at, now_us)
    return done == 1


async def conversation_is_there(tx: Tx, access: Access, pk: ConversationPk) -> bool:
    """Say whether a conversation can still be brought back, or is there anyway."""
    return await tx.row(_CONVERSATION_STATE, access.agent_id, pk) is not None


async def restore_conversation(tx: Tx, access: Access, pk: ConversationPk, *, now_us: int) -> bool:
    """Show a hidden conversation again; False when it is not hidden."""
    if await tx.execute(_RESTORE_CONVERSATION, access.agent_id, pk, now_us) != 1:
        return False
    await shift_counts(tx, access, pk, live=1, deleted=-1)
    return True


async def due_conversation(tx: Tx, until_us: int) -> tuple[AgentId, OrganisationId] | None:
    """Return an agent with conversations hidden until then. No access: the chore asks for all."""
    row = await tx.row(_DUE_CONVERSATION, until_us)
    return None if row is None else (AgentId(row[0]), OrganisationId(row[1]))


async def due_conversations(
    tx: Tx, access: Access, until_us: int, limit: int
) -> list[ConversationPk]:
    """Return some of an agent's conversations that were hidden until then."""
    rows = await tx.rows(_DUE_CONVERSATIONS, access.agent_id, until_us, limit)
    return [ConversationPk(row[0]) for row in rows]


async def due_attachment(tx: Tx, until_us: int) -> tuple[AgentId, OrganisationId] | None:
    """Return an agent with attachments hidden until then. No access: the chore asks for all."""
    row = await tx.row(_DUE_ATTACHMENT, until_us)
    return None if row is None else (AgentId(row[0]), OrganisationId(row[1]))


async def due_attachments(tx: Tx, access: Access, until_us: int, limit: int) -> list[GoingFile]:
    """Return some of an agent's attachments that were hidden until then."""
    rows = await tx.rows(_DUE_ATTACHMENTS, access.agent_id, until_us, limit)
    return [GoingFile(*row) for row in rows]
