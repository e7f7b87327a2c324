"""What every filter of a list means, in plain Python on plain dicts: both databases answer to it.

A conversation here is a dict of what its caller sent, with `id`, `is_marked`, `is_deleted`,
`messages` and `feedbacks`. Nothing is shared with the code under test: a rule that is wrong there
cannot be wrong here by the same line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Conversation = Mapping[str, Any]
TRUE = ("true", "1", "yes", "on")
JSON_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def answer(conversations: Sequence[Conversation], query: Mapping[str, str]) -> list[int]:
    """Return the ids of the list that a query asks for, in its order, on all pages."""
    wanted = {name: raw for name, raw in query.items() if raw.strip()}
    found = [c for c in conversations if _is_wanted(c, wanted)]
    return [c["id"] for c in _ordered(found, wanted.get("ordering", ""))]


def _is_wanted(c: Conversation, query: Mapping[str, str]) -> bool:
    if c["is_deleted"] and query.get("include_deleted", "").strip().lower() not in TRUE:
        return False
    if not _has_feedback_of(c, query):
        return False
    return all(_RULES[name](c, raw) for name, raw in query.items() if name in _RULES)


def started_at(c: Conversation) -> datetime:
    """Return when a conversation began: when it says, or its first message."""
    return min([c["timestamp"], *(m["timestamp"] for m in _messages(c))])


def ended_at(c: Conversation) -> datetime | None:
    """Return when the last message came; token usage is no message."""
    return max((m["timestamp"] for m in _messages(c)), default=None)


def _messages(c: Conversation) -> list[Mapping[str, Any]]:
    return [m for m in c["messages"] if m["type"] != "usage"]


def shown_text(message: Mapping[str, Any]) -> str:
    """Return what a message shows in a transcript."""
    match message["type"]:
        case "action":
            return f"Action {message['action_name']} performed"
        case "button":
            return message["label"]
        case _:
            return message["content"]


def has_within(needle: str, text: str | None) -> bool:
    """Say whether a text holds another, without case."""
    return text is not None and needle.casefold() in text.casefold()


def _is(flag: str, fact: bool) -> bool:
    return fact == (flag.strip().lower() in TRUE)


def time_of(raw: str) -> datetime:
    """Read a time; without an offset it is UTC."""
    time = datetime.fromisoformat(raw.strip())
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def environment_of(raw: str | None) -> str:
    """Return the slug that is meant."""
    slug = (raw or "").strip().casefold()
    return {"prod": "production", "dev": "development", "": "production"}.get(slug, slug)


def _equals(field: str) -> Callable[[Conversation, str], bool]:
    return lambda c, raw: c[field] == raw


def _actions(c: Conversation) -> list[str]:
    return [m["action_name"] for m in c["messages"] if m["type"] == "action"]


_RULES: dict[str, Callable[[Conversation, str], bool]] = {
    "conversation_id": _equals("conversation_id"),
    "customer_id": _equals("customer_id"),
    "customer_ip_address": _equals("customer_ip_address"),
    "device": _equals("device"),
    "language": _equals("language"),
    "source": _equals("source"),
    "customer_id__icontains": lambda c, raw: has_within(raw, c["customer_id"]),
    "name": lambda c, raw: has_within(raw, c["name"]),
    "environment": lambda c, raw: environment_of(c["environment"]) == environment_of(raw),
    "action_name": lambda c, raw: any(has_within(raw, name) for name in _actions(c)),
    "attachment_contains": lambda c, raw: any(
        not f["is_deleted"] and (has_within(raw, f["filename"]) or has_within(raw, f["text"]))
        for m in c["messages"]
        for f in m.get("files", ())
    ),
    "message_contains": lambda c, raw: any(has_within(raw, shown_text(m)) for m in _messages(c)),
    "has_action": lambda c, raw: _is(raw, bool(_actions(c))),
    "has_messages": lambda c, raw: _is(raw, bool(_messages(c))),
    "has_feedback": lambda c, raw: _is(raw, bool(c["feedbacks"])),
    "is_marked": lambda c, raw: _is(raw, c["is_marked"]),
    "started_at_after": lambda c, raw: started_at(c) >= time_of(raw),
    "started_at_before": lambda c, raw: started_at(c) <= time_of(raw),
    "metadata": lambda c, raw: has_leaves(c["metadata"], raw),
}


def _has_feedback_of(c: Conversation, query: Mapping[str, str]) -> bool:
    """One feedback must have both, the sentiment and the source that are asked for."""
    asked = {
        key: query[f"feedback_{key}"].strip().lower()
        for key in ("sentiment", "source")
        if f"feedback_{key}" in query
    }
    if not asked:
        return True
    return any(all(f[k] == v for k, v in asked.items()) for f in c["feedbacks"])


def has_leaves(metadata: Mapping[str, Any] | None, raw: str) -> bool:
    """Say whether a document has all leaves that a filter names."""
    return all(_has_leaf(metadata or {}, path, value) for path, value in metadata_pairs(raw))


def metadata_pairs(raw: str) -> list[tuple[list[str], str]]:
    """Split `key:value,other.nested:value2`; a piece without a colon belongs to the one before."""
    pieces: list[str] = []
    for piece in raw.split(","):
        if pieces and ":" not in piece:
            pieces[-1] = f"{pieces[-1]},{piece}"
        else:
            pieces.append(piece)
    pairs = [piece.split(":", 1) for piece in pieces]
    return [([key.strip() for key in path.split(".")], value.strip()) for path, value in pairs]


def _has_leaf(value: Any, path: Sequence[str], text: str) -> bool:
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    if value is None or isinstance(value, bool):
        return json.dumps(value) == text
    if isinstance(value, str):
        return value == text
    if isinstance(value, int | float):
        return bool(JSON_NUMBER.fullmatch(text)) and Decimal(json.dumps(value)) == Decimal(text)
    return False


def _ordered(found: list[Conversation], ordering: str) -> list[Conversation]:
    return ordered(found, ordering or "-started_at", _sort_key)


def ordered(
    found: list[Conversation], ordering: str, key_of: Callable[[Conversation, str], Any]
) -> list[Conversation]:
    """Sort by columns with `-` for descending; None comes last, the newest id first."""
    columns = [part.strip() for part in ordering.split(",")]
    # Sorts are stable, in reverse too: the last column goes first; where nothing else decides,
    # the newest id is first.
    found.sort(key=lambda c: -c["id"])
    for column in reversed(columns):
        bare = column.removeprefix("-")
        keyed = [(key_of(c, bare), c) for c in found]
        there = [pair for pair in keyed if pair[0] is not None]
        there.sort(key=lambda pair: pair[0], reverse=column.startswith("-"))
        found = [c for _, c in there] + [c for key, c in keyed if key is None]
    return found


def _sort_key(c: Conversation, column: str) -> Any:
    match column:
        case "started_at":
            return started_at(c)
        case "ended_at":
            return ended_at(c)
        case "customer_id" | "language":
            return None if c[column] is None else c[column].encode()
        case _:
            return c[column]
