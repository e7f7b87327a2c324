"""The filters of a list: what a query string may ask, read and checked. Pure.

`store_lists.py` turns a `Filters` into SQL; the tests' oracle says in plain Python what each means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from agentsight.server.agents.model import clean_environment
from agentsight.server.queries import (
    MetadataFilter,
    parse_choice,
    parse_flag,
    parse_metadata_filter,
    parse_ordering,
    parse_text,
    parse_time_us,
    read_query,
)

Ordering = Literal["started_at", "ended_at", "id", "customer_id", "is_marked", "language"]
ORDERINGS: tuple[Ordering, ...] = (
    "started_at",
    "ended_at",
    "id",
    "customer_id",
    "is_marked",
    "language",
)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; None is "no opinion". Times are µs since 1970 UTC."""

    conversation_id: str | None = None
    customer_id: str | None = None
    customer_id_contains: str | None = None
    customer_ip_address: str | None = None
    device: str | None = None
    language: str | None = None
    source: str | None = None
    environment: str | None = None
    name_contains: str | None = None
    action_name_contains: str | None = None
    message_contains: str | None = None
    attachment_contains: str | None = None
    metadata: tuple[MetadataFilter, ...] = ()
    feedback_sentiment: str | None = None
    feedback_source: str | None = None
    has_feedback: bool | None = None
    has_messages: bool | None = None
    has_action: bool | None = None
    is_marked: bool | None = None
    include_deleted: bool = False
    started_at_after: int | None = None
    started_at_before: int | None = None
    ordering: tuple[tuple[Ordering, bool], ...] = ()
    """Columns with "descending"; empty is the default, newest start first."""

    def is_plain(self) -> bool:
        """Say whether nothing narrows the list but deletion, so that a kept count is its count."""
        return self == Filters(include_deleted=self.include_deleted, ordering=self.ordering)


_TEXTS = {
    "conversation_id": "conversation_id",
    "customer_id": "customer_id",
    "customer_id__icontains": "customer_id_contains",
    "customer_ip_address": "customer_ip_address",
    "device": "device",
    "language": "language",
    "source": "source",
    "env": "environment",
    "environment": "environment",
    "name": "name_contains",
    "action_name": "action_name_contains",
    "message_contains": "message_contains",
    "attachment_contains": "attachment_contains",
}
_FLAGS = ("has_feedback", "has_messages", "has_action", "is_marked", "include_deleted")
_TIMES = ("started_at_after", "started_at_before")
_CHOICES = {
    "feedback_sentiment": ("positive", "neutral", "negative"),
    "feedback_source": ("customer", "platform"),
}
DESCRIPTIONS: dict[str, str] = {
    "conversation_id": "The caller's own id, exactly. Such a list is never cut.",
    "customer_id": "Exactly.",
    "customer_id__icontains": "Contained in customer_id, without case.",
    "customer_ip_address": "Exactly.",
    "device": "Exactly.",
    "language": "Exactly.",
    "source": "Exactly.",
    "env": "As environment.",
    "environment": "The environment's slug; prod and dev are understood.",
    "name": "Contained in the name, without case.",
    "action_name": "Contained in the name of an action, without case.",
    "message_contains": "Contained in the text of a message, without case.",
    "attachment_contains": "Contained in a file's name or in the text inside it, without case.",
    "has_feedback": "true or false.",
    "has_messages": "true or false; token usage is no message.",
    "has_action": "true or false.",
    "is_marked": "true or false.",
    "include_deleted": "true shows deleted ones too.",
    "started_at_after": "ISO 8601, inclusive; without an offset it is UTC.",
    "started_at_before": "ISO 8601, inclusive; without an offset it is UTC.",
    "feedback_sentiment": "positive, neutral or negative; of one feedback with feedback_source.",
    "feedback_source": "customer or platform.",
    "metadata": "key:value,other.nested:value2: all leaves must have these texts.",
    "ordering": "Columns with - for descending: " + ", ".join(ORDERINGS) + ".",
    "page": "From 1.",
    "page_size": "1 to 100; 10 where absent.",
    "full": "false leaves the transcripts out.",
}
FILTER_NAMES = frozenset(DESCRIPTIONS)


def parse_filters(query: Mapping[str, str]) -> Filters:
    """Read the filters of a query string; a blank value is no filter, unknown names are ignored.

    Raises:
        Problem: 400 with a list of messages for each value that cannot be understood.
    """
    return Filters(**read_query(query, FILTER_NAMES, _read))


def _read(name: str, raw: str) -> tuple[str | None, Any]:
    if name in _TEXTS:
        text = parse_text(raw)
        if _TEXTS[name] == "environment":
            return "environment", clean_environment(text)
        return _TEXTS[name], text
    if name in _FLAGS:
        return name, parse_flag(raw)
    if name in _TIMES:
        return name, parse_time_us(raw)
    if name in _CHOICES:
        return name, parse_choice(raw, _CHOICES[name])
    if name == "metadata":
        return name, parse_metadata_filter(raw)
    if name == "ordering":
        return name, parse_ordering(raw, ORDERINGS)
    return None, None
