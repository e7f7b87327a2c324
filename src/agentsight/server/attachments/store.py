"""Questions about attachments and blobs as rows.

Bytes are durable before a row names them, and a blob that is on its way out is never taken up
again: `find_blob` asks for stored ones only, and holds the row until the unit ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentsight.server.access import Access
from agentsight.server.attachments.facts import encode_facts, first_facts
from agentsight.server.attachments.model import (
    AttachmentRow,
    ConversationFiles,
    FileGroup,
    ReceivedFile,
    ServedRow,
)
from agentsight.server.attachments.store_jobs import add_job
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AttachmentId, BlobId, ConversationPk, MessageId

_FIND_BLOB = sql(
    "SELECT id FROM blobs WHERE agent_id = $1 AND sha256 = $2 AND state = 'stored' FOR SHARE"
)
_FIND_OBJECT = sql(
    "SELECT object_key, size_bytes FROM blobs"
    " WHERE agent_id = $1 AND sha256 = $2 AND state = 'stored'"
)
_REPLACE_OBJECT = sql(
    "UPDATE blobs SET object_key = $4, updated_at = $5"
    " WHERE agent_id = $1 AND id = $2 AND object_key = $3 AND state = 'stored'"
)
_INSERT_BLOB = sql(
    "INSERT INTO blobs (agent_id, uid, object_key, sha256, size_bytes, state, detected_mime_type,"
    " facts, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 'stored', $6, $7, $8, $8)"
    " ON CONFLICT (agent_id, sha256) WHERE state = 'stored' DO NOTHING RETURNING id"
)
# What is copied of the message never changes; the blob's facts do, and `put_facts` changes their
# copies with them: reading a file's row needs no join.
_INSERT = sql(
    "INSERT INTO attachments (agent_id, conversation_id, message_id, blob_id, uid, item_key, type,"
    " filename, declared_mime_type, mime_type, sender, sent_at, size_bytes, sha256, metadata,"
    " facts, created_at, updated_at, filename_folded)"
    " SELECT m.agent_id, $2::bigint, m.id, $4::bigint, $5::text, $6::text, $7::text, $8::text,"
    " $9::text, $10::text, m.sender, m.timestamp, $11::bigint, $12::text, $13::jsonb, b.facts,"
    " $14::bigint, $14::bigint, $15::text FROM messages m JOIN blobs b ON b.agent_id = m.agent_id"
    " AND b.id = $4 WHERE m.agent_id = $1 AND m.id = $3"
    " ON CONFLICT (agent_id, item_key) WHERE item_key IS NOT NULL DO NOTHING RETURNING id"
)
_BY_KEYS = sql(
    "SELECT id, message_id, created_at FROM attachments"
    " WHERE agent_id = $1 AND item_key = ANY($2::text[]) ORDER BY id"
)
_FORGET_KEYS = sql(
    "UPDATE attachments SET item_key = NULL WHERE agent_id = $1 AND item_key = ANY($2::text[])"
)
COLUMNS = (
    "a.id, a.uid, a.message_id, a.type, a.filename, a.mime_type, a.size_bytes, a.sha256, a.facts"
)
_FROM = " FROM attachments a"
_BY_MESSAGE = sql(
    f"SELECT {COLUMNS}{_FROM}"  # constants of this file
    " WHERE a.agent_id = $1 AND a.message_id = $2 AND a.deleted_at IS NULL ORDER BY a.id"
)
_BY_IDS = sql(
    f"SELECT {COLUMNS}{_FROM}"  # constants of this file
    " WHERE a.agent_id = $1 AND a.id = ANY($2::bigint[]) AND a.deleted_at IS NULL ORDER BY a.id"
)
_BY_CONVERSATIONS = sql(
    f"SELECT {COLUMNS}{_FROM}"  # constants of this file
    " WHERE a.agent_id = $1 AND a.conversation_id = ANY($2::bigint[]) AND a.deleted_at IS NULL"
    " ORDER BY a.conversation_id, a.sent_at, a.message_id, a.id"
)
# The one call: in the order of the index that holds all of it (SQLite).
_OF_CONVERSATION = sql(
    f"SELECT c.conversation_id, a.sender, a.sent_at, {COLUMNS}"
    " FROM conversations c JOIN attachments a"
    " ON a.agent_id = c.agent_id AND a.conversation_id = c.id AND a.deleted_at IS NULL"
    " WHERE c.agent_id = $1 AND c.id = $2 AND c.erased_by IS NULL"
    " ORDER BY a.sent_at, a.message_id, a.id"
)
_CONVERSATION_ID = sql(
    "SELECT conversation_id FROM conversations WHERE agent_id = $1 AND id = $2"
    " AND erased_by IS NULL"
)
# A link names no agent: its signature is checked against the one that this row names.
# Previews (`previews/store.py`) ask for the same, and for more beside it.
SERVED_COLUMNS = (
    "a.agent_id, a.uid, a.filename, a.mime_type, a.declared_mime_type,"
    " b.detected_mime_type, b.size_bytes, b.sha256, b.object_key, a.created_at,"
    # An erasure takes a conversation first, and its files step by step.
    " CASE WHEN a.deleted_at IS NOT NULL OR b.state <> 'stored' OR EXISTS (SELECT 1"
    " FROM conversations c WHERE c.agent_id = a.agent_id AND c.id = a.conversation_id"
    " AND c.erased_by IS NOT NULL) THEN 1 ELSE 0 END, b.id, b.scan,"
    " CASE WHEN EXISTS (SELECT 1 FROM quarantined_hashes q WHERE q.sha256 = b.sha256)"
    " THEN 1 ELSE 0 END"
)
SERVED_FROM = " FROM attachments a JOIN blobs b ON b.agent_id = a.agent_id AND b.id = a.blob_id"
_SERVED = sql(f"SELECT {SERVED_COLUMNS}{SERVED_FROM} WHERE a.uid = $1")
_OWNED = sql(f"SELECT {SERVED_COLUMNS}{SERVED_FROM} WHERE a.uid = $1 AND a.agent_id = $2")


async def find_blob(tx: Tx, access: Access, sha256: str) -> BlobId | None:
    """Find the agent's stored blob of these bytes, and keep it from going until the unit ends."""
    return await tx.value(_FIND_BLOB, access.agent_id, sha256)


async def find_object(tx: Tx, access: Access, sha256: str) -> tuple[str, int] | None:
    """Return key and size of the object that holds these bytes, as the agent's blob row says."""
    row = await tx.row(_FIND_OBJECT, access.agent_id, sha256)
    return None if row is None else (row[0], row[1])


async def replace_object(
    tx: Tx,
    access: Access,
    blob_id: BlobId,
    received: ReceivedFile,
    *,
    lost_key: str,
    now_us: int,
) -> bool:
    """Let a blob name a new object of the same bytes; False when somebody else was first."""
    done = await tx.execute(
        _REPLACE_OBJECT, access.agent_id, blob_id, lost_key, received.object_key, now_us
    )
    return done == 1


async def insert_blob(
    tx: Tx, access: Access, received: ReceivedFile, *, now_us: int
) -> BlobId | None:
    """Insert a blob, to be examined; None when another writer has just stored the same bytes."""
    made = await tx.value(
        _INSERT_BLOB,
        access.agent_id,
        received.blob_uid,
        received.object_key,
        received.sha256,
        received.size_bytes,
        received.detected_mime_type,
        encode_facts(first_facts(received.detected_mime_type)),
        now_us,
    )
    if made is not None:
        await add_job(tx, access.agent_id, made, "examine", now_us=now_us)
    return made


async def insert(
    tx: Tx,
    access: Access,
    received: ReceivedFile,
    *,
    conversation_pk: ConversationPk,
    message_id: MessageId,
    blob_id: BlobId,
    uid: str,
    type_name: str,
    mime_type: str,
    now_us: int,
) -> AttachmentId | None:
    """Insert a reference to a blob; None when its item key is taken."""
    return await tx.value(
        _INSERT,
        access.agent_id,
        conversation_pk,
        message_id,
        blob_id,
        uid,
        received.item_key,
        type_name,
        received.filename,
        received.declared_mime_type,
        mime_type,
        received.size_bytes,
        received.sha256,
        received.metadata,
        now_us,
        received.filename.casefold(),
    )


async def find_by_item_keys(
    tx: Tx, access: Access, item_keys: Sequence[str]
) -> list[tuple[AttachmentId, MessageId, int]]:
    """Find attachments by their items' keys: id, message, created_at."""
    rows = await tx.rows(_BY_KEYS, access.agent_id, list(item_keys))
    return [(AttachmentId(a), MessageId(m), at) for a, m, at in rows]


async def forget_item_keys(tx: Tx, access: Access, item_keys: Sequence[str]) -> None:
    """Give up keys whose time is over."""
    await tx.execute(_FORGET_KEYS, access.agent_id, list(item_keys))


async def of_message(tx: Tx, access: Access, message_id: MessageId) -> list[AttachmentRow]:
    """Read one message's files in the order they were sent."""
    return [AttachmentRow(*row) for row in await tx.rows(_BY_MESSAGE, access.agent_id, message_id)]


async def by_ids(tx: Tx, access: Access, ids: Sequence[AttachmentId]) -> list[AttachmentRow]:
    """Read attachments by their ids."""
    return [AttachmentRow(*row) for row in await tx.rows(_BY_IDS, access.agent_id, list(ids))]


async def of_conversations(
    tx: Tx, access: Access, pks: Sequence[ConversationPk]
) -> dict[int, list[AttachmentRow]]:
    """Read the files of conversations, by message."""
    by_message: dict[int, list[AttachmentRow]] = {}
    for row in await tx.rows(_BY_CONVERSATIONS, access.agent_id, list(pks)):
        by_message.setdefault(row[2], []).append(AttachmentRow(*row))
    return by_message


async def of_conversation(tx: Tx, access: Access, pk: ConversationPk) -> ConversationFiles | None:
    """Read all files of a conversation, grouped by message; None when it is not there."""
    rows = await tx.rows(_OF_CONVERSATION, access.agent_id, pk)
    if not rows:
        conversation_id = await tx.value(_CONVERSATION_ID, access.agent_id, pk)
        return None if conversation_id is None else ConversationFiles(pk, conversation_id, [])
    groups: list[FileGroup] = []
    files: list[AttachmentRow] = []
    current = -1
    for row in rows:
        if row[5] != current:
            current = row[5]
            files = []
            groups.append(FileGroup(MessageId(current), row[1], row[2], files))
        files.append(AttachmentRow(*row[3:]))
    return ConversationFiles(pk, rows[0][0], groups)


async def served_by_uid(tx: Tx, uid: str) -> ServedRow | None:
    """Read what a link's uid names. No access: the link's signature is what grants it."""
    row = await tx.row(_SERVED, uid)
    return None if row is None else served_row(row)


async def owned_by_uid(tx: Tx, access: Access, uid: str) -> ServedRow | None:
    """Read what is served of one of the caller's attachments."""
    row = await tx.row(_OWNED, uid, access.agent_id)
    return None if row is None else served_row(row)


def served_row(row: Sequence[Any]) -> ServedRow:
    """Make a row of what `SERVED_COLUMNS` asked for."""
    *values, is_deleted, blob_id, scan, is_quarantined = row
    return ServedRow(
        *values,
        is_deleted=bool(is_deleted),
        blob_id=BlobId(blob_id),
        scan=scan,
        is_quarantined=bool(is_quarantined),
    )
