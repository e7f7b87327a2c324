"""How many long answers one agent has under way in this process.

Whoever reads slowly holds a descriptor and some chunks for as long as they like: each for itself is
their right, hundreds at once are the other agents' memory.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator
from typing import Final

from agentsight.server.problems import Problem

_RETRY_AFTER_S: Final = 5


class UnderWay:
    """Counts answers by agent, and refuses what is too many.

    Args:
        most: Of one agent at a time.
        what: What they are, for whoever is refused.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self._by_agent: Counter[int] = Counter()

    @contextlib.contextmanager
    def one(self, agent_id: int) -> Generator[None]:
        """Count an answer for as long as the block lasts.

        Raises:
            Problem: 503 `busy` when the agent has too many under way.
        """
        if self._by_agent[agent_id] >= self._most:
            text = f"{self._most} {self._what} of this agent are being sent already: try again."
            raise Problem(503, "busy", text, retry_after_s=_RETRY_AFTER_S)
        self._by_agent[agent_id] += 1
        try:
            yield
        finally:
            self._by_agent[agent_id] -= 1
            if not self._by_agent[agent_id]:
                del self._by_agent[agent_id]
