"""What an attachment is: a name and a type beside a blob. Pure values.

The type rule is in `types.py`, names in `names.py`, links in `links.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from agentsight.server.ids import AttachmentId, BlobId, ConversationPk, MessageId


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file whose bytes are durable under `object_key` and whose row is not written yet.

    `declared_mime_type` is the sender's word as it came, `detected_mime_type` what the first bytes
    say; `sha256` is lower-case hex; `metadata` is JSON text. `lost_object_key` names the object of
    a blob row with the same bytes, where that object was found missing.
    """

    filename: str
    declared_mime_type: str | None
    detected_mime_type: str | None
    blob_uid: str
    object_key: str
    sha256: str
    size_bytes: int
    metadata: str | None = None
    item_key: str | None = None
    lost_object_key: str | None = None


@dataclass(frozen=True, slots=True)
class ReferredUpload:
    """A file of a message that names an upload in place of bytes.

    `filename` and `declared_mime_type` are None where the upload's own count.
    """

    upload_uid: str
    filename: str | None = None
    declared_mime_type: str | None = None
    metadata: str | None = None
    item_key: str | None = None


HandedIn: TypeAlias = ReceivedFile | ReferredUpload
"""A file that a message brings, before its row is written."""


# Structs where many are made for one answer: a frozen dataclass takes 18 times as long to make.
class AttachmentRow(msgspec.Struct, frozen=True, gc=False):
    """An attachment as it is read, with what is told of its blob."""

    attachment_id: AttachmentId
    uid: str
    message_id: MessageId
    type: str
    filename: str
    mime_type: str
    size_bytes: int
    sha256: str
    facts: str | None = None
    """What was learned of the bytes, as `facts.py` writes it."""


class FileGroup(msgspec.Struct, frozen=True):
    """One message of a conversation with the files it brought, in the order they were sent."""

    message_id: MessageId
    sender: str
    timestamp: int
    files: list[AttachmentRow]


class ConversationFiles(msgspec.Struct, frozen=True):
    """All files of one conversation, by message in order of (timestamp, id)."""

    pk: ConversationPk
    conversation_id: str
    groups: list[FileGroup]


@dataclass(frozen=True, slots=True)
class ServedRow:
    """What serving needs to know of an attachment."""

    agent_id: int
    uid: str
    filename: str
    mime_type: str
    declared_mime_type: str | None
    detected_mime_type: str | None
    size_bytes: int
    sha256: str
    object_key: str
    created_at: int
    is_deleted: bool
    blob_id: BlobId
    scan: str
    is_quarantined: bool
