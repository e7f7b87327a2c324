"""The bodies that gen A's write routes and our batch take, as they come. No rules here.

Gen A's are described in docs/published-clients.md, "Bodies".

Fields that published clients fill loosely are `Scalar`: what a refusal would lose is read as text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentsight.server.web.fields import Scalar

Metadata = dict[str, Any] | None


class ConversationBody(msgspec.Struct):
    """A conversation to open, or to fill where it is there already. Only its id is needed."""

    conversation_id: Scalar = None
    timestamp: Scalar = None
    customer_id: Scalar = None
    customer_ip_address: Scalar = None
    device: Scalar = None
    source: Scalar = None
    language: Scalar = None
    name: Scalar = None
    environment: Scalar = None
    metadata: Metadata = None
    is_used: bool | None = None


class ItemBody(msgspec.Struct):
    """What all tracked items of gen A have in common."""

    timestamp: Scalar = None
    conversation: Scalar = None
    conversation_id: Scalar = None
    metadata: Metadata = None
    item_key: Scalar = None


class TrackBody(ItemBody):
    """A message."""

    content: Scalar = None
    sender: Scalar = None
    external_id: Scalar = None
    author: Scalar = None


class ActionBody(ItemBody):
    """A run of a tool; gen A writes `error_msg` and reads `error_message`."""

    action_name: Scalar = None
    started_at: Scalar = None
    ended_at: Scalar = None
    duration_ms: Scalar = None
    tools_used: Any = None
    response: Any = None
    error_msg: Scalar = None
    error_message: Scalar = None


class ButtonBody(ItemBody):
    """A click."""

    button_event: Scalar = None
    label: Scalar = None
    value: Scalar = None


class FileBody(msgspec.Struct):
    """A file in a JSON body: strict base64 in `data`, a multipart `part`, or an `upload`'s uid."""

    filename: Scalar = None
    mime_type: Scalar = None
    data: str | None = None
    part: str | None = None
    upload: str | None = None
    item_key: Scalar = None
    metadata: Metadata = None


class AttachmentsBody(ItemBody):
    """Files, on their own or for a message that is there already."""

    message: Scalar = None
    sender: Scalar = None
    mode: Scalar = None
    attachments: list[FileBody] | None = None


class BatchItem(msgspec.Struct, kw_only=True):
    """One item of a batch; `type` says which of the fields count."""

    type: str
    item_key: Scalar = None
    timestamp: Scalar = None
    metadata: Metadata = None
    sender: Scalar = None
    content: Scalar = None
    external_id: Scalar = None
    author: Scalar = None
    attachments: list[FileBody] | None = None
    action_name: Scalar = None
    started_at: Scalar = None
    ended_at: Scalar = None
    duration_ms: Scalar = None
    tools_used: Any = None
    response: Any = None
    error_message: Scalar = None
    button_event: Scalar = None
    label: Scalar = None
    value: Scalar = None
    model: Scalar = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    embedding_tokens: int | None = None


class BatchBody(msgspec.Struct):
    """A conversation and what happened in it, applied whole or not at all."""

    conversation: ConversationBody
    items: list[BatchItem] = msgspec.field(default_factory=list[BatchItem])
