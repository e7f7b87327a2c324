"""Whose turn it is in work that is done for all agents. Pure; one process's memory."""

from __future__ import annotations

from typing import Final

from agentsight.server.ids import AgentId

BEFORE_ALL: Final = AgentId(0)
"""Less than any agent's id."""


class Turns:
    """Which agent had the last turn, by kind of work.

    Every process goes its own round; a new one begins with the first agent.
    """

    def __init__(self) -> None:
        self._last: dict[str, AgentId] = {}

    def last(self, kind: str) -> AgentId:
        """Return the agent behind which the next turn begins."""
        return self._last.get(kind, BEFORE_ALL)

    def note(self, kind: str, agent_id: AgentId) -> None:
        """Go on behind this agent."""
        self._last[kind] = agent_id
