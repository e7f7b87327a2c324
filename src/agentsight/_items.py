"""Arguments of the track calls, checked and turned into items. Bad ones raise here, at the call."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from agentsight._contract import MAX_METADATA_BYTES, MAX_METADATA_DEPTH, MAX_TEXT_BYTES
from agentsight._operations import Json, encode
from agentsight._spool import Item
from agentsight.enums import AttachmentMode, Sender
from agentsight.exceptions import InvalidConversationDataException, MissingConversationIdException

_MODES: Final = {"base64": "base64", "form_data": "form_data", "form-data": "form_data"}
_SENDERS: Final = ("end_user", "agent", "system")


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
    if len(body) > MAX_METADATA_BYTES and wire.get("metadata"):  # else it cannot be too large
        n_bytes = len(encode(wire["metadata"]))
        if n_bytes > MAX_METADATA_BYTES:
            raise InvalidConversationDataException(
                f"metadata has {n_bytes} bytes as JSON; at most {MAX_METADATA_BYTES}"
            )
    return Item(kind, conversation_id, item_key, timestamp, body, **more)


def checked_conversation_id(conversation_id: object) -> str:
    """Return a conversation's id as text; MissingConversationIdException where it is blank."""
    text = str(conversation_id or "").strip()
    if not text:
        raise MissingConversationIdException
    return conversation_id if isinstance(conversation_id, str) else text


def checked_text(text: object, error: type[Exception], what: str) -> str:
    """Return a message's text; numbers become text, anything else that is no text raises."""
    if not isinstance(text, (str, int, float)) or not str(text or "").strip():
        raise error(f"Invalid {what} data provided: the message must be text and not blank")
    text = str(text)
    if len(text) > MAX_TEXT_BYTES // 4 and len(text.encode("utf-8", "replace")) > MAX_TEXT_BYTES:
        raise error(f"Invalid {what} data provided: the text has over {MAX_TEXT_BYTES} bytes")
    return text


def checked_name(value: object, what: str) -> str:
    """Return a text that must not be blank, such as an action's name."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidConversationDataException(f"{what} cannot be empty")
    return value


def checked_metadata(metadata: object) -> Json:
    """Return metadata; it must be a JSON object, at most 20 deep. `new_item` looks at its size."""
    if not metadata:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidConversationDataException(
            f"metadata must be a dictionary, not {type(metadata).__name__}"
        )
    fields: Json = dict(metadata)  # pyright: ignore[reportUnknownArgumentType]
    if any(isinstance(value, (Mapping, list, tuple)) for value in fields.values()):
        _check_depth(fields, 1)
    return fields


def _check_depth(value: object, depth: int) -> None:
    if depth > MAX_METADATA_DEPTH:
        raise InvalidConversationDataException(
            f"metadata is nested over {MAX_METADATA_DEPTH} deep, or in a circle"
        )
    if isinstance(value, Mapping):
        for one in value.values():  # pyright: ignore[reportUnknownVariableType]
            _check_depth(one, depth + 1)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, (list, tuple)):
        for one in value:  # pyright: ignore[reportUnknownVariableType]
            _check_depth(one, depth + 1)  # pyright: ignore[reportUnknownArgumentType]


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
