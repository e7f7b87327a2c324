"""Token counters by conversation: what was used since the last send, and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from agentsight._contract import MAX_ROW_ID

if TYPE_CHECKING:
    from agentsight.types import TokenHandler

COUNTERS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "embedding_tokens")


class UsageCounters:
    """Counters of one tracker; the key is a conversation_id, or what stands for a context."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts_by_key: dict[object, list[int]] = {}
        self._is_used = False
        self._handler: TokenHandler | None = None

    def add(self, key: object, counts: Sequence[int | None]) -> None:
        """Add to the four counters; ValueError where one is no count."""
        given = [0 if count is None else count for count in counts]
        for name, count in zip(COUNTERS, given, strict=True):
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not typed
                raise ValueError(f"{name} must be a whole number and not negative, not {count!r}")
            if count > MAX_ROW_ID:
                raise ValueError(f"{name} is {count}; at most {MAX_ROW_ID}")
        with self._lock:
            self._is_used = True
            held = self._counts_by_key.setdefault(key, [0, 0, 0, 0])
            held[:] = [old + new for old, new in zip(held, given, strict=True)]

    def get(self, key: object) -> dict[str, int]:
        """Return the counters by name; `{}` where none was ever used."""
        with self._lock:
            if not self._is_used and self._handler is None:
                return {}
            counts = self._counts_by_key.get(key, [0, 0, 0, 0])
            watched = self._watched()
            return {
                name: count + more
                for name, count, more in zip(COUNTERS, counts, watched, strict=True)
            }

    def take(self, conversation_id: str) -> dict[str, int] | None:
        """Return the counters and set them to zero; `None` where all are zero."""
        with self._lock:
            counts = self._counts_by_key.pop(conversation_id, [0, 0, 0, 0])
            watched = self._watched()
            if self._handler is not None and any(watched):
                _reset(self._handler)
            sums = [count + more for count, more in zip(counts, watched, strict=True)]
            return dict(zip(COUNTERS, sums, strict=True)) if any(sums) else None

    def adopt(self, conversation_id: str, context: object) -> None:
        """Give a conversation what its context used before it was opened."""
        with self._lock:
            counts = self._counts_by_key.pop(context, None)
        if counts is not None:
            self.add(conversation_id, counts)

    def conversation_ids(self) -> list[str]:
        """Return the conversations that have counters."""
        with self._lock:
            return [key for key in self._counts_by_key if isinstance(key, str)]

    def n_unsent(self) -> int:
        """Return how many conversations have counters that were not sent."""
        with self._lock:
            return sum(any(counts) for counts in self._counts_by_key.values())

    def begin_in_child(self) -> None:
        """After a fork: what was counted is the parent's, and the lock may be held by nobody."""
        self._lock = threading.Lock()
        self._counts_by_key = {}
        if self._handler is not None:
            _reset(self._handler)

    def watch(self, handler: TokenHandler | None) -> None:
        """Also count what a library's own handler counts."""
        self._handler = handler

    def _watched(self) -> tuple[int, int, int, int]:
        handler = self._handler
        if handler is None:
            return (0, 0, 0, 0)
        return (
            handler.prompt_llm_token_count,
            handler.completion_llm_token_count,
            handler.total_llm_token_count,
            handler.total_embedding_token_count,
        )


def _reset(handler: TokenHandler) -> None:
    reset = getattr(handler, "reset_counts", None)
    if reset is not None:
        reset()
    else:
        handler.__init__()
