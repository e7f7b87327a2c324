"""What was tracked and what was sent, in the shapes of 0.0.x."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from agentsight._delivery import Outcome
from agentsight._operations import Json
from agentsight._spool import Item

_COUNTER_BY_KIND: Final = {
    "conversation": "conversation",
    "question": "questions",
    "answer": "answers",
    "attachments": "attachments",
    "action": "actions",
    "button": "buttons",
    "usage": "actions",
}
_PREVIEW_CHARS: Final = 100
_PREVIEW_FILES: Final = 3


def sent_report(outcomes: Sequence[Outcome]) -> Json:
    """Return what `send_tracked_data` returns."""
    counters = ("questions", "answers", "attachments", "actions", "buttons", "errors")
    summary: dict[str, int] = dict.fromkeys(counters, 0)
    items: list[Json] = []
    for index, outcome in enumerate(outcomes):
        item = outcome.item
        entry: Json = {"index": index, "type": _type_of(item), "timestamp": item.timestamp}
        if outcome.error is None:
            entry |= {"response": outcome.response, "success": True}
            if item.kind != "conversation":
                summary[_COUNTER_BY_KIND[item.kind]] += 1
        else:
            entry |= {"error": outcome.error, "success": False}
            summary["errors"] += 1
        if outcome.lost_files:
            entry["attachments_failed"] = [
                {"filename": name, "error": reason} for name, reason in outcome.lost_files
            ]
            summary["errors"] += 1
        if outcome.refused_fields:
            entry["fields_refused"] = [
                {"field": name, "error": reason} for name, reason in outcome.refused_fields
            ]
            summary["errors"] += 1
        items.append(entry)
    return {"items": items, "summary": summary}


def tracked_report(items: Sequence[Item], conversation_id: str | None) -> Json:
    """Return what `get_tracked_data_summary` returns."""
    summary = dict.fromkeys(dict.fromkeys(_COUNTER_BY_KIND.values()), 0)
    shown: list[Json] = []
    for index, item in enumerate(items):
        summary[_COUNTER_BY_KIND[item.kind]] += 1
        data = _data(item)
        shown.append(
            {
                "type": _type_of(item),
                "timestamp": item.timestamp,
                "data": data,
                "index": index,
                "preview": _preview(item, data),
            }
        )
    summary["total"] = len(shown)
    return {"items": shown, "summary": summary, "conversation_id": conversation_id}


def _type_of(item: Item) -> str:
    return "action" if item.kind == "usage" else item.kind


def _data(item: Item) -> Json:
    data: Json = json.loads(item.body)
    for name in ("type", "item_key", "timestamp"):
        data.pop(name, None)
    data["conversation_id"] = item.conversation_id
    if item.kind == "usage":
        counters = {name: data.pop(name) for name in USAGE_COUNTERS}
        data = {**data, "action_name": "token_usage", "metadata": counters}
    if "error_message" in data:
        data["error_msg"] = data.pop("error_message")
    if item.files:
        data["attachments"] = [
            {"filename": file.filename, "mime_type": file.mime_type} for file in item.files
        ]
        data["mode" if item.kind == "attachments" else "attachment_mode"] = item.mode
    return data


USAGE_COUNTERS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "embedding_tokens")


def _preview(item: Item, data: Json) -> Json:
    if item.kind == "conversation":
        names = ("conversation_id", "customer_id", "name", "environment")
        return {name: data.get(name) for name in names}
    if item.kind in ("question", "answer"):
        return {
            "content_preview": _cut(str(data["content"])),
            "sender": data["sender"],
            "has_metadata": bool(data["metadata"]),
        }
    if item.kind == "attachments":
        return {
            "count": len(item.files),
            "mode": item.mode,
            "sender": data["sender"],
            "files": _first_names(item),
        }
    if item.kind == "button":
        return {"label": data["label"], "value": data["value"], "event": data["button_event"]}
    return {
        "action_name": data["action_name"],
        "duration_ms": data.get("duration_ms"),
        "has_error": bool(data.get("error_msg")),
        "has_response": bool(data.get("response")),
    }


def _cut(text: str) -> str:
    return text[:_PREVIEW_CHARS] + ("..." if len(text) > _PREVIEW_CHARS else "")


def _first_names(item: Item) -> list[Any]:
    names = [file.filename for file in item.files[:_PREVIEW_FILES]]
    n_more = len(item.files) - _PREVIEW_FILES
    return [*names, f"... and {n_more} more"] if n_more > 0 else names
