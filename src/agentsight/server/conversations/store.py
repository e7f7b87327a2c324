"""Questions about conversations as rows: find, make, fill, touch, change.

Lists and filters are in `store_lists.py`. Whether a write may happen is the service's business.
"""

from __future__ import annotations

from typing import Any

from agentsight.server.access import Access
from agentsight.server.conversations.model import Head, NewConversation
from agentsight.server.db import Tx, sql
from agentsight.server.ids import ConversationPk, EnvironmentId, MessageId
from agentsight.server.text import fold_text

# What an erasure is removing (`erased_by`) is not there any more for anybody.
_FIND = sql(
    "SELECT id, uid, conversation_id, customer_id FROM conversations"
    " WHERE agent_id = $1 AND id = $2 AND erased_by IS NULL"
)
_FIND_BY_ID = sql(
    "SELECT id, uid, conversation_id, customer_id FROM conversations"
    " WHERE agent_id = $1 AND conversation_id = $2 AND erased_by IS NULL"
)
_FIND_BY_UID = sql(
    "SELECT id, uid, conversation_id, customer_id FROM conversations"
    " WHERE agent_id = $1 AND uid = $2 AND erased_by IS NULL"
)
_FIND_BY_MESSAGE = sql(
    "SELECT c.id, c.uid, c.conversation_id, c.customer_id FROM messages m JOIN conversations c"
    " ON c.agent_id = m.agent_id AND c.id = m.conversation_id"
    " WHERE m.agent_id = $1 AND m.id = $2 AND m.deleted_at IS NULL AND c.erased_by IS NULL"
)
_INSERT = sql(
    "INSERT INTO conversations (agent_id, uid, conversation_id, environment_id, name, name_folded,"
    " customer_id, customer_id_folded, customer_ip_address, device, source, language, metadata,"
    " geo_country, is_used, started_at, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::jsonb, $14, $15, $16, $17,"
    " $17)"
    " ON CONFLICT (agent_id, conversation_id) DO NOTHING RETURNING id"
)
# An update that changes nothing is not made: a resend must not move `updated_at`.
_FILL = sql(
    "UPDATE conversations SET"
    " name = coalesce(name, $3::text), name_folded = coalesce(name_folded, $4::text),"
    " customer_id = coalesce(customer_id, $5::text),"
    " customer_id_folded = coalesce(customer_id_folded, $6::text),"
    " customer_ip_address = coalesce(customer_ip_address, $7::text),"
    " device = coalesce(device, $8::text), source = coalesce(source, $9::text),"
    " language = coalesce(language, $10::text), metadata = coalesce(metadata, $11::jsonb),"
    " geo_country = CASE WHEN customer_ip_address IS NULL THEN $12::text ELSE geo_country END,"
    " is_used = CASE WHEN $13::smallint = 1 THEN 1 ELSE is_used END, updated_at = $14"
    " WHERE agent_id = $1 AND id = $2 AND ("
    " (name IS NULL AND $3::text IS NOT NULL) OR (customer_id IS NULL AND $5::text IS NOT NULL)"
    " OR (customer_ip_address IS NULL AND $7::text IS NOT NULL)"
    " OR (device IS NULL AND $8::text IS NOT NULL) OR (source IS NULL AND $9::text IS NOT NULL)"
    " OR (language IS NULL AND $10::text IS NOT NULL)"
    " OR (metadata IS NULL AND $11::jsonb IS NOT NULL) OR (is_used = 0 AND $13::smallint = 1))"
)
_FORGET_OPENING = sql(
    "UPDATE conversations SET name = NULL, name_folded = NULL, customer_id = NULL,"
    " customer_id_folded = NULL, customer_ip_address = NULL, device = NULL, source = NULL,"
    " language = NULL, metadata = NULL, geo_country = NULL, updated_at = $3"
    " WHERE agent_id = $1 AND id = $2 AND n_messages = 0 AND n_feedbacks = 0"
    " AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.agent_id = $1 AND m.conversation_id = $2)"
)
_COUNT = sql(
    "INSERT INTO conversation_counts (agent_id, shard, n_live, n_deleted) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (agent_id, shard) DO UPDATE SET"
    " n_live = conversation_counts.n_live + excluded.n_live,"
    " n_deleted = conversation_counts.n_deleted + excluded.n_deleted"
)
_TOUCH = sql(
    "UPDATE conversations SET n_messages = n_messages + $3,"
    " started_at = CASE WHEN $4::bigint < started_at THEN $4::bigint ELSE started_at END,"
    " ended_at = CASE WHEN ended_at IS NULL OR $5::bigint > ended_at THEN $5::bigint"
    " ELSE ended_at END,"
    " is_used = 1, updated_at = $6 WHERE agent_id = $1 AND id = $2"
)
_RENAME = sql(
    "UPDATE conversations SET name = $3, name_folded = $4, updated_at = $5"
    " WHERE agent_id = $1 AND id = $2"
)
_MARK = sql(
    "UPDATE conversations SET is_marked = $3, updated_at = $4 WHERE agent_id = $1 AND id = $2"
)
_DELETE = sql(
    "UPDATE conversations SET deleted_at = $3, updated_at = $3"
    " WHERE agent_id = $1 AND id = $2 AND deleted_at IS NULL"
)
_COUNT_FEEDBACK = sql(
    "UPDATE conversations SET n_feedbacks = n_feedbacks + $3, updated_at = $4"
    " WHERE agent_id = $1 AND id = $2"
)
# What a manager may set one by one; the names come from this table, never from a request.
_SET_BY_FIELD = {
    field: sql(
        f"UPDATE conversations SET {columns}, updated_at = $3"  # constants of this file
        " WHERE agent_id = $1 AND id = $2"
    )
    for field, columns in {
        "customer_id": "customer_id = $4::text, customer_id_folded = $5::text",
        "device": "device = $4::text",
        "language": "language = $4::text",
        "metadata": "metadata = $4::jsonb",
    }.items()
}
_N_SHARDS = 16


def _head(row: tuple[Any, ...] | None) -> Head | None:
    return None if row is None else Head(ConversationPk(row[0]), *row[1:])


async def find(tx: Tx, access: Access, pk: ConversationPk) -> Head | None:
    """Find a conversation by its row id, deleted ones too."""
    return _head(await tx.row(_FIND, access.agent_id, pk))


async def find_by_conversation_id(tx: Tx, access: Access, conversation_id: str) -> Head | None:
    """Find a conversation by its caller's id, deleted ones too."""
    return _head(await tx.row(_FIND_BY_ID, access.agent_id, conversation_id))


async def find_by_uid(tx: Tx, access: Access, uid: str) -> Head | None:
    """Find a conversation by its uid, deleted ones too."""
    return _head(await tx.row(_FIND_BY_UID, access.agent_id, uid))


async def find_by_message(tx: Tx, access: Access, message_id: MessageId) -> Head | None:
    """Find the conversation that a message belongs to."""
    return _head(await tx.row(_FIND_BY_MESSAGE, access.agent_id, message_id))


async def insert(
    tx: Tx,
    access: Access,
    new: NewConversation,
    *,
    uid: str,
    environment_id: EnvironmentId,
    now_us: int,
) -> Head | None:
    """Make a conversation; None when another writer was first with the same conversation_id."""
    pk = await tx.value(
        _INSERT,
        access.agent_id,
        uid,
        new.conversation_id,
        environment_id,
        new.name,
        fold_text(new.name),
        new.customer_id,
        fold_text(new.customer_id),
        new.customer_ip_address,
        new.device,
        new.source,
        new.language,
        new.metadata,
        new.country,
        int(new.is_used),
        new.started_at,
        now_us,
    )
    if pk is None:
        return None
    await shift_counts(tx, access, pk, live=1, deleted=0)
    return Head(ConversationPk(pk), uid, new.conversation_id, new.customer_id)


async def fill(
    tx: Tx, access: Access, pk: ConversationPk, new: NewConversation, *, now_us: int
) -> None:
    """Set what is still empty; what is there stays. `is_used` only rises."""
    await tx.execute(
        _FILL,
        access.agent_id,
        pk,
        new.name,
        fold_text(new.name),
        new.customer_id,
        fold_text(new.customer_id),
        new.customer_ip_address,
        new.device,
        new.source,
        new.language,
        new.metadata,
        new.country,
        int(new.is_used),
        now_us,
    )


async def forget_opening(tx: Tx, access: Access, pk: ConversationPk, *, now_us: int) -> None:
    """Empty all that `fill` fills, where nothing has happened in the conversation yet."""
    await tx.execute(_FORGET_OPENING, access.agent_id, pk, now_us)


async def touch(
    tx: Tx,
    access: Access,
    pk: ConversationPk,
    *,
    n_messages: int,
    first_at: int,
    last_at: int,
    now_us: int,
) -> None:
    """Count new messages and widen the conversation's times to hold them; it is used now."""
    await tx.execute(_TOUCH, access.agent_id, pk, n_messages, first_at, last_at, now_us)


async def rename(
    tx: Tx, access: Access, pk: ConversationPk, name: str | None, *, now_us: int
) -> bool:
    """Set the name; False when the conversation is not there."""
    done = await tx.execute(_RENAME, access.agent_id, pk, name, fold_text(name), now_us)
    return done == 1


async def mark(tx: Tx, access: Access, pk: ConversationPk, *, is_marked: bool, now_us: int) -> bool:
    """Set or clear the mark; False when the conversation is not there."""
    return await tx.execute(_MARK, access.agent_id, pk, int(is_marked), now_us) == 1


async def set_field(
    tx: Tx, access: Access, pk: ConversationPk, field: str, value: str | None, *, now_us: int
) -> bool:
    """Set customer_id, device, language or metadata (JSON text), also to None."""
    args = [value, fold_text(value)] if field == "customer_id" else [value]
    return await tx.execute(_SET_BY_FIELD[field], access.agent_id, pk, now_us, *args) == 1


async def delete(tx: Tx, access: Access, pk: ConversationPk, *, now_us: int) -> bool:
    """Hide a conversation; False when it is hidden already or not there."""
    if await tx.execute(_DELETE, access.agent_id, pk, now_us) != 1:
        return False
    await shift_counts(tx, access, pk, live=-1, deleted=1)
    return True


async def count_feedback(tx: Tx, access: Access, pk: ConversationPk, *, now_us: int) -> None:
    """Count one feedback more."""
    await tx.execute(_COUNT_FEEDBACK, access.agent_id, pk, 1, now_us)


async def shift_counts(tx: Tx, access: Access, pk: int, *, live: int, deleted: int) -> None:
    """Add to the agent's counts of live and deleted conversations."""
    await tx.execute(_COUNT, access.agent_id, pk % _N_SHARDS, live, deleted)
