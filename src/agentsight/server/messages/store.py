"""Questions about messages as rows: insert once, find a repeat, read transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import ConversationPk, MessageId
from agentsight.server.messages.model import (
    ActionDetail,
    ActionRow,
    ButtonDetail,
    ButtonRow,
    MessageRow,
    NewMessage,
)

_INSERT = sql(
    "INSERT INTO messages (agent_id, conversation_id, uid, item_key, external_id, kind, sender,"
    " author, content, metadata, timestamp, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, $12, $12)"
    " ON CONFLICT DO NOTHING RETURNING id"
)
_BY_ITEM_KEY = sql(
    "SELECT id, conversation_id, created_at FROM messages WHERE agent_id = $1 AND item_key = $2"
)
_BY_EXTERNAL_ID = sql(
    "SELECT id, conversation_id, created_at FROM messages"
    " WHERE agent_id = $1 AND conversation_id = $2 AND external_id = $3"
)
_FORGET_ITEM_KEY = sql("UPDATE messages SET item_key = NULL WHERE agent_id = $1 AND id = $2")
_QUEUE = sql("INSERT INTO search_queue (agent_id, message_id, content_folded) VALUES ($1, $2, $3)")
_INSERT_ACTION = sql(
    "INSERT INTO actions (agent_id, message_id, name, name_folded, started_at, started_at_text,"
    " ended_at, ended_at_text, duration_ms, tools_used, response, error_message, metadata,"
    " created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11, $12, $13::jsonb, $14, $14)"
    " RETURNING id"
)
_INSERT_BUTTON = sql(
    "INSERT INTO buttons (agent_id, message_id, button_event, label, value, metadata, created_at,"
    " updated_at) VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7, $7) RETURNING id"
)
_CONVERSATION_OF = sql(
    "SELECT conversation_id FROM messages WHERE agent_id = $1 AND id = $2 AND deleted_at IS NULL"
)
_READ = sql(
    "SELECT id, uid, conversation_id, kind, sender, author, external_id, content, metadata,"
    " timestamp FROM messages"
    " WHERE agent_id = $1 AND conversation_id = ANY($2::bigint[]) AND deleted_at IS NULL"
    " AND kind <> 'usage' ORDER BY conversation_id, timestamp, id"
)
_READ_ONE = sql(
    "SELECT id, uid, conversation_id, kind, sender, author, external_id, content, metadata,"
    " timestamp FROM messages WHERE agent_id = $1 AND id = $2 AND deleted_at IS NULL"
)
_ACTION_COLUMNS = (
    "a.message_id, a.id, a.name, a.started_at, a.started_at_text, a.ended_at, a.ended_at_text,"
    " a.duration_ms, a.tools_used, a.response, a.error_message, a.metadata"
)
_ACTIONS = sql(
    f"SELECT {_ACTION_COLUMNS} FROM actions a"  # constants of this file
    " WHERE a.agent_id = $1 AND a.message_id = ANY($2::bigint[]) ORDER BY a.message_id, a.id"
)
_BUTTONS = sql(
    "SELECT message_id, id, button_event, label, value, metadata FROM buttons"
    " WHERE agent_id = $1 AND message_id = ANY($2::bigint[]) ORDER BY message_id, id"
)
_LOCK = sql("SELECT id FROM messages WHERE agent_id = $1 AND id = $2 FOR UPDATE")
_TOUCH = sql("UPDATE messages SET updated_at = $3 WHERE agent_id = $1 AND id = $2")


@dataclass(frozen=True, slots=True)
class Known:
    """A message that was stored before under the same key."""

    message_id: MessageId
    conversation_pk: ConversationPk
    created_at: int


async def find_by_item_key(tx: Tx, access: Access, item_key: str) -> Known | None:
    """Find the message that an item became."""
    row = await tx.row(_BY_ITEM_KEY, access.agent_id, item_key)
    return None if row is None else Known(*row)


async def find_by_external_id(
    tx: Tx, access: Access, pk: ConversationPk, external_id: str
) -> Known | None:
    """Find a conversation's message by its channel's own id."""
    row = await tx.row(_BY_EXTERNAL_ID, access.agent_id, pk, external_id)
    return None if row is None else Known(*row)


async def forget_item_key(tx: Tx, access: Access, message_id: MessageId) -> None:
    """Give up a key whose time is over, so that a new message may carry it."""
    await tx.execute(_FORGET_ITEM_KEY, access.agent_id, message_id)


async def insert(
    tx: Tx, access: Access, pk: ConversationPk, new: NewMessage, *, uid: str, now_us: int
) -> MessageId | None:
    """Insert a message without its details; None when its key or external id is taken."""
    message_id = await tx.value(
        _INSERT,
        access.agent_id,
        pk,
        uid,
        new.item_key,
        new.external_id,
        new.kind,
        new.sender,
        new.author,
        new.content,
        new.metadata,
        new.timestamp,
        now_us,
    )
    if message_id is None:
        return None
    if new.kind != "usage":
        await tx.execute(_QUEUE, access.agent_id, message_id, new.content.casefold())
    return MessageId(message_id)


async def insert_action(
    tx: Tx,
    access: Access,
    message_id: MessageId,
    detail: ActionDetail,
    *,
    metadata: str | None,
    now_us: int,
) -> int:
    """Insert an action's detail and return its id."""
    return await tx.value(
        _INSERT_ACTION,
        access.agent_id,
        message_id,
        detail.name,
        detail.name.casefold(),
        detail.started_at,
        detail.started_at_text,
        detail.ended_at,
        detail.ended_at_text,
        detail.duration_ms,
        detail.tools_used,
        detail.response,
        detail.error_message,
        metadata,
        now_us,
    )


async def insert_button(
    tx: Tx,
    access: Access,
    message_id: MessageId,
    detail: ButtonDetail,
    *,
    metadata: str | None,
    now_us: int,
) -> int:
    """Insert a button's detail and return its id."""
    return await tx.value(
        _INSERT_BUTTON,
        access.agent_id,
        message_id,
        detail.event,
        detail.label,
        detail.value,
        metadata,
        now_us,
    )


async def lock(tx: Tx, access: Access, message_id: MessageId) -> None:
    """Let other writers to this message wait until the unit ends."""
    await tx.value(_LOCK, access.agent_id, message_id)


async def touch(tx: Tx, access: Access, message_id: MessageId, *, now_us: int) -> None:
    """Note that a message has changed (a file was added)."""
    await tx.execute(_TOUCH, access.agent_id, message_id, now_us)


async def conversation_of(tx: Tx, access: Access, message_id: MessageId) -> ConversationPk | None:
    """Return the conversation that a message belongs to."""
    return await tx.value(_CONVERSATION_OF, access.agent_id, message_id)


async def read_message(tx: Tx, access: Access, message_id: MessageId) -> MessageRow | None:
    """Read one message with its details."""
    row = await tx.row(_READ_ONE, access.agent_id, message_id)
    if row is None:
        return None
    message = MessageRow(*row)
    await _add_details(tx, access, [message])
    return message


async def read_messages(
    tx: Tx, access: Access, pks: Sequence[ConversationPk]
) -> dict[int, list[MessageRow]]:
    """Read the transcripts of conversations, by row id, each in order of (timestamp, id)."""
    rows = await tx.rows(_READ, access.agent_id, list(pks))
    messages = [MessageRow(*row) for row in rows]
    await _add_details(tx, access, messages)
    by_conversation: dict[int, list[MessageRow]] = {pk: [] for pk in pks}
    for message in messages:
        by_conversation[message.conversation_pk].append(message)
    return by_conversation


async def _add_details(tx: Tx, access: Access, messages: Sequence[MessageRow]) -> None:
    action_ids = [m.message_id for m in messages if m.kind == "action"]
    button_ids = [m.message_id for m in messages if m.kind == "button"]
    by_id = {m.message_id: m for m in messages}
    if action_ids:
        for message_id, *values in await tx.rows(_ACTIONS, access.agent_id, action_ids):
            by_id[message_id].actions.append(ActionRow(*values))
    if button_ids:
        for message_id, *values in await tx.rows(_BUTTONS, access.agent_id, button_ids):
            by_id[message_id].button = ButtonRow(*values)
