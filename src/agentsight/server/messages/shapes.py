"""What messages look like outside (docs/published-clients.md, "Answers")."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from agentsight.server.attachments.shapes import AttachmentShape
from agentsight.server.messages.model import ActionRow, MessageRow
from agentsight.server.times import to_datetime, to_text
from agentsight.server.web.shapes import raw_json


class ActionLogShape(msgspec.Struct):
    """One run of a tool. Times are ISO 8601, or the text that was typed where it is no time."""

    id: int
    message: int
    action_name: str
    started_at: str | None
    ended_at: str | None
    duration_ms: float | None
    tools_used: msgspec.Raw | None
    response: str | None
    error_message: str
    metadata: msgspec.Raw


class ButtonShape(msgspec.Struct):
    """One click."""

    id: int
    button_event: str
    label: str
    value: str
    metadata: msgspec.Raw


class MessageShape(msgspec.Struct, kw_only=True):
    """One message of a transcript with its files and details."""

    id: int
    uid: str
    conversation: int
    timestamp: datetime
    sender: str
    author: str | None
    external_id: str | None
    kind: str
    content: str
    action_name: str | None
    metadata: msgspec.Raw
    attachments: list[AttachmentShape]
    action_logs: list[ActionLogShape]
    button: ButtonShape | None


def _shown_time(time_us: int | None, text: str | None) -> str | None:
    return to_text(time_us) if time_us is not None else text


def shape_action(message_id: int, row: ActionRow) -> ActionLogShape:
    """Show an action's detail."""
    return ActionLogShape(
        row.action_id,
        message_id,
        row.name,
        _shown_time(row.started_at, row.started_at_text),
        _shown_time(row.ended_at, row.ended_at_text),
        _number(row.duration_ms),
        None if row.tools_used is None else raw_json(row.tools_used),
        row.response,
        row.error_message or "",
        raw_json(row.metadata),
    )


def _number(value: float | None) -> float | None:
    # A whole number of milliseconds is shown as one: gen A sends and expects integers.
    return int(value) if value is not None and value.is_integer() else value


def shape_button(row: MessageRow) -> ButtonShape | None:
    """Show a click's detail, or None for other messages."""
    button = row.button
    if button is None:
        return None
    return ButtonShape(
        button.button_id, button.event, button.label, button.value, raw_json(button.metadata)
    )


def shape_message(row: MessageRow, files: Sequence[AttachmentShape]) -> MessageShape:
    """Show a message with its files."""
    return MessageShape(
        id=row.message_id,
        uid=row.uid,
        conversation=row.conversation_pk,
        timestamp=to_datetime(row.timestamp),
        sender=row.sender,
        author=row.author,
        external_id=row.external_id,
        kind=row.kind,
        content=row.content,
        action_name=row.actions[0].name if row.actions else None,
        metadata=raw_json(row.metadata),
        attachments=list(files),
        action_logs=[shape_action(row.message_id, action) for action in row.actions],
        button=shape_button(row),
    )
