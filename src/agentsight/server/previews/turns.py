"""Whose preview is made next: agent after agent, so that nobody waits behind another's hundreds.

An examining process does one file at a time, and a file may take it half a minute. Whoever asks for
hundreds at once waits behind their own, and whose files took long comes after everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeAlias

from agentsight.server.ids import AgentId
from agentsight.server.problems import Problem
from agentsight.server.shares import Shares

AT_ONCE: Final = 4
"""Copies of large files from an object store that may lie on our disk at a time, for each kind."""
OF_ONE_AGENT: Final = 2
"""One is looked at while the next is fetched."""
MAX_WAITING: Final = 200
"""Of one agent: some screens full of pictures."""

_Turn: TypeAlias = "asyncio.Future[None]"


class Turns:
    """Lets in a few at a time. Of one event loop."""

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        of_one_agent: int = OF_ONE_AGENT,
        max_waiting: int = MAX_WAITING,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shares = Shares(monotonic=monotonic)
        self._at_once = at_once
        self._of_one_agent = of_one_agent
        self._max_waiting = max_waiting
        self._inside: Counter[AgentId] = Counter()
        self._waiting: OrderedDict[AgentId, deque[_Turn]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, agent_id: AgentId) -> AsyncGenerator[None]:
        """Wait for a turn of this agent's, and hold it for the block.

        Raises:
            Problem: 503 when too many of this agent's wait already.
        """
        queue = self._waiting.setdefault(agent_id, deque())
        if len(queue) >= self._max_waiting:
            text = f"{self._max_waiting} previews of this agent wait to be made; try again."
            raise Problem(503, "busy", text, retry_after_s=5)
        mine: _Turn = asyncio.get_running_loop().create_future()
        queue.append(mine)
        self._let_in()
        try:
            await mine
            with self._shares.turn(agent_id):
                yield
        finally:
            if mine.done() and not mine.cancelled():
                self._inside[agent_id] -= 1
            else:
                self._give_up(agent_id, mine)
            self._let_in()

    def _give_up(self, agent_id: AgentId, turn: _Turn) -> None:
        queue = self._waiting.get(agent_id)
        if queue is not None and turn in queue:
            queue.remove(turn)

    def _let_in(self) -> None:
        """Give free places to agents in turn; those that owe the others time come last."""
        self._inside = +self._inside
        owing = self._shares.owing()
        for agent_id in sorted(self._waiting, key=owing.__contains__):
            if self._inside.total() >= self._at_once:
                return
            queue = self._waiting[agent_id]
            while queue and queue[0].done():  # cancelled while it waited
                queue.popleft()
            # One of theirs at a time: two would stand in the one process before the next agent's.
            limit = 1 if agent_id in owing else self._of_one_agent
            if queue and self._inside[agent_id] < limit:
                queue.popleft().set_result(None)
                self._inside[agent_id] += 1
                self._waiting.move_to_end(agent_id)
            if not queue:
                del self._waiting[agent_id]
