"""What token usage looks like outside."""

from __future__ import annotations

from datetime import datetime

import msgspec

from agentsight.server.times import to_datetime
from agentsight.server.usage.store import UsageRow


class UsageShape(msgspec.Struct):
    """Token counters as they came. Only those of basis `delta` may be summed."""

    id: int
    message: int
    timestamp: datetime
    basis: str
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    embedding_tokens: int | None


def shape_usage(row: UsageRow) -> UsageShape:
    """Show one set of counters."""
    return UsageShape(
        row.usage_id,
        row.message_id,
        to_datetime(row.timestamp),
        row.basis,
        row.model,
        row.prompt_tokens,
        row.completion_tokens,
        row.total_tokens,
        row.embedding_tokens,
    )
