"""Questions about uploads as rows.

Whoever writes an upload's bytes holds its lease: every change on the way names it, so that a writer
that was too slow changes nothing after another has taken over.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from agentsight.server.access import Access
from agentsight.server.db import Sql, Tx, sql
from agentsight.server.ids import BlobId
from agentsight.server.uploads.model import Announced, Upload

UPLOAD_COLUMNS = (
    "agent_id, uid, blob_id, blob_uid, object_key, filename, declared_mime_type,"
    " detected_mime_type, size_bytes, sha256, offset_bytes, parts, state, leased_until,"
    " created_at, expires_at"
)
_COLUMNS = UPLOAD_COLUMNS
_INSERT = sql(
    "INSERT INTO uploads (agent_id, uid, blob_id, blob_uid, object_key, filename,"
    " declared_mime_type, size_bytes, sha256, offset_bytes, state, created_at, updated_at,"
    " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13)"
    f" RETURNING {_COLUMNS}"
)
_FIND = sql(f"SELECT {_COLUMNS} FROM uploads WHERE agent_id = $1 AND uid = $2")
_FREE = "(lease IS NULL OR leased_until <= $4)"
_TAKE = sql(
    "UPDATE uploads SET lease = $3, leased_until = $5, wanted_at = NULL, offered_until = NULL,"
    " updated_at = $4"
    " WHERE agent_id = $1 AND uid = $2 AND state = 'pending' AND expires_at > $4"
    f" AND {_FREE} RETURNING {_COLUMNS}"
)
_RENEW = sql(
    "UPDATE uploads SET leased_until = $4 WHERE agent_id = $1 AND uid = $2 AND lease = $3"
    " AND state = 'pending' RETURNING wanted_at"
)
_LOOK = sql(
    "SELECT wanted_at FROM uploads WHERE agent_id = $1 AND uid = $2 AND lease = $3"
    " AND state = 'pending'"
)
_WANT = sql(
    "UPDATE uploads SET wanted_at = $3 WHERE agent_id = $1 AND uid = $2 AND lease IS NOT NULL"
)
_ADVANCE = sql(
    "UPDATE uploads SET offset_bytes = $4, parts = $5, leased_until = $6, expires_at = $7,"
    " updated_at = $8 WHERE agent_id = $1 AND uid = $2 AND lease = $3 AND state = 'pending'"
    " RETURNING wanted_at"
)
_RELEASE = sql(
    "UPDATE uploads SET lease = NULL, leased_until = NULL, wanted_at = NULL"
    " WHERE agent_id = $1 AND uid = $2 AND lease = $3"
)
_FINISH = sql(
    "UPDATE uploads SET state = 'stored', blob_id = $4, sha256 = $5, detected_mime_type = $6,"
    " offset_bytes = size_bytes, parts = '', lease = NULL, leased_until = NULL, expires_at = $7,"
    " updated_at = $8 WHERE agent_id = $1 AND uid = $2 AND lease = $3 AND state = 'pending'"
    f" RETURNING {_COLUMNS}"
)
# An upload that is over says so for a while, and nothing else any more: a name, a hash and a type
# that serve nobody are only something to be forgotten.
ENDED = (
    "state = 'expired', blob_id = NULL, filename = '', declared_mime_type = NULL,"
    " detected_mime_type = NULL, sha256 = NULL, parts = '', lease = NULL, leased_until = NULL"
)
_END = sql(
    f"UPDATE uploads SET {ENDED}, expires_at = $4, updated_at = $4"
    " WHERE agent_id = $1 AND uid = $2 AND lease = $3"
)
_UNPIN = sql(
    f"UPDATE uploads SET {ENDED}, expires_at = $3, updated_at = $3"
    " WHERE agent_id = $1 AND uid = $2 AND state = 'stored'"
)
# Unfinished uploads of one file. Of those that nobody sends, the one that has come farthest.
# The plus keeps SQLite from `uploads_by_expiry`, which it takes for narrower: all agents' uploads.
_SAME = (
    " FROM uploads WHERE agent_id = $1 AND sha256 = $2 AND size_bytes = $3 AND filename = $4"
    " AND coalesce(declared_mime_type, '') = $5 AND state = 'pending' AND +expires_at > $6"
)
_FIND_UNFINISHED = sql(
    f"SELECT id{_SAME} AND offset_bytes > 0 AND (lease IS NULL OR leased_until <= $6)"
    " AND (offered_until IS NULL OR offered_until <= $6)"
    " ORDER BY offset_bytes DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED"
)
_IS_BEING_SENT = sql(f"SELECT 1{_SAME} AND leased_until > $6 LIMIT 1")
_OFFER = sql(
    "UPDATE uploads SET offered_until = $3, expires_at = $4 WHERE agent_id = $1 AND id = $2"
    f" RETURNING {_COLUMNS}"
)
_PENDING = sql(
    "SELECT count(*), coalesce(sum(size_bytes), 0)::bigint, coalesce(sum(offset_bytes), 0)::bigint"
    " FROM uploads WHERE agent_id = $1 AND state = 'pending' AND expires_at > $2"
)
_WAITING = sql(
    "SELECT count(*), coalesce(sum(b.size_bytes), 0)::bigint FROM blobs b WHERE b.agent_id = $1"
    " AND b.state = 'stored' AND b.id IN (SELECT u.blob_id FROM uploads u WHERE u.agent_id = $1"
    " AND u.state = 'stored' AND +u.expires_at > $2) AND NOT EXISTS"
    " (SELECT 1 FROM attachments a WHERE a.agent_id = b.agent_id AND a.blob_id = b.id)"
)
_BEGUN = sql(
    "SELECT object_key FROM uploads"
    " WHERE state = 'pending' AND expires_at > $1 AND offset_bytes > 0"
)
# What the chore asks, over all agents. In strides: a tenant may have announced any number of
# uploads in one second, and SQLite's one writer is everybody's.
_IS_DUE = sql(
    "SELECT 1 FROM uploads WHERE state IN ('pending', 'stored') AND expires_at <= $1 LIMIT 1"
)
_IS_OLD = sql("SELECT 1 FROM uploads WHERE state = 'expired' AND expires_at <= $1 LIMIT 1")


def _strided(change: str, which: str) -> Sql:
    """Make a statement that changes at most `$2` of the rows that are so.

    A list of pairs would do on both: SQLite 3.40 takes `(agent_id, id) IN (…)` for a search by the
    row's number as well, and finds one row of many.
    """
    some = f"FROM uploads WHERE {which} LIMIT $2::bigint"
    return sql(
        f"{change} WHERE (agent_id, id) IN (SELECT agent_id, id {some} FOR UPDATE SKIP LOCKED)",
        sqlite=f"{change} WHERE id IN (SELECT id {some})",
    )


_STORED_AND_DUE = "state = 'stored' AND expires_at <= $1"
_EXPIRE_STORED = _strided(
    f"UPDATE uploads SET {ENDED}, expires_at = $1, updated_at = $1", _STORED_AND_DUE
)
_FORGET = _strided("DELETE FROM uploads", "state = 'expired' AND expires_at <= $1")
_PICK_PENDING = sql(
    "SELECT agent_id, uid FROM uploads WHERE state = 'pending' AND expires_at <= $1"
    " AND (lease IS NULL OR leased_until <= $1) ORDER BY expires_at, id LIMIT $2::bigint"
    " FOR UPDATE SKIP LOCKED"
)
_HOLD = sql(
    "UPDATE uploads SET lease = $3, leased_until = $4 WHERE agent_id = $1 AND uid = $2"
    f" RETURNING {_COLUMNS}"
)


class Held(Enum):
    """What a writer hears of its lease."""

    OURS = "ours"
    WANTED = "ours, and somebody waits for it"
    LOST = "not ours any more"


def _held(row: tuple[Any, ...] | None) -> Held:
    if row is None:
        return Held.LOST
    return Held.OURS if row[0] is None else Held.WANTED


def _upload(row: tuple[Any, ...] | None) -> Upload | None:
    return None if row is None else Upload(*row)


async def insert(
    tx: Tx,
    access: Access,
    announced: Announced,
    *,
    uid: str,
    blob_uid: str,
    object_key: str,
    blob_id: BlobId | None,
    now_us: int,
    expires_at: int,
) -> Upload:
    """Make an upload: pending, or stored at once where its bytes are here (`blob_id`)."""
    row = await tx.row(
        _INSERT,
        access.agent_id,
        uid,
        blob_id,
        blob_uid,
        object_key,
        announced.filename,
        announced.declared_mime_type,
        announced.size_bytes,
        announced.sha256,
        0 if blob_id is None else announced.size_bytes,
        "pending" if blob_id is None else "stored",
        now_us,
        expires_at,
    )
    assert row is not None, "an insert returns its row"
    return Upload(*row)


async def offer_unfinished(
    tx: Tx, access: Access, announced: Announced, *, now_us: int, until_us: int, expires_at: int
) -> Upload | None:
    """Find an unfinished upload of the same file that nobody writes, and keep it for the caller.

    Two who ask at once are never given the same one.
    """
    upload_id = await tx.value(_FIND_UNFINISHED, *_same(access, announced, now_us))
    if upload_id is None:
        return None
    return _upload(await tx.row(_OFFER, access.agent_id, upload_id, until_us, expires_at))


async def is_being_sent(tx: Tx, access: Access, announced: Announced, now_us: int) -> bool:
    """Say whether somebody sends the same file right now."""
    return await tx.value(_IS_BEING_SENT, *_same(access, announced, now_us)) is not None


def _same(access: Access, announced: Announced, now_us: int) -> tuple[Any, ...]:
    return (
        access.agent_id,
        announced.sha256,
        announced.size_bytes,
        announced.filename,
        announced.declared_mime_type or "",
        now_us,
    )


async def find(tx: Tx, access: Access, uid: str) -> Upload | None:
    """Find an upload of the caller's agent."""
    return _upload(await tx.row(_FIND, access.agent_id, uid))


async def take_lease(
    tx: Tx, access: Access, uid: str, lease: str, *, now_us: int, until_us: int
) -> Upload | None:
    """Take a pending upload for one writer; None when another has it, or it is not pending."""
    return _upload(await tx.row(_TAKE, access.agent_id, uid, lease, now_us, until_us))


async def renew_lease(tx: Tx, access: Access, uid: str, lease: str, *, until_us: int) -> Held:
    """Hold an upload for longer."""
    return _held(await tx.row(_RENEW, access.agent_id, uid, lease, until_us))


async def look(tx: Tx, access: Access, uid: str, lease: str) -> Held:
    """See whether an upload is ours still, and whether somebody waits for it."""
    return _held(await tx.row(_LOOK, access.agent_id, uid, lease))


async def want(tx: Tx, access: Access, uid: str, now_us: int) -> None:
    """Ask whoever writes an upload to let go of it."""
    await tx.execute(_WANT, access.agent_id, uid, now_us)


async def advance(
    tx: Tx,
    access: Access,
    uid: str,
    lease: str,
    *,
    offset: int,
    parts: str,
    until_us: int,
    expires_at: int,
    now_us: int,
) -> Held:
    """Note how far the bytes have come."""
    return _held(
        await tx.row(
            _ADVANCE, access.agent_id, uid, lease, offset, parts, until_us, expires_at, now_us
        )
    )


async def release_lease(tx: Tx, access: Access, uid: str, lease: str) -> None:
    """Let others write."""
    await tx.execute(_RELEASE, access.agent_id, uid, lease)


async def finish(
    tx: Tx,
    access: Access,
    uid: str,
    lease: str,
    *,
    blob_id: BlobId,
    sha256: str,
    detected_mime_type: str | None,
    expires_at: int,
    now_us: int,
) -> Upload | None:
    """Make a pending upload a stored one; None when it is not ours any more."""
    return _upload(
        await tx.row(
            _FINISH,
            access.agent_id,
            uid,
            lease,
            blob_id,
            sha256,
            detected_mime_type,
            expires_at,
            now_us,
        )
    )


async def end(tx: Tx, access: Access, uid: str, lease: str, *, now_us: int) -> bool:
    """Let an upload that we hold expire; False when it is not ours any more."""
    return await tx.execute(_END, access.agent_id, uid, lease, now_us) == 1


async def unpin(tx: Tx, access: Access, uid: str, *, now_us: int) -> bool:
    """Let a stored upload expire: its blob is kept by its references only."""
    return await tx.execute(_UNPIN, access.agent_id, uid, now_us) == 1


async def count_pending(tx: Tx, access: Access, now_us: int) -> tuple[int, int, int]:
    """Count an agent's unfinished uploads: how many, their announced and their received bytes."""
    row = await tx.row(_PENDING, access.agent_id, now_us)
    return (row[0], row[1], row[2]) if row is not None else (0, 0, 0)


async def count_waiting(tx: Tx, access: Access, now_us: int) -> tuple[int, int]:
    """Count the blobs that uploads keep and no attachment refers to, and their bytes."""
    row = await tx.row(_WAITING, access.agent_id, now_us)
    return (row[0], row[1]) if row is not None else (0, 0)


async def begun_keys(tx: Tx, now_us: int) -> set[str]:
    """Return the keys of all objects of which bytes are here and the rest may still come."""
    return {row[0] for row in await tx.rows(_BEGUN, now_us)}


async def is_expiry_due(tx: Tx, now_us: int, forgotten_us: int) -> bool:
    """Say whether an upload's time has passed, or one is to be forgotten that ended before
    `forgotten_us`; reading, so that an idle server never writes."""
    is_due = await tx.value(_IS_DUE, now_us) is not None
    return is_due or await tx.value(_IS_OLD, forgotten_us) is not None


async def expire_stored(tx: Tx, now_us: int, limit: int) -> int:
    """Let some stored uploads expire whose time has passed; return how many."""
    return await tx.execute(_EXPIRE_STORED, now_us, limit)


async def hold_expired(
    tx: Tx, lease: str, *, limit: int, now_us: int, until_us: int
) -> list[Upload]:
    """Take pending uploads whose time has passed, so that their bytes can be removed."""
    picked = await tx.rows(_PICK_PENDING, now_us, limit)
    rows = [await tx.row(_HOLD, agent_id, uid, lease, until_us) for agent_id, uid in picked]
    return [Upload(*row) for row in rows if row is not None]


async def forget_expired(tx: Tx, before_us: int, limit: int) -> int:
    """Remove some rows of uploads that ended long ago; return how many."""
    return await tx.execute(_FORGET, before_us, limit)
