"""Questions about token usage as rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import ConversationPk, MessageId
from agentsight.server.messages.model import UsageDetail

_INSERT = sql(
    "INSERT INTO usages (agent_id, conversation_id, message_id, item_key, basis, model,"
    " prompt_tokens, completion_tokens, total_tokens, embedding_tokens, timestamp, created_at,"
    " updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) RETURNING id"
)
_READ = sql(
    "SELECT conversation_id, id, message_id, basis, model, prompt_tokens, completion_tokens,"
    " total_tokens, embedding_tokens, timestamp FROM usages"
    " WHERE agent_id = $1 AND conversation_id = ANY($2::bigint[])"
    " ORDER BY conversation_id, timestamp, id"
)
_BY_MESSAGE = sql("SELECT id FROM usages WHERE agent_id = $1 AND message_id = $2")


class UsageRow(msgspec.Struct, frozen=True, gc=False):
    """Token counters as they are read."""

    usage_id: int
    message_id: int
    basis: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    embedding_tokens: int | None
    timestamp: int


async def insert(
    tx: Tx,
    access: Access,
    pk: ConversationPk,
    message_id: MessageId,
    detail: UsageDetail,
    *,
    timestamp: int,
    now_us: int,
) -> int:
    """Insert the counters of a usage message and return their id.

    The message carries the item's key; a repeat never comes this far.
    """
    return await tx.value(
        _INSERT,
        access.agent_id,
        pk,
        message_id,
        None,
        detail.basis,
        detail.model,
        detail.prompt_tokens,
        detail.completion_tokens,
        detail.total_tokens,
        detail.embedding_tokens,
        timestamp,
        now_us,
    )


async def find_by_message(tx: Tx, access: Access, message_id: MessageId) -> int | None:
    """Return the id of the counters that a usage message carries."""
    return await tx.value(_BY_MESSAGE, access.agent_id, message_id)


async def read_usages(
    tx: Tx, access: Access, pks: Sequence[ConversationPk]
) -> dict[int, list[UsageRow]]:
    """Read the counters of conversations, by row id."""
    by_conversation: dict[int, list[UsageRow]] = {pk: [] for pk in pks}
    for pk, *values in await tx.rows(_READ, access.agent_id, list(pks)):
        by_conversation[pk].append(UsageRow(*values))
    return by_conversation
