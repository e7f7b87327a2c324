"""The upload that a message's file refers to, as the unit that writes the message finds it.

Uploads themselves are the room above (`uploads/`), which makes these rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import BlobId

_FIND = sql(
    "SELECT state, expires_at, filename, declared_mime_type, blob_uid, object_key, blob_id"
    " FROM uploads WHERE agent_id = $1 AND uid = $2"
)
# Held until the unit ends: whoever removes blobs locks their row first.
_HOLD_BLOB = sql(
    "SELECT sha256, size_bytes, detected_mime_type FROM blobs"
    " WHERE agent_id = $1 AND id = $2 AND state = 'stored' FOR SHARE"
)


@dataclass(frozen=True, slots=True)
class FoundUpload:
    """What a row of an upload says to whoever refers to it."""

    state: str
    expires_at: int
    filename: str
    declared_mime_type: str | None
    blob_uid: str
    object_key: str
    blob_id: BlobId | None


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A stored blob that stays so until the unit ends."""

    sha256: str
    size_bytes: int
    detected_mime_type: str | None


async def find_upload(tx: Tx, access: Access, uid: str) -> FoundUpload | None:
    """Find an upload of the caller's agent."""
    row = await tx.row(_FIND, access.agent_id, uid)
    return None if row is None else FoundUpload(*row)


async def hold_blob(tx: Tx, access: Access, blob_id: BlobId) -> HeldBlob | None:
    """Keep a blob from being removed until the unit ends; None when it is not there any more."""
    row = await tx.row(_HOLD_BLOB, access.agent_id, blob_id)
    return None if row is None else HeldBlob(*row)
