"""The filters of a list: what a query string may ask, read and checked. Pure.

`store_lists.py` turns a `Filters` into SQL; the tests' oracle says in plain Python what each means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from agentsight.server.agents.model import clean_environment
from agentsight.server.problems import Problem
from agentsight.server.text import mend_text
from agentsight.server.times import parse_time

Ordering = Literal["started_at", "ended_at", "id", "customer_id", "is_marked", "language"]
ORDERINGS: tuple[Ordering, ...] = (
    "started_at",
    "ended_at",
    "id",
    "customer_id",
    "is_marked",
    "language",
)
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_MAX_VALUE_CHARS = 1000
_MAX_PATH_KEYS = 50
"""Of a metadata filter. SQLite joins a table for each, and 64 at most; metadata is 20 deep."""
# JSON's grammar (RFC 8259, section 6), within what a double and 64 bits can be.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


class MetadataFilter(msgspec.Struct, frozen=True):
    """A leaf of the metadata, by its path through objects, that equals the value.

    A text equals by its characters, a number by its value (`1`, `1.0` and `1e0` are one), `true`,
    `false` and `null` by their names. Objects and lists equal nothing.
    """

    path: tuple[str, ...]
    text: str


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
    values: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    for name, raw in query.items():
        if name not in FILTER_NAMES or not raw.strip():
            continue
        try:
            field, value = _read(name, mend_text(raw))
        except ValueError as error:
            errors[name] = [str(error)]
            continue
        if field is not None:
            values[field] = value
    if errors:
        raise Problem(400, "invalid", fields=errors)
    return Filters(**values)


def unknown_names(query: Mapping[str, str]) -> list[str]:
    """Return the names that no filter has, for the header that tells of them."""
    return sorted(name for name in query if name not in FILTER_NAMES)


def parse_flag(raw: str) -> bool:
    """Read `true` or `false`, and what people write for them.

    Raises:
        ValueError: With the remedy.
    """
    text = raw.strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("Send true or false.")


def _read(name: str, raw: str) -> tuple[str | None, Any]:
    if name in _TEXTS:
        if len(raw) > _MAX_VALUE_CHARS:
            raise ValueError(f"Send at most {_MAX_VALUE_CHARS} characters.")
        if _TEXTS[name] == "environment":
            return "environment", clean_environment(raw)
        return _TEXTS[name], raw
    if name in _FLAGS:
        return name, parse_flag(raw)
    if name in _TIMES:
        return name, _read_time(raw)
    if name in _CHOICES:
        return name, _read_choice(raw, _CHOICES[name])
    if name == "metadata":
        return name, parse_metadata_filter(raw)
    if name == "ordering":
        return name, _read_ordering(raw)
    return None, None


def _read_time(raw: str) -> int:
    time_us = parse_time(raw)
    if time_us is None:
        raise ValueError("Send an ISO 8601 date or time, such as 2026-01-31T10:00:00Z.")
    return time_us


def _read_choice(raw: str, choices: tuple[str, ...]) -> str:
    text = raw.strip().lower()
    if text not in choices:
        raise ValueError(f"Send one of {', '.join(choices)}.")
    return text


def _read_ordering(raw: str) -> tuple[tuple[Ordering, bool], ...]:
    order: dict[Ordering, bool] = {}
    for part in raw.split(","):
        bare = part.strip().removeprefix("-")
        column: Ordering | None = next((known for known in ORDERINGS if known == bare), None)
        if column is None:
            raise ValueError(f"Send columns out of {', '.join(ORDERINGS)}, with - for descending.")
        # What is named again orders nothing more; databases take a limited number of columns.
        order.setdefault(column, part.strip().startswith("-"))
    return tuple(order.items())


def parse_metadata_filter(raw: str) -> tuple[MetadataFilter, ...]:
    """Read `key:value,other.nested:value2`: all must hold.

    A piece without a colon belongs to the value before it, so that values may have commas; the
    first colon ends the path, so that values may have colons.

    Raises:
        ValueError: When there is no `key:` at all.
    """
    if len(raw) > 4 * _MAX_VALUE_CHARS:
        raise ValueError(f"Send at most {4 * _MAX_VALUE_CHARS} characters.")
    pieces: list[str] = []
    for piece in raw.split(","):
        if ":" in piece or not pieces:
            pieces.append(piece)
        else:
            pieces[-1] += "," + piece
    filters: list[MetadataFilter] = []
    for piece in pieces:
        path, colon, value = piece.partition(":")
        keys = tuple(key.strip() for key in path.split("."))
        if not colon or not all(keys):
            raise ValueError("Send key:value pairs, such as plan:gold,address.city:Paris.")
        if len(keys) > _MAX_PATH_KEYS:
            raise ValueError(f"Name at most {_MAX_PATH_KEYS} keys in a path.")
        filters.append(MetadataFilter(keys, value.strip()))
    if len(filters) > 10:
        raise ValueError("Send at most 10 key:value pairs.")
    return tuple(filters)


def number_text(text: str) -> str | None:
    """Return the JSON number that a filter's text is, in the one form both databases compare.

    None for what is no number, and for one that no leaf can be: out of a double's range, or with
    more digits than a double keeps. Then only a text can equal it.
    """
    if _NUMBER.fullmatch(text) is None:
        return None
    exact = Decimal(text)
    if exact == exact.to_integral_value() and -(2**63) <= exact < 2**63:
        return str(int(exact))
    shortest = repr(float(text))
    return shortest if Decimal(shortest) == exact else None
