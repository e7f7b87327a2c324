"""Turn bodies into items: checked, cut to the limits, mended. Pure but for the time it is given."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from agentsight import _contract as contract
from agentsight.server.agents.model import clean_environment
from agentsight.server.conversations.model import NewConversation, country_of
from agentsight.server.ids import ConversationPk
from agentsight.server.ingest.bodies import (
    ActionBody,
    BatchItem,
    ButtonBody,
    ConversationBody,
    ItemBody,
    Metadata,
    TrackBody,
)
from agentsight.server.ingest.model import Target
from agentsight.server.messages.model import (
    SENDERS,
    ActionDetail,
    ButtonDetail,
    NewMessage,
    Sender,
    UsageDetail,
    action_content,
)
from agentsight.server.problems import invalid, required
from agentsight.server.settings import Settings
from agentsight.server.web.fields import (
    Scalar,
    is_deeper,
    json_text,
    long_text,
    optional_text,
    reference_id,
    reference_text,
    required_text,
    scalar_text,
    time_field,
    typed_time,
)

COUNTERS_ACTION = "token_usage"
"""As this action gen A sends its counters (docs/published-clients.md, "Bodies")."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads bodies under this server's limits; `now_us` stands in for times that are missing."""

    settings: Settings
    now_us: int

    def conversation(self, body: ConversationBody) -> NewConversation:
        """Read a conversation to open.

        Raises:
            Problem: 400 when its id is missing or a field is too long.
        """
        conversation_id = reference_text(body.conversation_id)
        if conversation_id is None:
            raise required("conversation_id")
        ip_address = optional_text(body.customer_ip_address, "customer_ip_address")
        return NewConversation(
            conversation_id,
            clean_environment(scalar_text(body.environment)),
            time_field(body.timestamp, "timestamp", self.now_us),
            customer_id=optional_text(body.customer_id, "customer_id"),
            customer_ip_address=ip_address,
            device=optional_text(body.device, "device"),
            source=optional_text(body.source, "source"),
            language=optional_text(body.language, "language"),
            name=optional_text(body.name, "name", contract.MAX_NAME_CHARS),
            metadata=self.metadata(body.metadata),
            is_used=bool(body.is_used),
            country=country_of(ip_address) if self.settings.geoip else None,
        )

    def target(self, body: ItemBody, *, is_made: bool = True) -> Target:
        """Read which conversation an item of gen A means.

        The rule is in docs/published-clients.md, "Which conversation is meant".

        Raises:
            Problem: 400 when it names none; 404 when the row id can be none.
        """
        pk = reference_id(body.conversation)
        if pk is not None:
            return Target(pk=ConversationPk(pk))
        conversation_id = reference_text(body.conversation_id)
        if conversation_id is None:
            return Target()
        new = None
        if is_made:
            started_at = time_field(body.timestamp, "timestamp", self.now_us)
            new = NewConversation(
                conversation_id, clean_environment(None), started_at, is_used=True
            )
        return Target(conversation_id=conversation_id, new=new)

    def message(self, body: TrackBody | BatchItem, *, has_files: bool = False) -> NewMessage:
        """Read a message; one that brings files may be without text."""
        content = long_text(body.content, "content", self.settings.max_text_bytes)
        if not content and not has_files:
            raise required("content")
        return NewMessage(
            "text",
            read_sender(body.sender),
            content or contract.ATTACHMENT_CONTENT,
            self.time(body.timestamp),
            self.metadata(body.metadata),
            item_key=optional_text(body.item_key, "item_key"),
            external_id=optional_text(body.external_id, "external_id"),
            author=optional_text(body.author, "author"),
        )

    def files_message(
        self, sender: Scalar, timestamp: Scalar, metadata: Metadata, item_key: Scalar
    ) -> NewMessage:
        """Read the message that exists only to hold files."""
        return NewMessage(
            "attachments",
            read_sender(sender),
            contract.ATTACHMENT_CONTENT,
            self.time(timestamp),
            self.metadata(metadata),
            item_key=optional_text(item_key, "item_key"),
        )

    def action(self, body: ActionBody | BatchItem) -> NewMessage:
        """Read a run of a tool; gen A's `token_usage` becomes counters of unknown basis."""
        name = required_text(body.action_name, "action_name", contract.MAX_NAME_CHARS)
        if name == COUNTERS_ACTION and isinstance(body, ActionBody):
            return self._token_usage(body)
        error = body.error_message
        if error is None and isinstance(body, ActionBody):
            error = body.error_msg
        limit = self.settings.max_text_bytes
        detail = ActionDetail(
            name,
            *typed_time(body.started_at),
            *typed_time(body.ended_at),
            read_duration(body.duration_ms),
            self.metadata(body.tools_used, "tools_used"),
            long_text(self._response_text(body.response), "response", limit),
            long_text(error, "error_message", limit),
        )
        return NewMessage(
            "action",
            "agent",
            action_content(name),
            self.time(body.timestamp),
            self.metadata(body.metadata),
            item_key=optional_text(body.item_key, "item_key"),
            action=detail,
        )

    def _response_text(self, value: Any) -> Scalar:
        # What a tool answers is text to us; an object is kept as its JSON.
        if value is None or isinstance(value, str | int | float | bool):
            return value
        depth = self.settings.max_metadata_depth
        if is_deeper(value, depth):
            raise invalid("response", f"Nest at most {depth} levels (max_metadata_depth).")
        return msgspec.json.encode(value).decode()

    def _token_usage(self, body: ActionBody) -> NewMessage:
        counters = body.metadata or {}
        detail = UsageDetail(
            "unknown",
            None,
            _counter(counters.get("prompt_tokens")),
            _counter(counters.get("completion_tokens")),
            _counter(counters.get("total_tokens")),
            _counter(counters.get("embedding_tokens")),
        )
        return self._usage_message(body, detail)

    def usage(self, body: BatchItem) -> NewMessage:
        """Read what was used since the last send."""
        detail = UsageDetail(
            "delta",
            optional_text(body.model, "model"),
            read_counter(body.prompt_tokens, "prompt_tokens"),
            read_counter(body.completion_tokens, "completion_tokens"),
            read_counter(body.total_tokens, "total_tokens"),
            read_counter(body.embedding_tokens, "embedding_tokens"),
        )
        return self._usage_message(body, detail)

    def _usage_message(self, body: ActionBody | BatchItem, detail: UsageDetail) -> NewMessage:
        return NewMessage(
            "usage",
            "agent",
            "Token usage",
            self.time(body.timestamp),
            self.metadata(body.metadata),
            item_key=optional_text(body.item_key, "item_key"),
            usage=detail,
        )

    def button(self, body: ButtonBody | BatchItem) -> NewMessage:
        """Read a click, which shows in the transcript as its label."""
        limit = self.settings.max_text_bytes
        label = long_text(body.label, "label", limit) or ""
        if not label.strip():
            raise required("label")
        detail = ButtonDetail(
            required_text(body.button_event, "button_event"),
            label,
            long_text(body.value, "value", limit) or "",
        )
        return NewMessage(
            "button",
            "end_user",
            label,
            self.time(body.timestamp),
            self.metadata(body.metadata),
            item_key=optional_text(body.item_key, "item_key"),
            button=detail,
        )

    def time(self, value: Scalar) -> int:
        """Read an item's time; missing is now."""
        return time_field(value, "timestamp", self.now_us)

    def metadata(self, value: Any, field: str = "metadata") -> str | None:
        """Read an object of free form into JSON text; an empty one is none."""
        if value == {}:
            return None
        limits = (self.settings.max_metadata_bytes, self.settings.max_metadata_depth)
        return json_text(value, field, *limits)


def read_sender(value: Scalar) -> Sender:
    """Read who speaks; missing is the end user.

    Raises:
        Problem: 400 for anybody else than end_user, agent and system.
    """
    text = (scalar_text(value) or "end_user").strip().lower()
    sender: Sender | None = next((known for known in SENDERS if known == text), None)
    if sender is None:
        raise invalid("sender", f"Send one of {', '.join(SENDERS)}.")
    return sender


def read_duration(value: Scalar) -> float | None:
    """Read milliseconds.

    Raises:
        Problem: 400 when it is no number from 0.
    """
    if value is None or value == "":
        return None
    try:
        duration = float(value)
    except (ValueError, OverflowError):
        duration = -1.0
    if isinstance(value, bool) or not 0 <= duration < 1e15:
        raise invalid("duration_ms", "Send milliseconds as a number from 0.")
    return duration


def read_counter(value: int | None, field: str) -> int | None:
    """Read a token counter.

    Raises:
        Problem: 400 when it is negative or past 2^53.
    """
    if value is not None and not 0 <= value <= contract.MAX_ROW_ID:
        raise invalid(field, "Send a whole number from 0 to 2^53.")
    return value


def _counter(value: Any) -> int | None:
    # gen A's counters sit in free metadata: what is no counter is left out, not refused.
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return value if is_count and 0 <= value <= contract.MAX_ROW_ID else None


def repeat_key(route: str, body: Any, *more: str) -> str:
    """Make the key by which a published client's resend is recognised.

    SHA-256 of the route and the canonical body; the caller honours it for a window only, and only
    where the body has a timestamp of its own.
    """
    digest = hashlib.sha256(route.encode())
    digest.update(msgspec.json.encode(body, order="deterministic"))
    for text in more:
        digest.update(b"\0" + text.encode())
    return f"a:{digest.hexdigest()}"
