"""What uploads and the use of storage look like outside."""

from __future__ import annotations

from datetime import datetime
from email.utils import format_datetime

import msgspec

from agentsight import _contract as contract
from agentsight.server.times import to_datetime
from agentsight.server.uploads.model import Upload


class UploadShape(msgspec.Struct):
    """One upload. `upload_url` and `method` say where and how to go on; null when it is stored.

    `offset` counts the bytes that are safe. `sha256` is what was announced, and once stored what
    the bytes have. Until `expires_at` the next byte, or the message that refers to it, may come.
    """

    uid: str
    state: str
    filename: str
    mime_type: str | None
    detected_mime_type: str | None
    size_bytes: int
    sha256: str | None
    offset: int
    upload_url: str | None
    method: str | None
    created_at: datetime
    expires_at: datetime


class StorageLimitsShape(msgspec.Struct):
    """The limits that hold, in bytes; null is no limit."""

    max_file_bytes: int
    max_request_bytes: int
    max_conversation_bytes: int | None
    max_agent_bytes: int | None


class PendingUploadsShape(msgspec.Struct):
    """Unfinished uploads: how many, the bytes announced for them, the bytes that have come."""

    uploads: int
    announced_bytes: int
    received_bytes: int


class StorageUsageShape(msgspec.Struct):
    """What an agent keeps.

    `files` are attachments with `referenced_bytes` together; `blobs` what is stored for them, each
    content once, with `stored_bytes`. `saved_bytes` is what storing once has spared. `left_bytes`
    is what `max_agent_bytes` leaves; null without that limit.
    """

    files: int
    referenced_bytes: int
    blobs: int
    stored_bytes: int
    saved_bytes: int
    left_bytes: int | None
    limits: StorageLimitsShape
    pending: PendingUploadsShape


def address_of(upload: Upload, api_base: str) -> str:
    """Return the address at which an upload's bytes are sent."""
    return f"{api_base}{contract.UPLOADS_PATH}{upload.uid}/"


def shape_upload(upload: Upload, api_base: str, now_us: int) -> UploadShape:
    """Show an upload."""
    state = upload.state_at(now_us)
    is_pending = state == "pending"
    return UploadShape(
        upload.uid,
        state,
        upload.filename,
        upload.declared_mime_type,
        upload.detected_mime_type,
        upload.size_bytes,
        upload.sha256,
        upload.offset,
        address_of(upload, api_base) if is_pending else None,
        "PATCH" if is_pending else None,
        to_datetime(upload.created_at),
        to_datetime(upload.expires_at),
    )


def http_date(time_us: int) -> str:
    """Write a time as HTTP headers have it (RFC 9110, section 5.6.7)."""
    return format_datetime(to_datetime(time_us), usegmt=True)
