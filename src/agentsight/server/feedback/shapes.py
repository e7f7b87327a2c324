"""What feedback looks like outside (docs/published-clients.md, "Answers")."""

from __future__ import annotations

from datetime import datetime

import msgspec

from agentsight.server.feedback.store import FeedbackRow
from agentsight.server.times import to_datetime
from agentsight.server.web.shapes import raw_json


class FeedbackShape(msgspec.Struct):
    """A customer's (`customer`) or an operator's (`platform`) word on a conversation."""

    id: int
    conversation: int
    sentiment: str
    source: str
    comment: str | None
    metadata: msgspec.Raw
    created_at: datetime


def shape_feedback(row: FeedbackRow) -> FeedbackShape:
    """Show one feedback."""
    return FeedbackShape(
        row.feedback_id,
        row.conversation_pk,
        row.sentiment,
        row.source,
        row.comment,
        raw_json(row.metadata),
        to_datetime(row.created_at),
    )
