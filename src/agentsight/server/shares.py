"""Who has had how much of a worker that all agents share. One process's memory; no I/O.

Agents take turns, and who has lately had much comes after everybody else: six files that hold an
examining process for half a minute each must not hold up the small files of other agents.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Final

from agentsight.server.ids import AgentId

BEFORE_ALL: Final = AgentId(0)
"""Less than any agent's id."""
_REST: Final = 3.0
"""Seconds behind the others for each second of work: beside others an agent gets a quarter."""
_FREE_S: Final = 1.0
"""Owed seconds that do not count: what an ordinary picture takes."""


class Shares:
    """Remembers whose turn was last, and who owes the others time.

    Args:
        monotonic: Seconds that only go forward.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._owes_until: dict[AgentId, float] = {}
        self.last = BEFORE_ALL
        """The agent behind which the next round begins."""

    @contextlib.contextmanager
    def turn(self, agent_id: AgentId) -> Generator[None]:
        """Let an agent have a turn, which is the block, and charge it."""
        self.last = agent_id
        began = self._monotonic()
        try:
            yield
        finally:
            self.charge(agent_id, self._monotonic() - began)

    def charge(self, agent_id: AgentId, seconds: float) -> None:
        """Note that an agent's work took so long."""
        now = self._monotonic()
        until = max(now, self._owes_until.get(agent_id, now)) + _REST * seconds
        self._owes_until[agent_id] = until

    def owing(self) -> frozenset[AgentId]:
        """Return the agents that come after the others now."""
        end = self._monotonic() + _FREE_S
        self._owes_until = {
            agent_id: until for agent_id, until in self._owes_until.items() if until > end - _FREE_S
        }
        return frozenset(a for a, until in self._owes_until.items() if until > end)
