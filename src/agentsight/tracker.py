"""Record what an agent and its users say and do; send it later, in one request.

Tracking appends to memory (and to a directory, where AGENTSIGHT_SPOOL_DIR names one) and costs
microseconds. Nothing is sent before `send_tracked_data` or `flush`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agentsight._base import SyncClient
from agentsight._current import Current, context_token
from agentsight._items import (
    action_wire,
    button_wire,
    checked_metadata,
    checked_mode,
    checked_sender,
    checked_text,
    new_item,
    opening_item,
)
from agentsight._outbox import Outbox
from agentsight._process import report_at_exit
from agentsight._usage import UsageCounters
from agentsight.config import UNSET
from agentsight.enums import TokenHandlerType
from agentsight.exceptions import (
    ConversationApiException,
    InvalidAnswerDataException,
    InvalidQuestionDataException,
    NoConversationIdException,
    NoDataToSendException,
)
from agentsight.logging import say

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from agentsight._files import File
    from agentsight._operations import Json
    from agentsight._spool import Item
    from agentsight.config import Config
    from agentsight.enums import AttachmentMode, LogLevel, Sender
    from agentsight.types import AttachmentInput

__all__ = ["ConversationTracker", "conversation_tracker"]

_NO_CONVERSATION: Final = (
    "It is not known which conversation this belongs to. Open one in this thread or task with "
    "`with tracker.conversation(id): …` or get_or_create_conversation(id), or set one by "
    "configure(conversation_id=id) or AGENTSIGHT_CONVERSATION_ID. The item is kept and goes out "
    "with the next conversation opened here: do not track it again."
)


class ConversationTracker(SyncClient):
    """Records conversations. Safe to share between threads and asyncio tasks.

    The current conversation is, in this order: the innermost `with conversation(…)` or
    `get_or_create_conversation` of this thread or task; the `conversation_id` of configure, the
    constructor or AGENTSIGHT_CONVERSATION_ID; the only conversation this process has opened, if
    there is just one.

    What cannot be delivered stays and is sent the next time. Every item has a key from the moment
    it is tracked, by which the server stores it once however often it arrives. At most 100,000
    items and about 256 MiB wait; what is tracked beyond is dropped, counted and logged. A process
    that ends with items that were not sent says so once in the log.

    Args:
        api_key: default AGENTSIGHT_API_KEY; its shape is checked at once.
        conversation_id: default AGENTSIGHT_CONVERSATION_ID.
        endpoint: default AGENTSIGHT_API_ENDPOINT, else `http://127.0.0.1:8000`.
        log_level: of the `agentsight` logger; left alone where not given.
        config: settings made before; the other arguments change it.
        **kwargs: further settings, see `agentsight.config.Config`.

    Raises:
        NoApiKeyException: there is no key.
        InvalidApiKeyException: the key has not the shape of a key.
    """

    def __init__(
        self,
        api_key: str | None = None,
        conversation_id: str | None = None,
        endpoint: str | None = None,
        log_level: LogLevel | str | None = None,
        config: Config | None = None,
        **kwargs: Any,
    ) -> None:
        given = {
            "api_key": api_key,
            "conversation_id": conversation_id,
            "endpoint": endpoint,
            "log_level": log_level,
            **kwargs,
        }
        super().__init__(config, given)

    def _begin(self) -> None:
        super()._begin()
        self._current = Current()
        self._usage = UsageCounters()
        self._outbox = Outbox(self, self._usage)

    def configure(
        self,
        api_key: str | None = UNSET,
        conversation_id: str | None = UNSET,
        endpoint: str | None = UNSET,
        log_level: LogLevel | str | None = UNSET,
        **kwargs: Any,
    ) -> None:
        """Change settings of this tracker; what is not given stays.

        Args:
            conversation_id: becomes the current conversation, also in place of what
                `get_or_create_conversation` named in this thread or task; `None` clears it.

        Raises:
            NoApiKeyException: `api_key=None`.
            InvalidApiKeyException: the key has not the shape of a key.
        """
        settings = {"api_key": api_key, "endpoint": endpoint, "log_level": log_level, **kwargs}
        if conversation_id is not UNSET:
            settings["conversation_id"] = conversation_id
        self._configure({name: value for name, value in settings.items() if value is not UNSET})
        if conversation_id is not UNSET:
            self._current.unname()
            if conversation_id is None and self._config is not None:
                self._config.conversation_id = None

    # --- Conversations --------------------------------------------------------------------------

    def initialize_conversation(
        self,
        conversation_id: str,
        customer_id: str | None = None,
        customer_ip_address: str | None = None,
        device: str | None = None,
        source: str | None = None,
        language: str | None = None,
        name: str | None = None,
        environment: str = "development",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Record a visit: the conversation exists but is not used yet (`is_used` false).

        Sent at once. Where the server cannot be reached, it is kept and sent with the next
        `send_tracked_data` of this conversation or `flush`. Does not change the current
        conversation. Existing values are never overwritten.

        Raises:
            MissingConversationIdException: the id is blank.
            ConversationApiException: the server refuses it.
        """
        details = {
            "customer_id": customer_id,
            "customer_ip_address": customer_ip_address,
            "device": device,
            "source": source,
            "language": language,
            "name": name,
            "environment": environment,
            "metadata": metadata,
        }
        from agentsight._delivery import UNWELCOME_STATUSES

        item = self._opening_item(conversation_id, details, is_used=False)
        self._current.opened(str(item.conversation_id))
        if not self._outbox.spool.append(item):
            return
        delivery = self._outbox.send(str(item.conversation_id), only=item)
        for outcome in delivery.outcomes:
            is_refused = outcome.is_final or outcome.status in UNWELCOME_STATUSES
            if outcome.error is not None and is_refused:
                raise ConversationApiException(outcome.error, outcome.status, outcome.response_data)

    def get_or_create_conversation(
        self,
        conversation_id: str,
        customer_id: str | None = None,
        customer_ip_address: str | None = None,
        device: str | None = None,
        source: str | None = None,
        language: str | None = None,
        name: str | None = None,
        environment: str = "development",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Open a conversation, which becomes the current one of this thread or task.

        Recorded like any item and sent with them. Existing values are never overwritten.

        Args:
            conversation_id: your own id, unique for the agent.
            environment: `production`, `development` or a word of your own; AGENTSIGHT_ENVIRONMENT
                wins, where set.

        Raises:
            MissingConversationIdException: the id is blank.
            InvalidConversationDataException: metadata is no JSON object, too large or too deep.
        """
        details = {
            "customer_id": customer_id,
            "customer_ip_address": customer_ip_address,
            "device": device,
            "source": source,
            "language": language,
            "name": name,
            "environment": environment,
            "metadata": metadata,
        }
        item = self._opening_item(conversation_id, details, is_used=True)
        self._open_conversation(item, is_block=False)

    @contextmanager
    def conversation(
        self,
        conversation_id: str,
        customer_id: str | None = None,
        customer_ip_address: str | None = None,
        device: str | None = None,
        source: str | None = None,
        language: str | None = None,
        name: str | None = None,
        environment: str = "development",
        metadata: dict[str, Any] | None = None,
    ) -> Generator[ConversationTracker]:
        """Open a conversation as `get_or_create_conversation` does, for the length of a `with`.

        Leaving it makes the conversation current that was so before. Nothing is sent by that: call
        `send_tracked_data()` inside, or `flush()` whenever you like.
        """
        details = {
            "customer_id": customer_id,
            "customer_ip_address": customer_ip_address,
            "device": device,
            "source": source,
            "language": language,
            "name": name,
            "environment": environment,
            "metadata": metadata,
        }
        item = self._opening_item(conversation_id, details, is_used=True)
        before = self._open_conversation(item, is_block=True)
        try:
            yield self
        finally:
            self._current.restore(before)

    # --- Items ----------------------------------------------------------------------------------

    def track_human_message(
        self,
        message: str,
        attachments: Sequence[AttachmentInput] | None = None,
        attachment_mode: str | AttachmentMode = "base64",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Record what the end user said.

        Args:
            message: text, at most 1 MiB.
            attachments: files sent with it: paths, bytes, open files, or mappings with `data`,
                `filename` and `mime_type`; at most 100. Without a type the server finds it.
            attachment_mode: `base64` or `form_data`; says only whether a string in `data` is
                base64. Files are streamed either way.
            metadata: JSON object, at most 64 KiB and 20 deep.

        Raises:
            InvalidQuestionDataException: the text is blank or too long.
            InvalidAttachmentException: a file cannot be read or is too large.
            InvalidConversationDataException: metadata cannot be sent.
            NoConversationIdException: no conversation is open; the item is kept.
        """
        text = checked_text(message, InvalidQuestionDataException, "question")
        self._track_message("question", "end_user", text, attachments, attachment_mode, metadata)

    def track_agent_message(
        self,
        message: str,
        attachments: Sequence[AttachmentInput] | None = None,
        attachment_mode: str | AttachmentMode = "base64",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Record what the agent said; arguments and errors as for `track_human_message`.

        Raises:
            InvalidAnswerDataException: the text is blank or too long.
        """
        text = checked_text(message, InvalidAnswerDataException, "answer")
        self._track_message("answer", "agent", text, attachments, attachment_mode, metadata)

    def track_attachments(
        self,
        attachments: Sequence[AttachmentInput],
        sender: Sender | str | None = None,
        metadata: dict[str, Any] | None = None,
        mode: str | AttachmentMode = "base64",
    ) -> None:
        """Record files that came without a message.

        Args:
            attachments: as for `track_human_message`.
            sender: `end_user` (default), `agent` or `system`.
            mode: as `attachment_mode` of `track_human_message`.

        Raises:
            InvalidAttachmentException: no files, or one cannot be read or is too large.
            ValueError: an unknown mode or sender.
        """
        files, mode_text = _read_files(attachments, mode)
        wire = {
            "type": "attachments",
            "sender": checked_sender(sender),
            "metadata": checked_metadata(metadata),
        }
        self._track("attachments", wire, files=files, mode=mode_text)

    def track_action(
        self,
        action_name: str,
        started_at: str | None = None,
        ended_at: str | None = None,
        duration_ms: int | None = None,
        tools_used: dict[str, Any] | None = None,
        response: str | None = None,
        error_msg: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Record what the agent did: a tool call, a search, a hand-over.

        Args:
            started_at: ISO text, as `ended_at`; other text is kept as it was typed.
            duration_ms: measured duration, in milliseconds, from 0.
            tools_used: JSON object, at most 64 KiB and 20 deep, as `metadata`.
            response: what came out, at most 1 MiB.
            error_msg: what went wrong, if it did; at most 1 MiB.

        Raises:
            InvalidConversationDataException: the name is blank or over 255 characters, or a value
                cannot be sent; it is also a ValueError and names the limit.
        """
        details: Json = {
            "started_at": started_at,
            "ended_at": ended_at,
            "duration_ms": duration_ms,
            "tools_used": tools_used,
        }
        self._track("action", action_wire(action_name, details, response, error_msg, metadata))

    def track_button(
        self, button_event: str, label: str, value: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Record a click.

        Raises:
            InvalidConversationDataException: one of the three is blank or too long.
        """
        self._track("button", button_wire(button_event, label, value, metadata))

    def track_token_usage(
        self,
        prompt_tokens: int | None = 0,
        completion_tokens: int | None = 0,
        total_tokens: int | None = 0,
        embedding_tokens: int | None = 0,
    ) -> None:
        """Add to the counters of the current conversation; the next send sends and empties them.

        Raises:
            ValueError: a count is no integer, or negative.
        """
        counts = (prompt_tokens, completion_tokens, total_tokens, embedding_tokens)
        self._usage.add(self._find_current() or context_token(), counts)
        report_at_exit(self._outbox)

    def get_token_usage(self) -> dict[str, int]:
        """Return the current conversation's counters since the last send, `{}` if never used."""
        return self._usage.get(self._find_current() or context_token())

    # --- Sending --------------------------------------------------------------------------------

    def send_tracked_data(self) -> dict[str, Any]:
        """Send all that waits of the current conversation, in one request, whole or not at all.

        Files of more than 64 KiB are uploaded before it, and only those whose bytes the agent has
        not; an upload that is cut goes on where it stopped, now or with the next send. More than
        100 files, 10,000 items or 63 MiB of JSON go out as several such requests, in order. Network
        errors, 408, 425, 429 and 5xx are repeated up to three times within 30 s; what then is not
        delivered stays for the next send. For 5 s after that (doubled with every failure, at most
        60 s; or as long as `Retry-After` says) a send answers at once that the items are kept,
        without asking the server; `flush` and `close` do ask it. An item that the server refuses
        for ever is logged, reported here, and dropped, and the rest is sent without it; a detail of
        the conversation that it refuses is left out, logged and named in `fields_refused`.

        Returns:
            `{"items": [{"index", "type", "timestamp", "response", "success": True} or {…, "error",
            "success": False}], "summary": {"questions", "answers", "attachments", "actions",
            "buttons", "errors"}}`. Token usage counts as an action. A message whose files could not
            be read, or are refused, has `attachments_failed` and counts as an error.

        Raises:
            NoDataToSendException: nothing waits.
            NoConversationIdException: something waits, but it is not known which conversation is
                meant.
        """
        from agentsight._summary import sent_report

        self.config  # noqa: B018 - no key is worth more than no data
        conversation_id = self._find_current()
        if conversation_id is None:
            if self.n_waiting:
                raise NoConversationIdException(
                    "It is not known which conversation to send: open one, or send all by flush()."
                )
            raise NoDataToSendException("No tracked data found: no conversation is open.")
        self._adopt(conversation_id)
        delivery = self._outbox.send(conversation_id)
        if not delivery.outcomes:
            raise NoDataToSendException(
                f"No tracked data found for conversation: {conversation_id}"
            )
        return sent_report(delivery.outcomes)

    def flush(self) -> dict[str, dict[str, Any]]:
        """Send all that waits, conversation by conversation; also where a send failed just now.

        Returns:
            What `send_tracked_data` returns, by conversation_id; empty if nothing waits. Where the
            server cannot be reached, conversations after the first are not tried.
        """
        from agentsight._summary import sent_report

        self.config  # noqa: B018 - no key is worth more than no data
        current = self._find_current()
        if current is not None:
            self._adopt(current)
        spool = self._outbox.spool
        waiting = dict.fromkeys([*spool.conversation_ids(), *self._usage.conversation_ids()])
        reports: dict[str, dict[str, Any]] = {}
        for conversation_id in waiting:
            delivery = self._outbox.send(conversation_id, is_urgent=True)
            if delivery.outcomes:
                reports[conversation_id] = sent_report(delivery.outcomes)
            if delivery.is_stopped:
                break
        n_orphans = len(spool.peek(None))
        if n_orphans:
            say("WARNING", "items wait for a conversation to be opened", items=n_orphans)
        return reports

    def get_tracked_data_summary(self) -> dict[str, Any]:
        """Return what waits to be sent of the current conversation, in order; sends nothing.

        Returns:
            `{"items": [{"type", "timestamp", "data", "index", "preview"}], "summary":
            {"conversation", "questions", "answers", "attachments", "actions", "buttons", "total"},
            "conversation_id"}`.
        """
        from agentsight._summary import tracked_report

        conversation_id = self._find_current()
        return tracked_report(self._outbox.spool.peek(conversation_id), conversation_id)

    @property
    def n_waiting(self) -> int:
        """How many items wait or are just being sent, over all conversations.

        Those that an earlier process left in AGENTSIGHT_SPOOL_DIR are taken over and counted.
        """
        return self._outbox.n_waiting

    @property
    def n_dropped(self) -> int:
        """How many items were dropped because too many waited."""
        return self._outbox.n_dropped

    def close(self) -> None:
        """Send what waits, once, and close the connections; other threads' sends end first.

        What cannot be delivered then survives in AGENTSIGHT_SPOOL_DIR if that is set; else it is
        lost, with a ResourceWarning that says how much.
        """
        if self._outbox.is_open and self.n_waiting:
            self.flush()
        super().close()
        self._outbox.leave()

    def __del__(self) -> None:
        super().__del__()
        if hasattr(self, "_outbox"):
            self._outbox.leave()

    # --- How ------------------------------------------------------------------------------------

    def _track_message(
        self,
        kind: str,
        sender: str,
        text: str,
        attachments: Sequence[AttachmentInput] | None,
        attachment_mode: str | AttachmentMode,
        metadata: dict[str, Any] | None,
    ) -> None:
        wire = {
            "type": "message",
            "sender": sender,
            "content": text,
            "metadata": checked_metadata(metadata),
        }
        if attachments:
            files, mode_text = _read_files(attachments, attachment_mode)
            self._track(kind, wire, files=files, mode=mode_text)
        else:
            self._track(kind, wire)

    def _track(self, kind: str, wire: dict[str, Any], **more: Any) -> None:
        conversation_id = self._find_current()
        spool = self._outbox.spool
        if conversation_id is None:
            spool.append(new_item(kind, None, wire, context=context_token(), **more))
            raise NoConversationIdException(_NO_CONVERSATION)
        spool.append(new_item(kind, conversation_id, wire, **more))

    def _opening_item(self, conversation_id: str, details: Json, *, is_used: bool) -> Item:
        environment = self.config.environment
        return opening_item(conversation_id, details, is_used=is_used, environment=environment)

    def _open_conversation(self, item: Item, *, is_block: bool) -> Any:
        conversation_id = str(item.conversation_id)
        spool = self._outbox.spool
        spool.append(item)
        before = self._current.name(conversation_id, is_block=is_block)
        self._current.opened(conversation_id)
        context = context_token()
        spool.adopt(conversation_id, lambda orphan: orphan.context is context)
        self._usage.adopt(conversation_id, context)
        return before

    def _find_current(self) -> str | None:
        named = self._current.named_here()
        if named is not None:
            return named
        return self.config.conversation_id or self._current.only_opened()

    def _adopt(self, conversation_id: str) -> None:
        """Give the current conversation the items that waited for one."""
        context = context_token()
        is_anybodys = self._current.named_here() is None
        self._outbox.spool.adopt(
            conversation_id, lambda orphan: is_anybodys or orphan.context is context
        )
        self._usage.adopt(conversation_id, context)

    def _apply(self) -> None:
        super()._apply()
        config = self._config
        if config is not None and config.token_handler == TokenHandlerType.LLAMAINDEX:
            from agentsight.token_handlers import set_llamaindex_token_handler

            self._usage.watch(set_llamaindex_token_handler(config.log_level))

    def _begin_in_child(self) -> None:
        """After a fork: what waited is the parent's."""
        super()._begin_in_child()
        self._outbox.abandon()
        self._usage.begin_in_child()
        self._outbox = Outbox(self, self._usage)
        self._current.forget_opened()


def _read_files(attachments: object, mode: object) -> tuple[tuple[File, ...], str]:
    from agentsight._files import read_attachments

    mode_text = checked_mode(mode)
    return read_attachments(attachments, mode_text), mode_text


conversation_tracker: Final = ConversationTracker.default_instance()
