"""What comes in, made strict: a conversation by one of its names, and items. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentsight.server.attachments.model import HandedIn
from agentsight.server.conversations.model import Head, NewConversation
from agentsight.server.ids import AttachmentId, ConversationPk, MessageId
from agentsight.server.messages.model import NewMessage


@dataclass(frozen=True, slots=True)
class Target:
    """Which conversation is meant: by row id, by its caller's id, or through a message.

    The first that is given counts, in this order (docs/published-clients.md, "Which conversation
    is meant"). `new` is what a conversation that is not there yet is made with, or None where it
    must be there.
    """

    pk: ConversationPk | None = None
    conversation_id: str | None = None
    message_id: MessageId | None = None
    new: NewConversation | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A message with the files it brings."""

    message: NewMessage
    files: Sequence[HandedIn] = ()


@dataclass(slots=True)
class StoredItem:
    """What became of an item. `detail_id` is the row of its action, click or counters."""

    message_id: MessageId
    detail_id: int | None
    is_repeat: bool
    attachment_ids: list[AttachmentId] = field(default_factory=list[AttachmentId])
    is_erased: bool = False
    """It came too late: what it belongs to was erased after it happened. Nothing is stored."""


@dataclass(slots=True)
class Applied:
    """What became of a unit: conversation, items, the objects that rows now name, bytes spared."""

    head: Head
    items: list[StoredItem]
    object_keys: list[str] = field(default_factory=list[str])
    deduplicated_bytes: int = 0
    is_nowhere: bool = False
    """All of it came too late, and no conversation was made; `head` has the id it named only."""
