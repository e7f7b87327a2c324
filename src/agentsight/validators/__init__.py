"""The checks of 0.0.x on payloads made by hand. The tracker has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentsight._contract import MAX_COMMENT_CHARS
from agentsight.enums import AttachmentMode, Sentiment
from agentsight.exceptions import (
    InvalidAttachmentException,
    InvalidConversationDataException,
    MissingConversationIdException,
)

__all__ = [
    "validate_action_data",
    "validate_and_process_attachments_flexible",
    "validate_button_data",
    "validate_content_data",
    "validate_conversation_data",
    "validate_conversation_id",
    "validate_feedback_data",
    "validate_question_and_answer_data",
]


def validate_conversation_id(data: Mapping[str, Any]) -> None:
    """Raise MissingConversationIdException where `conversation_id` is missing, blank or 0."""
    if not _has(data, "conversation_id"):
        raise MissingConversationIdException


def validate_conversation_data(data: Mapping[str, Any]) -> bool:
    """Say whether there is `content`, or both `question` and `answer`; the id must be there."""
    validate_conversation_id(data)
    return _has(data, "content") or _has(data, "question", "answer")


def validate_question_and_answer_data(data: Mapping[str, Any]) -> bool:
    """Say whether both `question` and `answer` have text."""
    return _has(data, "question", "answer")


def validate_content_data(data: Mapping[str, Any]) -> bool:
    """Say whether `content` has text."""
    return _has(data, "content")


def validate_action_data(data: Mapping[str, Any]) -> bool:
    """Say whether `action_name` has text; the id must be there."""
    validate_conversation_id(data)
    return _has(data, "action_name")


def validate_button_data(data: Mapping[str, Any]) -> bool:
    """Say whether `button_event`, `label` and `value` have text; the id must be there."""
    validate_conversation_id(data)
    return _has(data, "button_event", "label", "value")


def validate_feedback_data(data: Mapping[str, Any]) -> bool:
    """Return True for a feedback that may be sent.

    Raises:
        InvalidConversationDataException: a field is missing, the sentiment unknown, or the comment
            no text or too long.
        MissingConversationIdException: the id is blank.
    """
    for name in ("conversation_id", "sentiment"):
        if name not in data:
            raise InvalidConversationDataException(f"Missing required field: {name}")
    known = [member.value for member in Sentiment]
    if data["sentiment"] not in known:
        raise InvalidConversationDataException(
            f"Invalid sentiment value: {data['sentiment']}. Must be one of: {', '.join(known)}"
        )
    comment = data.get("comment")
    if comment is not None and not isinstance(comment, str):
        raise InvalidConversationDataException("Field 'comment' must be a string")
    if comment and len(comment) > MAX_COMMENT_CHARS:
        raise InvalidConversationDataException(
            f"Field 'comment' cannot exceed {MAX_COMMENT_CHARS} characters"
        )
    validate_conversation_id(data)
    return True


def validate_and_process_attachments_flexible(
    attachments: list[Any], mode: AttachmentMode
) -> list[dict[str, Any]]:
    """Check attachments as 0.0.x did, by mode, and return them as it would have sent them.

    Args:
        attachments: mappings. `base64` needs `filename`, `mime_type` and `data` as base64 text;
            `form_data` needs `data` as bytes or an open file.
        mode: which of the two.

    Raises:
        InvalidAttachmentException: naming the attachment.
    """
    if not attachments:
        raise InvalidAttachmentException("Attachments list cannot be empty")
    if not isinstance(attachments, list):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not typed
        raise InvalidAttachmentException("Attachments must be provided as a list")
    if mode not in (AttachmentMode.BASE64, AttachmentMode.FORM_DATA):
        raise InvalidAttachmentException(f"Invalid mode: {mode}")
    check = _base64_form if mode == AttachmentMode.BASE64 else _form_data_form
    processed: list[dict[str, Any]] = []
    for i, attachment in enumerate(attachments):
        label = f"Attachment {i + 1}"
        if not isinstance(attachment, Mapping):
            raise InvalidAttachmentException(f"{label}: Must be a dictionary with required keys")
        described: dict[str, Any] = dict(attachment)  # pyright: ignore[reportUnknownArgumentType] - whatever callers pass
        processed.append(check(label, described))
    return processed


def _base64_form(label: str, attachment: dict[str, Any]) -> dict[str, Any]:
    from agentsight._files import check_base64_form, decode_base64

    check_base64_form(label, attachment)
    if not isinstance(attachment["data"], str):
        raise InvalidAttachmentException(f"{label}: In base64 mode, 'data' must be a base64 string")
    decode_base64(label, attachment["data"], attachment["filename"])
    return {name: attachment[name] for name in ("filename", "mime_type", "data")}


def _form_data_form(label: str, attachment: dict[str, Any]) -> dict[str, Any]:
    if "data" not in attachment:
        raise InvalidAttachmentException(f"{label} missing required key: 'data'")
    if isinstance(attachment["data"], str):
        raise InvalidAttachmentException(
            f"{label}: In form_data mode, 'data' must be bytes or file-like object, not string"
        )
    mime_type = attachment.get("mime_type") or attachment.pop("content_type", None)
    attachment.pop("content_type", None)
    return attachment | ({"mime_type": mime_type} if mime_type else {})


def _has(data: Mapping[str, Any], *names: str) -> bool:
    return all(str(data.get(name, "") or "").strip() for name in names)
