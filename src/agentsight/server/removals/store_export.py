"""Everything that is kept of a customer, row by row, as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agentsight.server.access import Access
from agentsight.server.db import Sql, Tx, sql
from agentsight.server.ids import ConversationPk

_JSON: Final = frozenset({"metadata", "tools_used", "facts"})
_COLUMNS: Final[dict[str, str]] = {
    "messages": (
        "id, uid, conversation_id, item_key, external_id, kind, sender, author, content, metadata,"
        " timestamp, created_at, updated_at, deleted_at"
    ),
    "actions": (
        "id, message_id, name, started_at, started_at_text, ended_at, ended_at_text, duration_ms,"
        " tools_used, response, error_message, metadata, created_at, updated_at"
    ),
    "buttons": "id, message_id, button_event, label, value, metadata, created_at, updated_at",
    "usages": (
        "id, conversation_id, message_id, item_key, basis, model, prompt_tokens,"
        " completion_tokens, total_tokens, embedding_tokens, timestamp, created_at, updated_at"
    ),
    "feedbacks": (
        "id, conversation_id, message_id, item_key, sentiment, source, comment, metadata,"
        " created_at, updated_at, deleted_at"
    ),
    "attachments": (
        "id, uid, conversation_id, message_id, blob_id, item_key, type, filename,"
        " declared_mime_type, mime_type, sender, sent_at, size_bytes, sha256, metadata, facts,"
        " created_at, updated_at, deleted_at"
    ),
}
"""What each table says of a customer; copies that only serve searches are left out."""
_CONVERSATION_COLUMNS: Final = (
    "id, uid, conversation_id, name, customer_id, customer_ip_address, device, source, language,"
    " metadata, geo_country, geo_city, geo_timezone, is_used, is_marked, n_messages, n_feedbacks,"
    " started_at, ended_at, created_at, updated_at, deleted_at"
)
_UPLOAD_COLUMNS: Final = (
    "id, uid, blob_id, filename, declared_mime_type, detected_mime_type, size_bytes, sha256, state,"
    " created_at, updated_at, expires_at"
)
EXEMPT: Final[dict[str, str]] = {
    "api_keys": "the operator's",
    "audit_log": "uids and counts of who did what, of no customer",
    "blob_jobs": "work that waits for a file, whose row is exported",
    "blobs": "the bytes, which are exported as files; their facts stand in the attachments",
    "conversation_counts": "sums over all customers",
    "derivatives": "made of the files, and made again when asked for",
    "environments": "the operator's; their names stand in the conversations",
    "erasures": "hashes of what is gone",
    "facts_queue": "work that waits for files, whose rows are exported",
    "receipts": "numbers of what is gone",
    "retention_rules": "the operator's",
    "search_queue": "names messages that are exported",
    "storage_counts": "sums over all customers",
    "tombstones": "row ids of what is gone",
}
"""Tables with an agent's rows that say nothing of a customer beside what is exported, and why."""
TABLES: Final = ("conversations", *_COLUMNS, "uploads", "blob_texts")
_CONVERSATIONS = sql(
    f"SELECT {_CONVERSATION_COLUMNS}, (SELECT e.slug FROM environments e WHERE e.agent_id = $1"
    " AND e.id = environment_id) FROM conversations WHERE agent_id = $1 AND customer_id = $2"
    " AND erased_by IS NULL AND id > $3 ORDER BY id LIMIT $4::bigint"
)


def _of(table: str) -> Sql:
    if "conversation_id" in _COLUMNS[table]:
        place = "conversation_id = $2"
    else:
        place = "message_id IN (SELECT m.id FROM messages m WHERE m.agent_id = $1"
        place += " AND m.conversation_id = $2)"
    return sql(
        f"SELECT {_COLUMNS[table]} FROM {table} WHERE agent_id = $1 AND {place}"
        " AND id > $3 ORDER BY id LIMIT $4::bigint"
    )


# Where others have sent the same bytes, only what has the name of this conversation's own file.
_UPLOADS = sql(
    f"SELECT {_UPLOAD_COLUMNS} FROM uploads u WHERE u.agent_id = $1 AND u.id > $3 AND u.blob_id IN"
    " (SELECT a.blob_id FROM attachments a WHERE a.agent_id = $1 AND a.conversation_id = $2"
    " AND (a.filename = u.filename OR NOT EXISTS (SELECT 1 FROM attachments o"
    " WHERE o.agent_id = $1 AND o.blob_id = a.blob_id AND o.conversation_id <> $2)))"
    " ORDER BY u.id LIMIT $4::bigint"
)
_TEXTS = sql(
    "SELECT t.blob_id, t.content, t.is_cut, t.created_at FROM blob_texts t WHERE t.agent_id = $1"
    " AND t.blob_id > $3 AND t.blob_id IN (SELECT a.blob_id FROM attachments a"
    " WHERE a.agent_id = $1 AND a.conversation_id = $2) ORDER BY t.blob_id LIMIT $4::bigint"
)
_ROWS: Final = {
    **{table: _of(table) for table in _COLUMNS},
    "uploads": _UPLOADS,
    "blob_texts": _TEXTS,
}
_NAMES: Final = {
    **{table: columns.split(", ") for table, columns in _COLUMNS.items()},
    "uploads": _UPLOAD_COLUMNS.split(", "),
    "blob_texts": ["blob_id", "content", "is_cut", "created_at"],
}
_FILES = sql(
    "SELECT a.id, a.uid, a.filename, a.size_bytes, a.sha256, b.object_key, b.state"
    " FROM attachments a JOIN blobs b ON b.agent_id = a.agent_id AND b.id = a.blob_id"
    " WHERE a.agent_id = $1 AND a.conversation_id = $2 AND a.id > $3"
    " ORDER BY a.id LIMIT $4::bigint"
)
Exported = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file whose bytes are to be exported."""

    attachment_id: int
    uid: str
    filename: str
    size_bytes: int
    sha256: str
    object_key: str
    state: str


async def conversations(
    tx: Tx, access: Access, customer_id: str, after: int, limit: int
) -> list[Exported]:
    """Read some of a customer's conversations, hidden ones too."""
    rows = await tx.rows(_CONVERSATIONS, access.agent_id, customer_id, after, limit)
    names = [*_CONVERSATION_COLUMNS.split(", "), "environment"]
    return [dict(zip(names, row, strict=True)) for row in rows]


async def rows_of(
    tx: Tx, access: Access, table: str, pk: ConversationPk, after: int, limit: int
) -> list[Exported]:
    """Read some of a conversation's rows of one table, hidden ones too."""
    rows = await tx.rows(_ROWS[table], access.agent_id, pk, after, limit)
    names = _NAMES[table]
    return [dict(zip(names, row, strict=True)) for row in rows]


async def files_of(
    tx: Tx, access: Access, pk: ConversationPk, after: int, limit: int
) -> list[ExportedFile]:
    """Read where some of a conversation's files are, hidden ones too."""
    rows = await tx.rows(_FILES, access.agent_id, pk, after, limit)
    return [ExportedFile(*row) for row in rows]


def is_json(column: str) -> bool:
    """Say whether a column holds JSON as text."""
    return column in _JSON
