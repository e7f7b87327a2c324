"""A tracker's way out: what waits, how it is sent, and what becomes of what cannot be."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Protocol, TypeVar

from agentsight._items import new_item, plain_environment
from agentsight._pause import Pause, next_pause
from agentsight._process import Unsent, report_at_exit
from agentsight._spool import Item, Spool
from agentsight.exceptions import NoApiKeyException
from agentsight.logging import say

if TYPE_CHECKING:
    from agentsight._base import Runtime
    from agentsight._delivery import Delivery
    from agentsight._flow import Operation
    from agentsight._uploads import Uploads
    from agentsight._usage import UsageCounters
    from agentsight.config import Config

T = TypeVar("T")


class Sender(Protocol):
    """What an outbox needs of its tracker."""

    @property
    def config(self) -> Config: ...
    @property
    def runtime(self) -> Runtime: ...
    def run(self, operation: Operation[T]) -> T: ...


class Outbox:
    """The spool of one tracker, opened when the first item comes. `leave()` it."""

    def __init__(self, sender: Sender, usage: UsageCounters) -> None:
        import weakref

        self._sender = weakref.ref(sender)  # so that a forgotten tracker is noticed at once
        self._usage = usage
        self._spool: Spool | None = None
        self._lock = threading.Lock()
        self._pause: Pause | None = None
        self._uploads: Uploads | None = None

    @property
    def uploads(self) -> Uploads:
        """What is known of files on their way."""
        if self._uploads is None:
            from agentsight._uploads import Uploads

            self._uploads = Uploads()
        return self._uploads

    @property
    def spool(self) -> Spool:
        """What waits."""
        return self._spool or self._open()

    @property
    def is_open(self) -> bool:
        """Whether anything was tracked or taken over."""
        return self._spool is not None

    @property
    def n_waiting(self) -> int:
        """How many items wait or are on loan, those of an earlier process included."""
        if self._spool is None and not self._may_have_items():
            return 0
        return len(self.spool)

    @property
    def n_dropped(self) -> int:
        """How many items found no room."""
        return 0 if self._spool is None else self._spool.n_dropped

    def unsent(self, *, on_disk: bool) -> Unsent:
        """Count what was not sent and will survive the process, or will not."""
        items = [] if self._spool is None else self._spool.unsent(on_disk=on_disk)
        conversations = {item.conversation_id for item in items}
        n_counters = 0 if on_disk else self._usage.n_unsent()
        return Unsent(len(items) + n_counters, len(conversations) or min(n_counters, 1))

    def send(
        self, conversation_id: str, only: Item | None = None, *, is_urgent: bool = False
    ) -> Delivery:
        """Send what waits of a conversation and keep what is not delivered.

        Args:
            conversation_id: whose.
            only: all where `None`, else this item.
            is_urgent: ask the server even where it failed a moment ago.
        """
        from agentsight._delivery import Delivery, Outcome, deliver

        tracker = self._tracker()
        spool = self.spool
        if only is None:
            counters = self._usage.take(conversation_id)
            if counters is not None:
                spool.append(new_item("usage", conversation_id, {"type": "usage", **counters}))
        borrowed = spool.borrow(conversation_id, only)
        items = [item for _, item in borrowed]
        done: list[Item] = []
        try:
            if not items:
                return Delivery([], False, None)
            began_at = tracker.runtime.clock()
            pause = self._pause_at(began_at, is_urgent=is_urgent)
            if pause is not None:
                outcomes = [Outcome(item, None, pause.message(began_at), False) for item in items]
                return Delivery(outcomes, True, pause.until - began_at)
            environment = plain_environment(tracker.config.environment)
            delivery = tracker.run(deliver(conversation_id, items, environment, self.uploads))
            done = [outcome.item for outcome in delivery.outcomes if outcome.is_final]
            self._remember(delivery, began_at)
            _log_delivery(delivery)
            return delivery
        finally:
            finished = {item.item_key for item in done}
            self.uploads.forget(file.item_key for item in done for file in item.files)
            back = [pair for pair in borrowed if pair[1].item_key not in finished]
            spool.settle(done, back)

    def _pause_at(self, now: float, *, is_urgent: bool) -> Pause | None:
        pause = self._pause
        if pause is None or pause.endpoint != self._tracker().config.endpoint or pause.until <= now:
            return None
        return None if is_urgent and not pause.is_asked else pause

    def _remember(self, delivery: Delivery, began_at: float) -> None:
        """Begin a pause where the server failed or asked for one, else end it."""
        tracker = self._tracker()
        if delivery.failure is None and delivery.retry_after_s is None:
            self._pause = None
            return
        endpoint = tracker.config.endpoint
        before = self._pause
        self._pause = next_pause(
            before if before is not None and before.endpoint == endpoint else None,
            endpoint,
            began_at=began_at,
            now=tracker.runtime.clock(),
            reason=delivery.failure or "the server did not answer",
            retry_after_s=delivery.retry_after_s,
        )

    def leave(self) -> None:
        """Let go of the spool; what is left survives on disk or is lost with a ResourceWarning."""
        with self._lock:
            spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's."""
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.abandon()

    def _may_have_items(self) -> bool:
        """Say whether there is a directory in which items of an earlier process may wait."""
        try:
            return self._tracker().config.spool_dir is not None
        except NoApiKeyException:  # a default instance without settings; items belong to a key
            return False

    def _tracker(self) -> Sender:
        tracker = self._sender()
        assert tracker is not None, "an outbox does not outlive its tracker"
        return tracker

    def _open(self) -> Spool:
        config = self._tracker().config
        with self._lock:
            if self._spool is not None:
                return self._spool
            journal = None
            if config.spool_dir is not None:
                from agentsight._journal import Journal

                directory = os.path.abspath(config.spool_dir)
                journal = Journal.open(directory, str(config.api_key), config.endpoint)
            spool = Spool(journal, tell_full=_log_full, tell_lost=_warn_of_lost)
            spool.recover()
            report_at_exit(self)
            self._spool = spool
            return spool


def _log_delivery(delivery: Delivery) -> None:
    for name, reason in delivery.refused_fields:
        say(
            "ERROR", "a detail of a conversation is refused and left out", field=name, reason=reason
        )
    n_stored = 0
    for outcome in delivery.outcomes:
        item = outcome.item
        for name, reason in outcome.lost_files:
            say("ERROR", "a file cannot be sent and was left out", file=name, reason=reason)
        if outcome.error is None:
            n_stored += 1
        elif outcome.is_final:
            said = {"type": item.kind, "item_key": item.item_key, "reason": outcome.error}
            say("ERROR", "an item is refused for ever and set aside", **said)
    waiting = [one for one in delivery.outcomes if one.error is not None and not one.is_final]
    if waiting:
        reason = waiting[0].error
        say("WARNING", "not delivered, kept for the next send", items=len(waiting), reason=reason)
    say("INFO", "tracked data sent", stored=n_stored, items=len(delivery.outcomes))


def _log_full(n_dropped: int) -> None:
    say("ERROR", "too many items wait to be sent: new ones are dropped", dropped=n_dropped)


def _warn_of_lost(n_lost: int) -> None:
    warnings.warn(
        f"{n_lost} tracked items were never delivered: call send_tracked_data() or "
        "flush(), or set AGENTSIGHT_SPOOL_DIR",
        ResourceWarning,
        stacklevel=5,
    )
