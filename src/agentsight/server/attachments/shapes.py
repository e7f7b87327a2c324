"""What attachments look like outside: the six promised keys first, then ours.

The promise is in docs/published-clients.md, "Answers".
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from agentsight.server.attachments.addresses import Addresses
from agentsight.server.attachments.facts import PREVIEW_PATHS, Scan, decode_facts
from agentsight.server.attachments.links import FileUrls, Links, quote_name
from agentsight.server.attachments.model import AttachmentRow, ConversationFiles
from agentsight.server.attachments.names import file_stem
from agentsight.server.times import to_datetime


class AttachmentShape(msgspec.Struct, gc=False):
    """One file. `file_url` opens without a key until `file_url_expires_at`; `url` asks for a key
    and never expires. What is not known of a file, or does not apply, is null."""

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
    detected_mime_type: str | None
    width: int | None
    height: int | None
    pages: int | None
    seconds: float | None
    scan: Scan
    preview_url: str | None
    playback_url: str | None


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


def _shape(
    row: AttachmentRow, urls: FileUrls, to: Addresses, expires_at: datetime
) -> AttachmentShape:
    folder, name = urls.folder(row.uid), quote_name(row.filename)
    facts = decode_facts(row.facts)
    preview = playback = None
    if to.has_previews and facts.scan != "infected":
        preview = facts.preview and f"{folder}/{PREVIEW_PATHS[facts.preview]}"
        playback = facts.playback and f"{folder}/playback/{file_stem(name)}.{facts.playback}"
    return AttachmentShape(
        row.attachment_id,
        row.type,
        row.filename,
        row.mime_type,
        row.size_bytes,
        f"{folder}/{name}",
        row.uid,
        row.sha256,
        expires_at,
        f"{to.api_base}/api/v1/attachments/{row.uid}/content/",
        row.message_id,
        facts.detected_mime_type,
        facts.width,
        facts.height,
        facts.pages,
        facts.seconds,
        facts.scan,
        preview,
        playback,
    )


def shape_file(row: AttachmentRow, agent_id: int, links: Links, to: Addresses) -> AttachmentShape:
    """Show one file with a link that works from now on."""
    return shape_files([row], agent_id, links, to)[0]


def shape_files(
    rows: Sequence[AttachmentRow], agent_id: int, links: Links, to: Addresses
) -> list[AttachmentShape]:
    """Show files in their order."""
    if not rows:
        return []
    urls = links.file_urls(agent_id, to.files_base, to.now_us)
    expires_at = _end_of_day(urls.expires_at_us)
    return [_shape(row, urls, to, expires_at) for row in rows]


def shape_conversation_files(
    files: ConversationFiles, agent_id: int, links: Links, to: Addresses
) -> ConversationFilesShape:
    """Show a conversation's files, grouped and flat."""
    urls = links.file_urls(agent_id, to.files_base, to.now_us)
    expires_at = _end_of_day(urls.expires_at_us)
    groups: list[MessageFilesShape] = []
    flat: list[AttachmentShape] = []
    for group in files.groups:
        shapes = [_shape(row, urls, to, expires_at) for row in group.files]
        flat += shapes
        at = to_datetime(group.timestamp)
        groups.append(MessageFilesShape(group.message_id, group.sender, at, shapes))
    return ConversationFilesShape(
        files.conversation_id, files.pk, len(flat), groups, len(flat), flat
    )
