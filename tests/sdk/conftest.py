"""A scripted server, and clients whose clock and sleep are the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentsight import AgentSightAPI, ConversationManager, ConversationTracker
from agentsight._base import Runtime
from tests.sdk.support import KEY, ScriptServer


class World:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.runtime = Runtime(
            clock=lambda: self.now,
            sleep=self.sleep,
            jitter=lambda: 1.0,
            sleep_async=self.sleep_async,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("AGENTSIGHT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server() -> Iterator[ScriptServer]:
    with ScriptServer() as server:
        yield server


@pytest.fixture
def make_tracker(
    server: ScriptServer, world: World
) -> Iterator[Callable[..., ConversationTracker]]:
    """Make trackers of the scripted server; they are closed with nothing left to send."""
    made: list[ConversationTracker] = []

    def make(**settings: object) -> ConversationTracker:
        tracker = ConversationTracker(KEY, endpoint=server.url, **settings)  # type: ignore[arg-type]
        tracker.runtime = world.runtime
        made.append(tracker)
        return tracker

    yield make
    for tracker in made:
        if tracker._outbox._spool is not None:
            for conversation_id in [None, *tracker._outbox.spool.conversation_ids()]:
                borrowed = tracker._outbox.spool.borrow(conversation_id)
                tracker._outbox.spool.settle([item for _, item in borrowed], [])
        tracker.close()


@pytest.fixture
def tracker(make_tracker: Callable[..., ConversationTracker]) -> ConversationTracker:
    return make_tracker()


@pytest.fixture
def api(server: ScriptServer, world: World) -> Iterator[AgentSightAPI]:
    with AgentSightAPI(KEY, server.url) as api:
        api.runtime = world.runtime
        yield api


@pytest.fixture
def manager(server: ScriptServer, world: World) -> Iterator[ConversationManager]:
    with ConversationManager(KEY, server.url) as manager:
        manager.runtime = world.runtime
        yield manager
