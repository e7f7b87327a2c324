"""What comes in, made strict: a conversation by one of its names, and items. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentsight.server.attachments.model import ReceivedFile
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
    files: Sequence[ReceivedFile] = ()


@dataclass(slots=True)
class StoredItem:
    """What became of an item. `detail_id` is the row of its action, click or counters."""

    message_id: MessageId
    detail_id: int | None
    is_repeat: bool
    attachment_ids: list[AttachmentId] = field(default_factory=list[AttachmentId])


@dataclass(slots=True)
class Applied:
    """What became of a unit: the conversation, its items, the objects that rows now name."""

    head: Head
    items: list[StoredItem]
    object_keys: list[str] = field(default_factory=list[str])
