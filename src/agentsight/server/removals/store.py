"""Mark conversations for removal, and remove their rows, some at a time.

A marked conversation (`erased_by` names its receipt) is not there any more for anybody who reads;
its own id is free at once, so that what comes later makes a new one. Its messages and feedback go
by its one erasure, whose receipt is locked by whoever carries it on; its attachments may go by
others at the same moment, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.attachments import store_names
from agentsight.server.conversations.store import shift_counts
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, BlobId, ConversationPk
from agentsight.server.messages.store_search import ROWID_SHIFT
from agentsight.server.removals.model import Rows, stand_in_id

_BY_PKS = sql(
    "SELECT id, uid, conversation_id, deleted_at FROM conversations"
    " WHERE agent_id = $1 AND id = ANY($2::bigint[]) AND erased_by IS NULL ORDER BY id FOR UPDATE"
)
_BY_CUSTOMER = sql(
    "SELECT id, uid, conversation_id, deleted_at FROM conversations"
    " WHERE agent_id = $1 AND customer_id = $2 AND created_at <= $3 AND erased_by IS NULL"
    " ORDER BY id LIMIT $4::bigint FOR UPDATE"
)
# The text id is given up in the statement that marks: PostgreSQL then waits for units that refer to
# the row (a change of a key column locks against FOR KEY SHARE), and lets the text be taken anew.
_MARK = sql(
    "UPDATE conversations SET erased_by = $3, conversation_id = $4, deleted_at ="
    " coalesce(deleted_at, $5::bigint), updated_at = $5, name = NULL, name_folded = NULL,"
    " customer_id = NULL, customer_id_folded = NULL, customer_ip_address = NULL, device = NULL,"
    " source = NULL, language = NULL, metadata = NULL, geo_country = NULL, geo_city = NULL,"
    " geo_timezone = NULL, is_marked = 0 WHERE agent_id = $1 AND id = $2"
)
_NEXT_MARKED = sql(
    "SELECT c.agent_id, c.id FROM conversations c WHERE c.erased_by = $1"
    " ORDER BY c.agent_id, c.id LIMIT 1"
)
_ATTACHMENTS = sql(
    "SELECT id, uid, blob_id, size_bytes, item_key FROM attachments"
    " WHERE agent_id = $1 AND conversation_id = $2"
    " ORDER BY sent_at, message_id, id LIMIT $3::bigint"
)
# What the statement itself says it deleted is all that counts: whoever erases a file and its
# conversation at once has two units at the same rows, and each was read before the other's end.
_DELETE_ATTACHMENTS = sql(
    "DELETE FROM attachments WHERE agent_id = $1 AND id = ANY($2::bigint[])"
    " RETURNING id, uid, blob_id, size_bytes, created_at, filename"
)
_BURY_ATTACHMENT = sql(
    "INSERT INTO tombstones (agent_id, kind, row_id, uid, created_at)"
    " VALUES ($1, 'attachment', $2, $3, $4)"
)
_LENGTHS = sql(
    "SELECT id, length(content) FROM messages WHERE agent_id = $1 AND conversation_id = $2"
    " ORDER BY timestamp, id LIMIT $3::bigint"
)
_BURY_MESSAGES = sql(
    "INSERT INTO tombstones (agent_id, kind, row_id, uid, created_at)"
    " SELECT agent_id, 'message', id, uid, $3::bigint FROM messages"
    " WHERE agent_id = $1 AND id = ANY($2::bigint[]) ORDER BY id"
)
_DELETE_QUEUED = sql(
    "DELETE FROM search_queue WHERE agent_id = $1 AND message_id = ANY($2::bigint[])"
    " RETURNING message_id"
)
_INDEXED_TEXTS = sql(
    "SELECT id, content FROM messages WHERE agent_id = $1 AND id = ANY($2::bigint[])"
    " AND kind <> 'usage'"
)
_UNINDEX_POSTGRESQL = sql(
    "DELETE FROM message_search WHERE agent_id = $1 AND message_id = ANY($2::bigint[])",
    sqlite="SELECT $1, $2",
)
# A contentless index finds what it is to forget by the very text that was indexed.
_UNINDEX_SQLITE = sql(
    "SELECT $1, $2",
    sqlite="INSERT INTO message_search (message_search, rowid, content) VALUES ('delete', $1, $2)",
)
_DELETE_ACTIONS = sql("DELETE FROM actions WHERE agent_id = $1 AND message_id = ANY($2::bigint[])")
_DELETE_BUTTONS = sql("DELETE FROM buttons WHERE agent_id = $1 AND message_id = ANY($2::bigint[])")
_DELETE_USAGES = sql("DELETE FROM usages WHERE agent_id = $1 AND message_id = ANY($2::bigint[])")
_DELETE_MESSAGES = sql("DELETE FROM messages WHERE agent_id = $1 AND id = ANY($2::bigint[])")
_FEEDBACKS = sql(
    "SELECT id FROM feedbacks WHERE agent_id = $1 AND conversation_id = $2"
    " ORDER BY id LIMIT $3::bigint"
)
_BURY_FEEDBACKS = sql(
    "INSERT INTO tombstones (agent_id, kind, row_id, created_at)"
    " SELECT agent_id, 'feedback', id, $3::bigint FROM feedbacks"
    " WHERE agent_id = $1 AND id = ANY($2::bigint[]) ORDER BY id"
)
_DELETE_FEEDBACKS = sql("DELETE FROM feedbacks WHERE agent_id = $1 AND id = ANY($2::bigint[])")
_BURY_CONVERSATION = sql(
    "INSERT INTO tombstones (agent_id, kind, row_id, uid, created_at)"
    " SELECT agent_id, 'conversation', id, uid, $3::bigint FROM conversations"
    " WHERE agent_id = $1 AND id = $2"
)
_DELETE_CONVERSATION = sql("DELETE FROM conversations WHERE agent_id = $1 AND id = $2")


@dataclass(frozen=True, slots=True)
class Marked:
    """A conversation that an erasure has just taken: its uid, and its own id as it was."""

    pk: ConversationPk
    uid: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class GoingFile:
    """An attachment that is to be removed."""

    attachment_id: int
    uid: str
    blob_id: BlobId
    size_bytes: int
    item_key: str | None


@dataclass(frozen=True, slots=True)
class GoneFile:
    """An attachment that this unit has removed."""

    attachment_id: int
    uid: str
    blob_id: BlobId
    size_bytes: int
    created_at: int
    filename: str


async def mark_by_pks(
    tx: Tx, access: Access, pks: Sequence[ConversationPk], receipt_uid: str, *, now_us: int
) -> list[Marked]:
    """Take conversations by their row ids; those that another erasure has are left to it."""
    rows = await tx.rows(_BY_PKS, access.agent_id, list(pks))
    return await _mark(tx, access, rows, receipt_uid, now_us)


async def mark_by_customer(
    tx: Tx,
    access: Access,
    customer_id: str,
    receipt_uid: str,
    *,
    made_until_us: int,
    limit: int,
    now_us: int,
) -> list[Marked]:
    """Take some of a customer's conversations that were there when the erasure was asked for."""
    rows = await tx.rows(_BY_CUSTOMER, access.agent_id, customer_id, made_until_us, limit)
    return await _mark(tx, access, rows, receipt_uid, now_us)


async def _mark(
    tx: Tx,
    access: Access,
    rows: Sequence[tuple[ConversationPk, str, str, int | None]],
    receipt_uid: str,
    now_us: int,
) -> list[Marked]:
    for pk, _, _, deleted_at in rows:
        stand_in = stand_in_id(receipt_uid, pk)
        await tx.execute(_MARK, access.agent_id, pk, receipt_uid, stand_in, now_us)
        is_live = deleted_at is None
        await shift_counts(tx, access, pk, live=-is_live, deleted=-(not is_live))
    return [Marked(pk, uid, conversation_id) for pk, uid, conversation_id, _ in rows]


async def next_marked(tx: Tx, receipt_uid: str) -> tuple[AgentId, ConversationPk] | None:
    """Return a conversation that an erasure has still to remove. No access: it is the receipt's."""
    row = await tx.row(_NEXT_MARKED, receipt_uid)
    return None if row is None else (AgentId(row[0]), ConversationPk(row[1]))


async def some_attachments(
    tx: Tx, access: Access, pk: ConversationPk, limit: int
) -> list[GoingFile]:
    """Read some of a conversation's attachments, hidden ones too."""
    return [GoingFile(*row) for row in await tx.rows(_ATTACHMENTS, access.agent_id, pk, limit)]


async def remove_attachments(
    tx: Tx, access: Access, ids: Sequence[int], *, now_us: int
) -> list[GoneFile]:
    """Remove attachments; return those that were there, and that nobody else removed meanwhile.

    Their blobs are for `store_blobs.release` to judge, afterwards.
    """
    await store_names.unindex(tx, access, ids)
    rows = await tx.rows(_DELETE_ATTACHMENTS, access.agent_id, list(ids))
    gone = sorted((GoneFile(*row) for row in rows), key=lambda file: file.attachment_id)
    await tx.execute_many(
        _BURY_ATTACHMENT,
        [(access.agent_id, file.attachment_id, file.uid, now_us) for file in gone],
    )
    return gone


async def some_messages(
    tx: Tx, access: Access, pk: ConversationPk, *, limit: int, max_chars: int
) -> tuple[list[int], int]:
    """Choose some of a conversation's messages, and say how many characters they have.

    One is chosen whatever it has; more, only as far as `max_chars` goes.
    """
    ids: list[int] = []
    n_chars = 0
    for message_id, length in await tx.rows(_LENGTHS, access.agent_id, pk, limit):
        if ids and n_chars + length > max_chars:
            break
        n_chars += length
        ids.append(message_id)
    return ids, n_chars


async def remove_messages(
    tx: Tx, access: Access, ids: list[int], *, is_sqlite: bool, now_us: int
) -> Rows:
    """Remove messages with their details, their counters, and their part of the search index."""
    agent_id = access.agent_id
    await tx.execute(_BURY_MESSAGES, agent_id, ids, now_us)
    # The queue first: whoever is indexing holds its rows, and is waited for here.
    queued = {row[0] for row in await tx.rows(_DELETE_QUEUED, agent_id, ids)}
    if is_sqlite:
        indexed = [message_id for message_id in ids if message_id not in queued]
        texts = await tx.rows(_INDEXED_TEXTS, agent_id, indexed) if indexed else []
        for message_id, content in texts:
            place = (agent_id << ROWID_SHIFT) | message_id
            await tx.execute(_UNINDEX_SQLITE, place, content.casefold())
        n_indexed = len(texts)
    else:
        n_indexed = await tx.execute(_UNINDEX_POSTGRESQL, agent_id, ids)
    return Rows(
        search_queue=len(queued),
        message_search=n_indexed,
        actions=await tx.execute(_DELETE_ACTIONS, agent_id, ids),
        buttons=await tx.execute(_DELETE_BUTTONS, agent_id, ids),
        usages=await tx.execute(_DELETE_USAGES, agent_id, ids),
        messages=await tx.execute(_DELETE_MESSAGES, agent_id, ids),
    )


async def remove_feedbacks(
    tx: Tx, access: Access, pk: ConversationPk, *, limit: int, now_us: int
) -> int:
    """Remove some of a conversation's feedback; returns how many."""
    ids = [row[0] for row in await tx.rows(_FEEDBACKS, access.agent_id, pk, limit)]
    if not ids:
        return 0
    await tx.execute(_BURY_FEEDBACKS, access.agent_id, ids, now_us)
    return await tx.execute(_DELETE_FEEDBACKS, access.agent_id, ids)


async def remove_conversation(tx: Tx, access: Access, pk: ConversationPk, *, now_us: int) -> int:
    """Remove a conversation's own row, the last of it; returns how many that were."""
    await tx.execute(_BURY_CONVERSATION, access.agent_id, pk, now_us)
    return await tx.execute(_DELETE_CONVERSATION, access.agent_id, pk)
