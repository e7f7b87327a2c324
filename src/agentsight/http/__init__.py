"""The HTTP client of 0.0.x, for code that sends payloads of its own to the frozen routes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentsight import _contract as contract
from agentsight._base import SyncClient
from agentsight._files import Field, Multipart, read_attachments
from agentsight._flow import Operation, Request
from agentsight._operations import Json, call, encode, error_of, query, read_object
from agentsight.config import Config
from agentsight.exceptions import InvalidConversationDataException
from agentsight.helpers import get_iso_timestamp
from agentsight.validators import (
    validate_action_data,
    validate_button_data,
    validate_conversation_data,
    validate_conversation_id,
    validate_feedback_data,
)

__all__ = ["HTTPClient"]

_PATH_BY_TYPE: Final = {
    "full": contract.TRACK_PATH,
    "question": contract.TRACK_PATH,
    "answer": contract.TRACK_PATH,
    "action": contract.ACTION_LOGS_PATH,
    "button": contract.BUTTONS_PATH,
    "attachments": contract.ATTACHMENTS_PATH,
    "conversation": contract.CONVERSATIONS_PATH,
    "feedback": contract.FEEDBACKS_PATH,
}
_CHECK_BY_TYPE: Final = {
    "full": (validate_conversation_data, "conversation"),
    "question": (validate_conversation_data, "conversation"),
    "answer": (validate_conversation_data, "conversation"),
    "action": (validate_action_data, "action"),
    "button": (validate_button_data, "button"),
    "feedback": (validate_feedback_data, "feedback"),
}
_JSON_TIMEOUT_S: Final = 15.0
_BASE64_TIMEOUT_S: Final = 30.0
_FORM_TIMEOUT_S: Final = 45.0


class HTTPClient(SyncClient):
    """Sends what it is given to the routes of 0.0.x, each in a request of its own.

    Every payload carries a timestamp, by which the server recognises a repetition for 15 minutes.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, {})

    def send_payload(self, payload_type: str, data: Mapping[str, Any]) -> Json:
        """POST a payload to the route of its type.

        Args:
            payload_type: full, question, answer, action, button, attachments, conversation or
                feedback.
            data: the payload; a `timestamp` is added where it has none.

        Raises:
            ValueError: an unknown type.
            InvalidConversationDataException, MissingConversationIdException: a field is missing.
            ConversationApiException: the server refuses.
            ConversationNetworkException: no answer, or none that can be understood.
        """
        if payload_type not in _PATH_BY_TYPE:
            raise ValueError(
                f"Unknown payload type {payload_type!r}; there are {', '.join(_PATH_BY_TYPE)}"
            )
        if payload_type in _CHECK_BY_TYPE:
            check, what = _CHECK_BY_TYPE[payload_type]
            if not check(data):
                raise InvalidConversationDataException(f"Invalid {what} data provided.")
        else:
            validate_conversation_id(data)
        payload = encode({"timestamp": get_iso_timestamp(), **data})
        request = Request(
            "POST",
            _PATH_BY_TYPE[payload_type],
            content=payload,
            headers=(("Content-Type", "application/json"),),
            timeout_s=_BASE64_TIMEOUT_S if payload_type == "attachments" else _JSON_TIMEOUT_S,
        )
        return self.run(_send(request, payload_type))

    def send_form_data_payload(
        self,
        attachments: Sequence[Any],
        conversation_id: object,
        sender: str | None = "end_user",
        metadata: Mapping[str, Any] | None = None,
        timestamp: str | None = None,
    ) -> Json:
        """POST files as a streamed form; `conversation_id` is the database id."""
        return self._send_form(attachments, conversation_id, sender, metadata, timestamp, None)

    def send_form_data_payload_with_message(
        self,
        attachments: Sequence[Any],
        message_id: int,
        conversation_id: object,
        sender: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> Json:
        """POST files as a streamed form, as attachments of a message."""
        return self._send_form(attachments, conversation_id, sender, metadata, None, message_id)

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        """GET a path."""
        return self.run(call("GET", path, params=query(params or {})))

    def post(self, path: str, params: Mapping[str, Any] | None = None, data: object = None) -> Json:
        """POST JSON to a path; not repeated where it may have arrived."""
        return self.run(
            call("POST", path, params=query(params or {}), body=data, is_repeatable=False)
        )

    def patch(
        self, path: str, params: Mapping[str, Any] | None = None, data: object = None
    ) -> Json:
        """PATCH a path with JSON."""
        return self.run(call("PATCH", path, params=query(params or {}), body=data))

    def delete(
        self, path: str, params: Mapping[str, Any] | None = None, data: object = None
    ) -> Json:
        """DELETE a path; not repeated where it may have arrived."""
        return self.run(
            call("DELETE", path, params=query(params or {}), body=data, is_repeatable=False)
        )

    def _send_form(
        self,
        attachments: Sequence[Any],
        conversation_id: object,
        sender: str | None,
        metadata: Mapping[str, Any] | None,
        timestamp: str | None,
        message_id: int | None,
    ) -> Json:
        fields: dict[str, object] = {
            "timestamp": timestamp or get_iso_timestamp(),
            "conversation": conversation_id,
            "sender": getattr(sender, "value", sender),
            "mode": "form_data",
            "metadata": json.dumps(metadata or {}),
        }
        texts = [
            Field(name, str(value).encode()) for name, value in fields.items() if value is not None
        ]
        files = read_attachments(list(attachments), "form_data")
        named = [(f"attachment_{i}", file) for i, file in enumerate(files)]
        last = [] if message_id is None else [Field("message", str(message_id).encode())]
        form = Multipart([*texts, *named, *last])
        request = Request(
            "POST", contract.ATTACHMENTS_PATH, content=form, timeout_s=_FORM_TIMEOUT_S
        )
        return self.run(_send(request, "attachments"))


def _send(request: Request, payload_type: str) -> Operation[Json]:
    reply = yield request
    if reply.status in (200, 201):
        return read_object(reply, f"POST {request.path}")
    raise error_of(reply, payload_type)
