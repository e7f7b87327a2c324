"""Which conversation is meant, without mixing threads, tasks or trackers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple

_serials = itertools.count()


class _Named(NamedTuple):
    conversation_id: str
    is_block: bool
    """Named by a `with`, which only its own end takes away."""


_named: ContextVar[Mapping[int, _Named]] = ContextVar("agentsight_conversations")
_token: ContextVar[object] = ContextVar("agentsight_context")
_NOTHING: Final[Mapping[int, _Named]] = {}
_SEVERAL: Final = object()


class Current:
    """The current conversation of one tracker."""

    def __init__(self) -> None:
        self._serial = next(_serials)  # not id(): that of a dead tracker may come back
        self._opened: object = None

    def named_here(self) -> str | None:
        """Return what this context has named: the innermost `with` or `get_or_create`."""
        named = _named.get(_NOTHING).get(self._serial)
        return None if named is None else named.conversation_id

    def only_opened(self) -> str | None:
        """Return the one conversation this process has opened, `None` if none or several."""
        return self._opened if isinstance(self._opened, str) else None

    def opened(self, conversation_id: str) -> None:
        """Note that this process has opened a conversation."""
        if self._opened is None:
            self._opened = conversation_id
        elif self._opened != conversation_id:
            self._opened = _SEVERAL

    def name(self, conversation_id: str, *, is_block: bool = False) -> Mapping[int, _Named]:
        """Make a conversation the current one of this context; return what was, for `restore`."""
        before = _named.get(_NOTHING)
        _named.set({**before, self._serial: _Named(conversation_id, is_block)})
        return before

    def restore(self, before: Mapping[int, _Named]) -> None:
        """Take back what a block and everything in it has named."""
        now = dict(_named.get(_NOTHING))
        now.pop(self._serial, None)
        if self._serial in before:
            now[self._serial] = before[self._serial]
        _named.set(now)

    def unname(self) -> None:
        """Forget what `get_or_create` named in this context; a `with` keeps its word."""
        named = _named.get(_NOTHING).get(self._serial)
        if named is not None and not named.is_block:
            self.restore(_NOTHING)

    def forget_opened(self) -> None:
        """Begin anew in a forked process."""
        self._opened = None


def context_token() -> object:
    """Return what stands for this context, so that an item can wait for its conversation."""
    token = _token.get(None)
    if token is None:
        token = object()
        _token.set(token)
    return token
