"""Arguments of the track calls, checked and turned into items. Bad ones raise here, at the call."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agentsight._contract import (
    MAX_ID_CHARS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_NAME_CHARS,
    MAX_TEXT_BYTES,
)
from agentsight._operations import Json, encode
from agentsight._spool import Item
from agentsight.enums import AttachmentMode, Sender
from agentsight.exceptions import InvalidConversationDataException, MissingConversationIdException

if TYPE_CHECKING:
    from agentsight.enums import Environment

_MODES: Final = {"base64": "base64", "form_data": "form_data", "form-data": "form_data"}
_SENDERS: Final = ("end_user", "agent", "system")
_MAX_DURATION_MS: Final = 1e15
"""The server takes less than this: 31,000 years."""


def new_item(kind: str, conversation_id: str | None, wire: Json, **more: Any) -> Item:
    """Give what is to be sent its key and its time, and make it JSON once and for all.

    Raises:
        InvalidConversationDataException: JSON has no form for a value.
    """
    item_key = str(uuid.uuid4())
    timestamp = datetime.now(UTC).isoformat()
    try:
        body = encode({**wire, "item_key": item_key, "timestamp": timestamp})
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConversationDataException(
            f"{kind}: cannot be sent as JSON: {error}"
        ) from error
    if len(body) > MAX_METADATA_BYTES:  # else none of them can be too large
        for name in ("metadata", "tools_used"):
            _check_size(name, wire.get(name))
    return Item(kind, conversation_id, item_key, timestamp, body, **more)


def _check_size(name: str, value: object) -> None:
    n_bytes = len(encode(value)) if value else 0
    if n_bytes > MAX_METADATA_BYTES:
        raise InvalidConversationDataException(
            f"{name} has {n_bytes} bytes as JSON; at most {MAX_METADATA_BYTES}"
        )


def opening_item(
    conversation_id: object,
    details: Json,
    *,
    is_used: bool,
    environment: Environment | str | None,
) -> Item:
    """Return what opens a conversation.

    Args:
        conversation_id: the caller's id.
        details: what else is known of it: `customer_id`, …, `environment`, `metadata`.
        is_used: false for a mere visit.
        environment: of the settings; where there is one, it wins.
    """
    known = {**details, "environment": plain_environment(environment or details["environment"])}
    wire = {name: str(value) for name, value in known.items() if value is not None}
    if details["metadata"] is not None:
        wire |= {"metadata": checked_metadata(details["metadata"])}
    return new_item(
        "conversation", checked_conversation_id(conversation_id), {**wire, "is_used": is_used}
    )


def action_wire(
    action_name: object, details: Json, response: object, error_msg: object, metadata: object
) -> Json:
    """Return an action as the wire has it; `details` are its times, duration and tools."""
    tools_used: object = details["tools_used"]
    if tools_used is not None:
        if not isinstance(tools_used, Mapping):  # an empty list, too
            raise InvalidConversationDataException("tools_used must be a dictionary")
        checked: Json = checked_metadata(tools_used, "tools_used")  # pyright: ignore[reportUnknownArgumentType] - whatever callers pass
        details = details | {"tools_used": checked}
    _check_duration(details["duration_ms"])
    known = details | {
        "response": _checked_length("response", as_text(response)),
        "error_message": _checked_length("error_msg", as_text(error_msg)),
    }
    return {
        "type": "action",
        "action_name": checked_name(action_name, "Action name", MAX_NAME_CHARS),
        "metadata": checked_metadata(metadata),
        **{name: value for name, value in known.items() if value is not None},
    }


def button_wire(button_event: object, label: object, value: object, metadata: object) -> Json:
    """Return a click as the wire has it."""
    return {
        "type": "button",
        "button_event": checked_name(button_event, "Button event", MAX_ID_CHARS),
        "label": checked_name(label, "Button label"),
        "value": checked_name(value, "Button value"),
        "metadata": checked_metadata(metadata),
    }


def plain_environment(environment: Environment | str | None) -> str | None:
    """Return an environment as the wire has it."""
    return None if environment is None else str(getattr(environment, "value", environment))


def checked_conversation_id(conversation_id: object) -> str:
    """Return a conversation's id as text.

    Raises:
        MissingConversationIdException: it is blank.
        InvalidConversationDataException: it is too long to be sent.
    """
    text = str(conversation_id or "").strip()
    if not text:
        raise MissingConversationIdException
    text = conversation_id if isinstance(conversation_id, str) else text
    if len(text) > MAX_ID_CHARS:
        raise InvalidConversationDataException(
            f"conversation_id has {len(text)} characters; at most {MAX_ID_CHARS}"
        )
    return text


def checked_text(text: object, error: type[Exception], what: str) -> str:
    """Return a message's text; numbers become text, anything else that is no text raises."""
    if not isinstance(text, (str, int, float)) or not str(text or "").strip():
        raise error(f"Invalid {what} data provided: the message must be text and not blank")
    text = str(text)
    if _is_too_long(text):
        raise error(f"Invalid {what} data provided: the text has over {MAX_TEXT_BYTES} bytes")
    return text


def checked_name(value: object, what: str, max_chars: int | None = None) -> str:
    """Return a text that must not be blank, such as an action's name."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidConversationDataException(f"{what} cannot be empty")
    if max_chars is not None and len(value) > max_chars:
        raise InvalidConversationDataException(
            f"{what} has {len(value)} characters; at most {max_chars}"
        )
    return str(_checked_length(what, value))


def _checked_length(name: str, text: str | None) -> str | None:
    if text is not None and _is_too_long(text):
        raise InvalidConversationDataException(f"{name} has over {MAX_TEXT_BYTES} bytes")
    return text


def _is_too_long(text: str) -> bool:
    if len(text) <= MAX_TEXT_BYTES // 4:  # a character has at most 4 bytes
        return False
    return len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES


def _check_duration(duration_ms: Any) -> None:
    if duration_ms is None:
        return
    try:
        is_duration = 0 <= float(duration_ms) < _MAX_DURATION_MS
    except (TypeError, ValueError, OverflowError):
        is_duration = False
    if isinstance(duration_ms, bool) or not is_duration:
        raise InvalidConversationDataException(
            f"duration_ms must be a number of milliseconds from 0, not {duration_ms!r:.100}"
        )


def checked_metadata(metadata: object, name: str = "metadata") -> Json:
    """Return metadata; it must be a JSON object, at most 20 deep. `new_item` looks at its size."""
    if not metadata:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidConversationDataException(
            f"{name} must be a dictionary, not {type(metadata).__name__}"
        )
    fields: Json = dict(metadata)  # pyright: ignore[reportUnknownArgumentType] - whatever callers pass
    if any(isinstance(value, (Mapping, list, tuple)) for value in fields.values()):
        _check_depth(name, fields, 1)
    return fields


def _check_depth(name: str, value: object, depth: int) -> None:
    if isinstance(value, Mapping):
        values = list(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - whatever callers pass
    elif isinstance(value, (list, tuple)):
        values = list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - whatever callers pass
    else:
        return
    if depth > MAX_METADATA_DEPTH:
        raise InvalidConversationDataException(
            f"{name} is nested over {MAX_METADATA_DEPTH} deep, or in a circle"
        )
    for one in values:  # pyright: ignore[reportUnknownVariableType] - whatever callers pass
        _check_depth(name, one, depth + 1)  # pyright: ignore[reportUnknownArgumentType] - whatever callers pass


def checked_mode(mode: object) -> str:
    """Return `base64` or `form_data`."""
    if isinstance(mode, AttachmentMode):
        return mode.value
    if not isinstance(mode, str) or mode.lower() not in _MODES:
        raise ValueError(f"Invalid mode: {mode}. Must be 'base64' or 'form_data'")
    return _MODES[mode.lower()]


def checked_sender(sender: object) -> str:
    """Return who sends; an end user where nobody is named."""
    text = sender.value if isinstance(sender, Sender) else sender or "end_user"
    if text not in _SENDERS:
        raise ValueError(f"Invalid sender: {text}. Must be one of: {', '.join(_SENDERS)}")
    return str(text)


def as_text(value: object) -> str | None:
    """Return a result of an action as text; objects as JSON."""
    if value is None or isinstance(value, str):
        return value
    try:
        return encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)
