"""What a message is: a kind, and for actions and buttons a detail.

An action shows as a message of its agent, `Action <name> performed`, as published readers expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["text", "action", "button", "attachments", "usage"]
Sender = Literal["end_user", "agent", "system"]
SENDERS: tuple[Sender, ...] = ("end_user", "agent", "system")


@dataclass(frozen=True, slots=True)
class ActionDetail:
    """One run of a tool. Times that are no times are kept as typed, in `*_text`.

    `tools_used` and `metadata` are JSON text; `duration_ms` is milliseconds.
    """

    name: str
    started_at: int | None = None
    started_at_text: str | None = None
    ended_at: int | None = None
    ended_at_text: str | None = None
    duration_ms: float | None = None
    tools_used: str | None = None
    response: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class ButtonDetail:
    """One click on a button."""

    event: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class UsageDetail:
    """Token counters. basis `unknown`: a published client's running totals; `delta`: since last."""

    basis: Literal["unknown", "delta"]
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    embedding_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored; `metadata` is JSON text, `timestamp` µs since 1970 UTC.

    `is_repeat_lasting` says how long `item_key` is honoured: for ever (ours) or for the window in
    which published clients resend.
    """

    kind: Kind
    sender: Sender
    content: str
    timestamp: int
    metadata: str | None = None
    item_key: str | None = None
    is_repeat_lasting: bool = True
    external_id: str | None = None
    author: str | None = None
    action: ActionDetail | None = None
    button: ButtonDetail | None = None
    usage: UsageDetail | None = None


# Structs where many are made for one answer: a frozen dataclass takes 18 times as long to make.
class ActionRow(msgspec.Struct, frozen=True, gc=False):
    """An action as it is read."""

    action_id: int
    name: str
    started_at: int | None
    started_at_text: str | None
    ended_at: int | None
    ended_at_text: str | None
    duration_ms: float | None
    tools_used: str | None
    response: str | None
    error_message: str | None
    metadata: str | None


class ButtonRow(msgspec.Struct, frozen=True, gc=False):
    """A click as it is read."""

    button_id: int
    event: str
    label: str
    value: str
    metadata: str | None


class MessageRow(msgspec.Struct):
    """A message as it is read, with its details."""

    message_id: int
    uid: str
    conversation_pk: int
    kind: Kind
    sender: str
    author: str | None
    external_id: str | None
    content: str
    metadata: str | None
    timestamp: int
    actions: list[ActionRow] = msgspec.field(default_factory=list[ActionRow])
    button: ButtonRow | None = None


def action_content(name: str) -> str:
    """Return the text that an action shows in a transcript."""
    return f"Action {name} performed"
