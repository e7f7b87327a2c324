"""What becomes of the clients when their process forks or ends.

Everything is held weakly: a client that nobody uses any more is forgotten here, too.
"""

from __future__ import annotations

import atexit
import os
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from agentsight.logging import say

if TYPE_CHECKING:
    from agentsight._base import BaseClient
    from agentsight._outbox import Outbox

_clients: Final[weakref.WeakSet[BaseClient]] = weakref.WeakSet()
_outboxes: Final[weakref.WeakSet[Outbox]] = weakref.WeakSet()


class Unsent(NamedTuple):
    """What an outbox still has."""

    n_items: int
    n_conversations: int


def begin_anew_after_fork(client: BaseClient) -> None:
    """Let a forked child begin with locks and connections of its own."""
    _clients.add(client)


def report_at_exit(outbox: Outbox) -> None:
    """Let the end of the process say what this outbox has not sent."""
    _outboxes.add(outbox)


def _report_unsent() -> None:
    """Say it once for all outboxes; nothing is sent now, for that could hold up the exit."""
    lost, kept = Unsent(0, 0), Unsent(0, 0)
    for outbox in list(_outboxes):
        lost = _sum(lost, outbox.unsent(on_disk=False))
        kept = _sum(kept, outbox.unsent(on_disk=True))
    if lost.n_items:
        say(
            "WARNING",
            "the process ends with tracked items that were never sent and are lost: call "
            "flush() or close() before it ends, or set AGENTSIGHT_SPOOL_DIR to keep them on disk;",
            items=lost.n_items,
            conversations=lost.n_conversations,
        )
    if kept.n_items:
        say(
            "WARNING",
            "the process ends with tracked items that were not sent; they are kept in "
            "AGENTSIGHT_SPOOL_DIR, and the next process with it sends them by flush() or close();",
            items=kept.n_items,
            conversations=kept.n_conversations,
        )


def _close_defaults() -> None:
    """Close what the default clients hold: nobody else does, and nobody can be blamed for it."""
    for client in list(_clients):
        client._end_with_process()  # pyright: ignore[reportPrivateUsage] - our own, in one house


def _sum(one: Unsent, other: Unsent) -> Unsent:
    return Unsent(one.n_items + other.n_items, one.n_conversations + other.n_conversations)


def _begin_in_child() -> None:
    for client in list(_clients):
        client._begin_in_child()  # pyright: ignore[reportPrivateUsage] - our own, in one house


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)


# Registered with the import, so that it runs after what applications register later: theirs may
# still flush. The last registered runs first: connections are closed last.
atexit.register(_close_defaults)
atexit.register(_report_unsent)
