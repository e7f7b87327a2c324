"""What tests of uploads share: announcing, sending, and looking at what is left."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from agentsight import _contract as contract
from tests.support.http import Answer, House, Person

OFFSET_TYPE = "application/offset+octet-stream"
BATCH = contract.BATCH_PATH
MORE = (
    "INSERT INTO uploads (agent_id, uid, blob_id, blob_uid, object_key, filename, size_bytes,"
    " sha256, offset_bytes, state, created_at, updated_at, expires_at)"
    " WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {n})"
    " SELECT u.agent_id, u.uid || '-' || n, u.blob_id, u.blob_uid, u.object_key, u.filename,"
    " u.size_bytes, u.sha256, u.offset_bytes, u.state, u.created_at, u.updated_at, u.expires_at"
    " FROM uploads u, numbers"
)
"""Make `n` more of each upload there is, as a client that announces in a loop does."""


def sha256(data: bytes) -> str:
    """Hash in hex."""
    return hashlib.sha256(data).hexdigest()


async def announce(person: Person, data: bytes, **fields: Any) -> Answer:
    """Announce bytes truly, except for what `fields` say otherwise; None leaves a field out."""
    body = {
        "filename": "a.bin",
        "mime_type": "application/octet-stream",
        "size_bytes": len(data),
        "sha256": sha256(data),
    } | fields
    body = {name: value for name, value in body.items() if value is not None}
    return await person.post(contract.UPLOADS_PATH, body)


async def begin(person: Person, data: bytes, **fields: Any) -> str:
    """Announce new bytes and return the upload's path."""
    answer = await announce(person, data, **fields)
    assert answer.status == 201, answer.body
    return urlsplit(answer.json()["upload_url"]).path


async def patch(
    person: Person, path: str, offset: int, body: bytes | Iterable[bytes], *, is_cut: bool = False
) -> Answer:
    """Send bytes from `offset` on."""
    headers = {"content-type": OFFSET_TYPE, "upload-offset": str(offset)}
    return await person.writer.send("PATCH", path, body=body, headers=headers, is_cut=is_cut)


async def offset_of(person: Person, path: str) -> int:
    """Ask where an upload stands."""
    answer = await person.writer.send("HEAD", path)
    assert answer.status == 200, answer.body
    return int(answer.headers["upload-offset"])


async def upload(person: Person, data: bytes, **fields: Any) -> str:
    """Bring bytes to the end and return the upload's uid."""
    path = await begin(person, data, **fields)
    answer = await patch(person, path, 0, data)
    assert answer.status == 204, answer.body
    return path.split("/")[-2]


async def refer(person: Person, *uids: str, conversation_id: str = "c", **fields: Any) -> Answer:
    """Store a message whose files are uploads."""
    files = [{"upload": uid} | fields for uid in uids]
    item = {"type": "message", "content": "see", "sender": "end_user", "attachments": files}
    body = {"conversation": {"conversation_id": conversation_id}, "items": [item]}
    return await person.post(BATCH, body)


async def state_of(house: House, path: str) -> str:
    """Read an upload's state in its row."""
    ((state,),) = await house.rows("SELECT state FROM uploads WHERE uid = $1", path.split("/")[-2])
    return str(state)


def own_objects(house: House, person: Person) -> set[str]:
    """Return the keys of a person's objects that are finished."""
    return {k for k in house.objects() if k.startswith(f"blobs/{person.access.agent_id}/")}


def unfinished(house: House) -> set[str]:
    """Return the files that hold unfinished uploads, of everybody."""
    return house.unfinished_uploads()


def pieces(data: bytes, step: int = 65_536) -> Iterator[bytes]:
    """Cut bytes as a connection does."""
    return (data[start : start + step] for start in range(0, len(data), step))


def metadata(**texts: str) -> str:
    """Write an Upload-Metadata header (tus 1.0, creation)."""
    pairs = ((name, base64.b64encode(text.encode()).decode()) for name, text in texts.items())
    return ",".join(f"{name} {encoded}" for name, encoded in pairs)
