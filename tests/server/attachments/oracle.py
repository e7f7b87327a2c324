"""What every filter of the list of files means, in plain Python: both databases answer to it.

A file here is a dict of what `tests/server/library.py` stores, with its `id`, its message's
`sender` and `timestamp`, and its `conversation`, a dict too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.server.conversations.oracle import (
    TRUE,
    environment_of,
    has_leaves,
    has_within,
    ordered,
    time_of,
)
from tests.server.library import sha256_of

File = Mapping[str, Any]


def files_of(conversations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return all files of a world, each with what its message and conversation say."""
    return [
        dict(file) | {"sender": m["sender"], "timestamp": m["timestamp"], "conversation": c}
        for c in conversations
        for m in c["messages"]
        for file in m["files"]
    ]


def answer(conversations: Sequence[Mapping[str, Any]], query: Mapping[str, str]) -> list[int]:
    """Return the ids of the list that a query asks for, in its order, on all pages."""
    wanted = {name: raw for name, raw in query.items() if raw.strip()}
    found = [f for f in files_of(conversations) if _is_wanted(f, wanted)]
    return [f["id"] for f in ordered(found, wanted.get("ordering", "-sent_at"), _sort_key)]


def _is_wanted(f: File, query: Mapping[str, str]) -> bool:
    is_hidden = f["is_deleted"] or f["conversation"]["is_deleted"]
    if is_hidden and query.get("include_deleted", "").strip().lower() not in TRUE:
        return False
    return all(_RULES[name](f, raw) for name, raw in query.items() if name in _RULES)


def type_of(f: File) -> str:
    """Return a file's type; the worlds' files all say what they are."""
    family = f["mime_type"].partition("/")[0]
    return family if family in ("image", "audio", "video", "text") else "document"


def _is_detected(f: File, raw: str) -> bool:
    detected, wanted = f["detected_mime_type"], raw.strip().lower()
    if detected is None:
        return False
    return detected.startswith(wanted[:-1]) if wanted.endswith("/*") else detected == wanted


def _of_conversation(field: str) -> Callable[[File, str], bool]:
    return lambda f, raw: f["conversation"][field] == raw


_RULES: dict[str, Callable[[File, str], bool]] = {
    "type": lambda f, raw: type_of(f) == raw.strip().lower(),
    "detected_mime_type": _is_detected,
    "filename_contains": lambda f, raw: has_within(raw, f["filename"]),
    "text_contains": lambda f, raw: has_within(raw, f["text"]),
    "contains": lambda f, raw: has_within(raw, f["filename"]) or has_within(raw, f["text"]),
    "sender": lambda f, raw: f["sender"] == raw.strip().lower(),
    "conversation": lambda f, raw: f["conversation"]["id"] == int(raw),
    "conversation_id": _of_conversation("conversation_id"),
    "customer_id": _of_conversation("customer_id"),
    "environment": lambda f, raw: (
        environment_of(f["conversation"]["environment"]) == environment_of(raw)
    ),
    "size_min": lambda f, raw: f["size_bytes"] >= int(raw),
    "size_max": lambda f, raw: f["size_bytes"] <= int(raw),
    "sent_after": lambda f, raw: f["timestamp"] >= time_of(raw),
    "sent_before": lambda f, raw: f["timestamp"] <= time_of(raw),
    "metadata": lambda f, raw: has_leaves(f["metadata"], raw),
    "scan": lambda f, raw: f["scan"] == raw.strip().lower(),
    "sha256": lambda f, raw: sha256_of(f) == raw.strip().lower(),
}


def _sort_key(f: File, column: str) -> Any:
    match column:
        case "sent_at":
            return f["timestamp"]
        case "filename":
            return f["filename"].encode()
        case "type":
            return type_of(f)
        case _:
            return f[column]
