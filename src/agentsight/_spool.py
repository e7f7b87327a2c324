"""What was tracked and not yet delivered: ordered, bounded, and on disk where a directory is given.

Bounds are soft by one item: a full spool refuses new items, counts them and says so; one large item
always fits into an empty one. Items leave the spool only when the server has stored or refused
them; while they are being sent they are on loan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from agentsight._contract import MIB

if TYPE_CHECKING:
    from agentsight._files import File
    from agentsight._journal import Journal

MAX_ITEMS: Final = 100_000
MAX_BYTES: Final = 256 * MIB


class Item(NamedTuple):
    """One thing that was tracked."""

    kind: str
    """conversation, question, answer, attachments, action, button or usage."""
    conversation_id: str | None
    item_key: str
    timestamp: str
    body: bytes
    """The item as the wire has it, as JSON, without its files."""
    files: tuple[File, ...] = ()
    mode: str | None = None
    context: object = None
    """Where no conversation was known: the context that may still name it."""

    def held_bytes(self) -> int:
        """Return how much memory the item keeps."""
        return len(self.body) + sum(file.source.held_bytes for file in self.files)


class Spool:
    """Items in the order they were tracked, by conversation; safe for threads."""

    def __init__(
        self,
        journal: Journal | None = None,
        *,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        tell_full: Callable[[int], None] = lambda _: None,
        tell_lost: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._lock = threading.Lock()
        self._journal = journal
        self._waiting: dict[str | None, dict[int, Item]] = {}
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._tell_full = tell_full
        self._tell_lost = tell_lost
        self._on_loan: dict[str, Item] = {}
        self._is_closing = False
        self._n_items = 0
        self._n_bytes = 0
        self._next_number = 0
        self.n_dropped = 0

    def append(self, item: Item) -> bool:
        """Keep an item; False where the spool is full and the item was dropped and counted."""
        with self._lock:
            if self._n_items >= self._max_items or self._n_bytes >= self._max_bytes:
                self.n_dropped += 1
                n_dropped = self.n_dropped
            else:
                if self._journal is not None:
                    item = self._journal.put(item)
                self._keep(item)
                return True
        for file in item.files:
            file.source.close()
        if n_dropped & (n_dropped - 1) == 0:  # the first, second, fourth, …: loud, not noisy
            self._tell_full(n_dropped)
        return False

    def recover(self) -> None:
        """Take over what dead processes left in the journal's directory, up to half the bounds.

        The other half is room for new items; what finds none stays on disk for a later process.
        """
        with self._lock:
            if self._journal is not None:
                for item in self._journal.recover(self._max_items // 2, self._max_bytes // 2):
                    self._keep(item)

    def borrow(
        self, conversation_id: str | None, only: Item | None = None
    ) -> list[tuple[int, Item]]:
        """Take the waiting items of a conversation to send them; nobody else gets them meanwhile.

        Args:
            conversation_id: whose.
            only: all where `None`, else this one.
        """
        with self._lock:
            items = self._waiting.pop(conversation_id, {})
            if only is not None:
                left = {n: item for n, item in items.items() if item.item_key != only.item_key}
                items = {n: item for n, item in items.items() if n not in left}
                if left:
                    self._waiting[conversation_id] = left
            self._on_loan |= {item.item_key: item for item in items.values()}
            return list(items.items())

    def settle(self, done: Iterable[Item], back: Iterable[tuple[int, Item]]) -> None:
        """End a loan: forget what is `done`, put `back` what is not, in its old place."""
        done, back = list(done), list(back)
        with self._lock:
            for item in (*done, *(item for _, item in back)):
                self._on_loan.pop(item.item_key, None)
            self._n_items -= len(done)
            self._n_bytes -= sum(item.held_bytes() for item in done)
            if back:
                conversation_id = back[0][1].conversation_id
                merged = dict(back) | self._waiting.get(conversation_id, {})
                self._waiting[conversation_id] = dict(sorted(merged.items()))
            if self._journal is not None and done:
                self._journal.forget([item.item_key for item in done])
        for item in done:
            for file in item.files:
                file.source.close()
        if self._is_closing:
            self.close()

    def adopt(self, conversation_id: str, is_wanted: Callable[[Item], bool]) -> int:
        """Give items without a conversation to one, where wanted; return how many."""
        with self._lock:
            orphans = self._waiting.get(None, {})
            adopted = {number: item for number, item in orphans.items() if is_wanted(item)}
            for number, item in adopted.items():
                del orphans[number]
                item = item._replace(conversation_id=conversation_id, context=None)
                self._waiting.setdefault(conversation_id, {})[number] = item
                if self._journal is not None:
                    self._journal.adopt(item.item_key, conversation_id)
            if adopted:
                waiting = self._waiting[conversation_id]
                self._waiting[conversation_id] = dict(sorted(waiting.items()))
            if not orphans:
                self._waiting.pop(None, None)
            return len(adopted)

    def peek(self, conversation_id: str | None) -> list[Item]:
        """Return the waiting items of a conversation; they stay."""
        with self._lock:
            return list(self._waiting.get(conversation_id, {}).values())

    def conversation_ids(self) -> list[str]:
        """Return the conversations that have waiting items, the longest waiting first."""
        with self._lock:
            firsts = [(min(items), key) for key, items in self._waiting.items() if key and items]
            return [key for _, key in sorted(firsts)]

    def __len__(self) -> int:
        return self._n_items

    def unsent(self, *, on_disk: bool) -> list[Item]:
        """Return what waits or is on loan and survives on disk, or does not."""
        with self._lock:
            held = [item for items in self._waiting.values() for item in items.values()]
            return [
                item
                for item in (*held, *self._on_loan.values())
                if on_disk is (self._journal is not None and self._journal.has(item.item_key))
            ]

    def abandon(self) -> None:
        """In a forked child: the items, their files and the journal are the parent's."""
        if self._journal is not None:
            self._journal.abandon()

    def close(self) -> None:
        """Let go of files and of the journal, which keeps what was not delivered.

        What is on loan is waited for: the end of the last loan then does it. What is lost by it is
        counted and told.
        """
        with self._lock:
            self._is_closing = True
            if self._on_loan:
                return
            n_lost = 0
            for item in [item for items in self._waiting.values() for item in items.values()]:
                if self._journal is None or not self._journal.has(item.item_key):
                    n_lost += 1
                    for file in item.files:
                        file.source.close()
            self._waiting.clear()
            self._n_items = self._n_bytes = 0
            if self._journal is not None:
                self._journal.close()
                self._journal = None
        if n_lost:
            self._tell_lost(n_lost)

    def _keep(self, item: Item) -> None:
        self._next_number += 1
        self._waiting.setdefault(item.conversation_id, {})[self._next_number] = item
        self._n_items += 1
        self._n_bytes += item.held_bytes()
