"""Long answers of one agent: counted, and too many refused."""

from __future__ import annotations

import contextlib

import pytest

from agentsight.server.problems import Problem
from agentsight.server.web.under_way import UnderWay


def test_one_agent_is_told_to_wait_and_others_are_not() -> None:
    """Who has as many as are allowed gets 503 with `Retry-After`; the next agent gets its own."""
    under_way = UnderWay(2, "ZIPs")
    with under_way.one(1), under_way.one(1), under_way.one(2):
        with pytest.raises(Problem, match="2 ZIPs of this agent") as caught, under_way.one(1):
            pass
        assert (caught.value.status, caught.value.code) == (503, "busy")
        assert caught.value.retry_after_s


def test_what_ended_or_failed_makes_room() -> None:
    """An error inside counts as an end."""
    under_way = UnderWay(1, "files")
    with contextlib.suppress(ValueError), under_way.one(1):
        raise ValueError
    with under_way.one(1):
        pass
    with under_way.one(1):
        pass
