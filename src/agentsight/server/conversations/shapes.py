"""What conversations look like outside: lean rows, and transcripts.

Published clients read these keys: docs/published-clients.md, "Answers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from agentsight.server.attachments.addresses import Addresses
from agentsight.server.attachments.links import Links
from agentsight.server.attachments.model import AttachmentRow
from agentsight.server.attachments.shapes import shape_files
from agentsight.server.conversations.store_lists import ConversationRow
from agentsight.server.feedback.shapes import FeedbackShape, shape_feedback
from agentsight.server.feedback.store import FeedbackRow
from agentsight.server.messages.model import MessageRow
from agentsight.server.messages.shapes import MessageShape, shape_message
from agentsight.server.times import optional_datetime, to_datetime
from agentsight.server.usage.shapes import UsageShape, shape_usage
from agentsight.server.usage.store import UsageRow
from agentsight.server.web.shapes import raw_json


class GeoLocationShape(msgspec.Struct):
    """Where an address is, as far as the offline tables know."""

    ip_address: str
    city: str | None
    country: str | None
    timezone_name: str | None


class LeanConversationShape(msgspec.Struct, kw_only=True):
    """A conversation without its transcript."""

    id: int
    uid: str
    agent: int
    conversation_id: str
    name: str | None
    customer_id: str | None
    customer_ip_address: str | None
    device: str | None
    source: str | None
    language: str | None
    environment: str
    is_marked: bool
    is_deleted: bool
    is_used: bool
    started_at: datetime
    ended_at: datetime | None
    deleted_at: datetime | None
    metadata: msgspec.Raw
    geo_location: GeoLocationShape | None
    message_count: int
    feedback_count: int


class ConversationShape(LeanConversationShape, kw_only=True):
    """A conversation with its transcript. `messages_omitted` is set where a list had no room."""

    messages: list[MessageShape]
    feedbacks: list[FeedbackShape]
    token_usage: list[UsageShape]
    messages_omitted: bool | msgspec.UnsetType = msgspec.UNSET


class Transcripts(msgspec.Struct, frozen=True):
    """What belongs to a page of conversations, by the conversations' row ids.

    `files` is by message. A conversation in `omitted` had no room.
    """

    messages: Mapping[int, Sequence[MessageRow]]
    files: Mapping[int, Sequence[AttachmentRow]]
    feedbacks: Mapping[int, Sequence[FeedbackRow]]
    usages: Mapping[int, Sequence[UsageRow]]
    omitted: frozenset[int]


def _lean_values(row: ConversationRow, agent_id: int) -> dict[str, object]:
    geo = None
    if row.customer_ip_address is not None and row.geo_country is not None:
        geo = GeoLocationShape(
            row.customer_ip_address, row.geo_city, row.geo_country, row.geo_timezone
        )
    return {
        "id": row.pk,
        "uid": row.uid,
        "agent": agent_id,
        "conversation_id": row.conversation_id,
        "name": row.name,
        "customer_id": row.customer_id,
        "customer_ip_address": row.customer_ip_address,
        "device": row.device,
        "source": row.source,
        "language": row.language,
        "environment": row.environment,
        "is_marked": bool(row.is_marked),
        "is_deleted": row.deleted_at is not None,
        "is_used": bool(row.is_used),
        "started_at": to_datetime(row.started_at),
        "ended_at": optional_datetime(row.ended_at),
        "deleted_at": optional_datetime(row.deleted_at),
        "metadata": raw_json(row.metadata),
        "geo_location": geo,
        "message_count": row.n_messages,
        "feedback_count": row.n_feedbacks,
    }


def shape_lean(row: ConversationRow, agent_id: int) -> LeanConversationShape:
    """Show a conversation without its transcript."""
    return LeanConversationShape(**_lean_values(row, agent_id))  # pyright: ignore[reportArgumentType] # one table of values for two structs


def shape_full(
    row: ConversationRow, agent_id: int, transcripts: Transcripts, links: Links, to: Addresses
) -> ConversationShape:
    """Show a conversation with its transcript, files, feedback and token usage."""
    messages = [
        shape_message(
            message, shape_files(transcripts.files.get(message.message_id, ()), agent_id, links, to)
        )
        for message in transcripts.messages.get(row.pk, ())
    ]
    return ConversationShape(
        **_lean_values(row, agent_id),  # pyright: ignore[reportArgumentType] # one table of values for two structs
        messages=messages,
        feedbacks=[shape_feedback(f) for f in transcripts.feedbacks.get(row.pk, ())],
        token_usage=[shape_usage(u) for u in transcripts.usages.get(row.pk, ())],
        messages_omitted=True if row.pk in transcripts.omitted else msgspec.UNSET,
    )
