"""A tracker's way out: what waits, how it is sent, and what becomes of what cannot be."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from agentsight._items import new_item
from agentsight._spool import Item, Spool
from agentsight.logging import say

if TYPE_CHECKING:
    from agentsight._base import Runtime
    from agentsight._delivery import Delivery
    from agentsight._flow import Operation
    from agentsight._usage import UsageCounters
    from agentsight.config import Config
    from agentsight.enums import Environment

T = TypeVar("T")

_LONGEST_PAUSE_S: Final = 3600.0
"""However much longer a server, or a proxy before it, asks us to stay away."""


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
        self._not_before = 0.0

    @property
    def spool(self) -> Spool:
        """What waits."""
        return self._spool or self._open()

    @property
    def n_waiting(self) -> int:
        """How many items wait or are on loan."""
        return 0 if self._spool is None else len(self._spool)

    @property
    def n_dropped(self) -> int:
        """How many items found no room."""
        return 0 if self._spool is None else self._spool.n_dropped

    def send(self, conversation_id: str, only: Item | None = None) -> Delivery:
        """Send what waits of a conversation and keep what is not delivered.

        Args:
            conversation_id: whose.
            only: all where `None`, else this item.
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
            wait_s = self._not_before - tracker.runtime.clock()
            if wait_s > 0:
                told = f"The server asked to wait {wait_s:.0f} s more before the next request"
                return Delivery([Outcome(item, None, told, False) for item in items], True, wait_s)
            environment = plain_environment(tracker.config.environment)
            delivery = tracker.run(deliver(conversation_id, items, environment))
            done = [outcome.item for outcome in delivery.outcomes if outcome.is_final]
            if delivery.retry_after_s is not None:
                pause_s = min(delivery.retry_after_s, _LONGEST_PAUSE_S)
                self._not_before = tracker.runtime.clock() + pause_s
            _tell(delivery)
            return delivery
        finally:
            finished = {item.item_key for item in done}
            back = [pair for pair in borrowed if pair[1].item_key not in finished]
            spool.settle(done, back)

    def leave(self) -> None:
        """Let go of the spool; what is left survives on disk or is lost with a ResourceWarning."""
        with self._lock:
            spool, self._spool = self._spool, None
        if spool is None:
            return
        n_lost = 0 if spool.is_journaled else len(spool)
        spool.close()
        if n_lost:
            warnings.warn(
                f"{n_lost} tracked items were never delivered: call send_tracked_data() or "
                "flush(), or set AGENTSIGHT_SPOOL_DIR",
                ResourceWarning,
                stacklevel=3,
            )

    def abandon(self) -> None:
        """In a forked child: what waits is the parent's."""
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.abandon()

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
            spool = Spool(journal, tell_full=_tell_full)
            if journal is not None:
                for item in journal.recover():
                    spool.append(item, is_journaled=True)
            self._spool = spool
            return spool


def plain_environment(environment: Environment | str | None) -> str | None:
    """Return an environment as the wire has it."""
    return None if environment is None else str(getattr(environment, "value", environment))


def _tell(delivery: Delivery) -> None:
    n_stored = 0
    for outcome in delivery.outcomes:
        item = outcome.item
        for name, reason in outcome.lost_files:
            say("ERROR", "a file cannot be read and was left out", file=name, reason=reason)
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


def _tell_full(n_dropped: int) -> None:
    say("ERROR", "too many items wait to be sent: new ones are dropped", dropped=n_dropped)
