"""What attachments look like outside: the six promised keys first, then ours.

The promise is in docs/published-clients.md, "Answers".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from agentsight.server.attachments.addresses import Addresses
from agentsight.server.attachments.links import Links
from agentsight.server.attachments.model import AttachmentRow, ConversationFiles
from agentsight.server.times import to_datetime


class AttachmentShape(msgspec.Struct, gc=False):
    """One file. `file_url` opens without a key until `file_url_expires_at`; `url` asks for a key
    and never expires."""

    id: int
    type: str
    filename: str
    mime_type: str
    size_bytes: int
    file_url: str
    uid: str
    sha256: str
    file_url_expires_at: datetime
    url: str
    message: int


class MessageFilesShape(msgspec.Struct):
    """One message that brought files."""

    message_id: int
    sender: str
    timestamp: datetime
    attachments: list[AttachmentShape]


class ConversationFilesShape(msgspec.Struct):
    """All files of a conversation: grouped as gen A reads it, flat as gen B does."""

    conversation_id: str
    conversation: int
    total_attachments: int
    messages: list[MessageFilesShape]
    attachment_count: int
    attachments: list[AttachmentShape]


@lru_cache(maxsize=64)
def _end_of_day(expires_at: int) -> datetime:
    """Show when links expire: the same for all that are made on one day."""
    return to_datetime(expires_at)


def shape_file(row: AttachmentRow, agent_id: int, links: Links, to: Addresses) -> AttachmentShape:
    """Show one file with a link that works from now on."""
    url, expires_at = links.file_url(
        agent_id, row.uid, row.filename, base_url=to.files_base, now_us=to.now_us
    )
    return AttachmentShape(
        row.attachment_id,
        row.type,
        row.filename,
        row.mime_type,
        row.size_bytes,
        url,
        row.uid,
        row.sha256,
        _end_of_day(expires_at),
        f"{to.api_base}/api/v1/attachments/{row.uid}/content/",
        row.message_id,
    )


def shape_files(
    rows: Sequence[AttachmentRow], agent_id: int, links: Links, to: Addresses
) -> list[AttachmentShape]:
    """Show files in their order."""
    return [shape_file(row, agent_id, links, to) for row in rows]


def shape_conversation_files(
    files: ConversationFiles, agent_id: int, links: Links, to: Addresses
) -> ConversationFilesShape:
    """Show a conversation's files, grouped and flat."""
    groups = [
        MessageFilesShape(
            group.message_id,
            group.sender,
            to_datetime(group.timestamp),
            shape_files(group.files, agent_id, links, to),
        )
        for group in files.groups
    ]
    flat = [shape for group in groups for shape in group.attachments]
    return ConversationFilesShape(
        files.conversation_id, files.pk, len(flat), groups, len(flat), flat
    )
