"""Questions about feedback as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import ConversationPk, FeedbackId

_INSERT = sql(
    "INSERT INTO feedbacks (agent_id, conversation_id, item_key, sentiment, source, comment,"
    " metadata, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $8)"
    " ON CONFLICT (agent_id, item_key) WHERE item_key IS NOT NULL DO NOTHING RETURNING id"
)
_BY_ITEM_KEY = sql(
    "SELECT conversation_id, id, sentiment, source, comment, metadata, created_at FROM feedbacks"
    " WHERE agent_id = $1 AND item_key = $2"
)
_READ = sql(
    "SELECT conversation_id, id, sentiment, source, comment, metadata, created_at FROM feedbacks"
    " WHERE agent_id = $1 AND conversation_id = ANY($2::bigint[]) AND deleted_at IS NULL"
    " ORDER BY conversation_id, id"
)


@dataclass(frozen=True, slots=True)
class NewFeedback:
    """Feedback to be stored; `metadata` is JSON text; `source` says whose word it is."""

    sentiment: str
    source: str
    comment: str | None
    metadata: str | None
    item_key: str | None = None


class FeedbackRow(msgspec.Struct, frozen=True, gc=False):
    """Feedback as it is read; `created_at` is µs since 1970 UTC."""

    conversation_pk: int
    feedback_id: int
    sentiment: str
    source: str
    comment: str | None
    metadata: str | None
    created_at: int


async def insert(
    tx: Tx, access: Access, pk: ConversationPk, new: NewFeedback, *, now_us: int
) -> FeedbackId | None:
    """Insert feedback; None when its item key is taken."""
    return await tx.value(
        _INSERT,
        access.agent_id,
        pk,
        new.item_key,
        new.sentiment,
        new.source,
        new.comment,
        new.metadata,
        now_us,
    )


async def find_by_item_key(tx: Tx, access: Access, item_key: str) -> FeedbackRow | None:
    """Find the feedback that an item became."""
    row = await tx.row(_BY_ITEM_KEY, access.agent_id, item_key)
    return None if row is None else FeedbackRow(*row)


async def read_feedbacks(
    tx: Tx, access: Access, pks: Sequence[ConversationPk]
) -> dict[int, list[FeedbackRow]]:
    """Read the feedback of conversations, by row id, oldest first."""
    by_conversation: dict[int, list[FeedbackRow]] = {pk: [] for pk in pks}
    for row in await tx.rows(_READ, access.agent_id, list(pks)):
        by_conversation[row[0]].append(FeedbackRow(*row))
    return by_conversation
