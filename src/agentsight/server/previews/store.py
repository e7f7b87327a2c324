"""Questions about what was made of blobs. A link's signature or the caller's agent gives access."""

from __future__ import annotations

from typing import Any

from agentsight.server.access import Access
from agentsight.server.attachments.facts import decode_facts, first_facts
from agentsight.server.attachments.store import SERVED_COLUMNS, SERVED_FROM, served_row
from agentsight.server.attachments.store_texts import drop_text
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, BlobId
from agentsight.server.previews.model import Derived, ExaminedRow, Found, Source, TextState

_N_OWN = 8
_FOUND = (
    "SELECT b.facts, b.text_state, d.state, d.object_key, d.mime_type, d.sha256, d.size_bytes,"
    f" d.created_at, {SERVED_COLUMNS}{SERVED_FROM} LEFT JOIN derivatives d"
    " ON d.agent_id = b.agent_id AND d.blob_id = b.id AND d.kind = $2 WHERE a.uid = $1"
)
_BY_UID = sql(_FOUND)
_OWNED = sql(f"{_FOUND} AND a.agent_id = $3")
_LOCK_BLOB = sql(
    "SELECT 1 FROM blobs WHERE agent_id = $1 AND id = $2 AND state = 'stored' FOR SHARE"
)
_INSERT = sql(
    "INSERT INTO derivatives (agent_id, blob_id, kind, state, object_key, mime_type, sha256,"
    " size_bytes, width, height, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)"
    " ON CONFLICT (agent_id, blob_id, kind) DO NOTHING"
)
_DROP = sql(
    "DELETE FROM derivatives WHERE agent_id = $1 AND blob_id = $2 AND kind = $3 AND object_key = $4"
)
_IS_NONE = sql(
    "SELECT 1 FROM derivatives WHERE agent_id = $1 AND blob_id = $2 AND kind = $3"
    " AND state = 'none'"
)
_KEYS = sql(
    "SELECT object_key FROM derivatives WHERE agent_id = $1 AND blob_id = $2"
    " AND object_key IS NOT NULL ORDER BY kind"
)
_FORGET = sql("DELETE FROM derivatives WHERE agent_id = $1 AND blob_id = $2")
_SOURCE = sql(
    "SELECT b.object_key, b.size_bytes, b.detected_mime_type, coalesce((SELECT a.filename"
    " FROM attachments a WHERE a.agent_id = b.agent_id AND a.blob_id = b.id ORDER BY a.id LIMIT 1),"
    " 'file') FROM blobs b WHERE b.agent_id = $1 AND b.id = $2 AND b.state = 'stored'"
)
# What the operator sees: agents of the organisation, or of what the access is narrowed to.
_EXAMINED = sql(
    "SELECT b.agent_id, b.id, b.size_bytes, b.detected_mime_type, b.facts, b.text_state,"
    " CASE WHEN EXISTS (SELECT 1 FROM derivatives d WHERE d.agent_id = b.agent_id"
    " AND d.blob_id = b.id AND d.state = 'none') THEN 1 ELSE 0 END"
    " FROM blobs b JOIN agents g ON g.id = b.agent_id WHERE g.organisation_id = $1"
    " AND ($2::bigint = 0 OR g.client_id = $2) AND ($3::bigint = 0 OR g.id = $3)"
    " AND b.state = 'stored' AND (b.agent_id, b.id) > ($4::bigint, $5::bigint)"
    " ORDER BY b.agent_id, b.id LIMIT $6::bigint"
)
_FORGET_NONE = sql(
    "DELETE FROM derivatives WHERE agent_id = $1 AND blob_id = $2 AND state = 'none'"
)
_PUT_TEXT_STATE = sql("UPDATE blobs SET text_state = $3 WHERE agent_id = $1 AND id = $2")


async def found_by_uid(tx: Tx, uid: str, kind: str) -> Found | None:
    """Read what a link's uid names. No access: the link's signature is what grants it."""
    row = await tx.row(_BY_UID, uid, kind)
    return None if row is None else _found(row)


async def owned_by_uid(tx: Tx, access: Access, uid: str, kind: str) -> Found | None:
    """Read one of the caller's files, and what was made of it."""
    row = await tx.row(_OWNED, uid, kind, access.agent_id)
    return None if row is None else _found(row)


def _found(row: tuple[Any, ...]) -> Found:
    facts, text_state, state, *derived = row[:_N_OWN]
    served = served_row(row[_N_OWN:])
    # Nothing is kept of what came before facts were: its type promises what it can.
    known = first_facts(served.detected_mime_type) if facts is None else decode_facts(facts)
    return Found(served, known, text_state, None if state is None else Derived(*derived))


async def insert_derived(
    tx: Tx,
    agent_id: AgentId,
    blob_id: BlobId,
    kind: str,
    derived: Derived,
    *,
    width: int | None,
    height: int | None,
    now_us: int,
) -> bool:
    """Keep what was made, or that it cannot be (no key).

    False when another was first, or the blob is on its way out: what was made is then nobody's.
    """
    if await tx.value(_LOCK_BLOB, agent_id, blob_id) is None:
        return False
    is_stored = derived.object_key is not None
    n_rows = await tx.execute(
        _INSERT,
        agent_id,
        blob_id,
        kind,
        "stored" if is_stored else "none",
        derived.object_key,
        derived.mime_type if is_stored else None,
        derived.sha256 if is_stored else None,
        derived.size_bytes if is_stored else None,
        width,
        height,
        now_us,
    )
    return n_rows == 1


async def drop_derived(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, kind: str, object_key: str
) -> None:
    """Forget what was made, where its object is gone: it is made again."""
    await tx.execute(_DROP, agent_id, blob_id, kind, object_key)


async def is_known_as_none(tx: Tx, agent_id: AgentId, blob_id: BlobId, kind: str) -> bool:
    """Say whether it was tried, and cannot be made."""
    return await tx.value(_IS_NONE, agent_id, blob_id, kind) is not None


async def forget_blob(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> list[str]:
    """Remove all that was made of a blob: copies, text, index row.

    Returns:
        The keys of the objects that no row names any more; they are removed after the unit.
    """
    keys = [key for (key,) in await tx.rows(_KEYS, agent_id, blob_id)]
    await tx.execute(_FORGET, agent_id, blob_id)
    await drop_text(tx, agent_id, blob_id)
    return keys


async def read_source(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> Source | None:
    """Read what examining a blob needs; None when it is on its way out."""
    row = await tx.row(_SOURCE, agent_id, blob_id)
    return None if row is None else Source(*row)


async def put_text_state(tx: Tx, agent_id: AgentId, blob_id: BlobId, state: TextState) -> None:
    """Say what became of looking for a blob's text."""
    await tx.execute(_PUT_TEXT_STATE, agent_id, blob_id, state)


async def examined_after(
    tx: Tx, access: Access, after: tuple[int, int], limit: int
) -> list[ExaminedRow]:
    """Read what examining stored blobs has given, in order of (agent, id)."""
    scope = (access.organisation_id, access.client_id or 0, access.agent_id)
    rows = await tx.rows(_EXAMINED, *scope, *after, limit)
    return [
        ExaminedRow(agent_id, blob_id, size_bytes, mime_type, decode_facts(facts), state, bool(n))
        for agent_id, blob_id, size_bytes, mime_type, facts, state, n in rows
    ]


async def forget_none(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> None:
    """Forget that things could not be made of a blob: they are tried again when asked for."""
    await tx.execute(_FORGET_NONE, agent_id, blob_id)
