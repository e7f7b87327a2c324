"""A server that failed is left alone for a moment, so that a bot does not wait for it each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agentsight import ConversationTracker
from agentsight._pause import Pause, next_pause
from tests.sdk.conftest import World
from tests.sdk.support import CUT, Answer, ScriptServer, store_all

MakeTracker = Callable[..., ConversationTracker]
BUSY = Answer(503, {"detail": "busy", "code": "busy"})


@pytest.fixture
def failing(tracker: ConversationTracker, server: ScriptServer) -> ConversationTracker:
    """A tracker whose server has just failed."""
    server.answers = [CUT] * 4
    tracker.get_or_create_conversation("c")
    tracker.send_tracked_data()
    return tracker


def test_a_send_just_after_a_failure_answers_at_once(
    failing: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """It says that the item is kept and what went wrong, and asks nobody."""
    failing.track_human_message("hi")
    slept = list(world.slept)
    world.now += 3
    report = failing.send_tracked_data()
    assert (len(server.seen), world.slept) == (4, slept)
    assert [item["success"] for item in report["items"]] == [False, False]
    error = report["items"][1]["error"]
    assert error.startswith("Kept for the next send; the server did not answer")
    assert server.url in error
    assert "3 s ago" in error
    assert "in 2 s" in error
    world.now += 2
    assert failing.send_tracked_data()["summary"]["errors"] == 0


def test_the_pause_doubles_up_to_a_minute_and_ends_with_success(
    failing: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """A server that is away for long is asked once a minute."""
    pauses: list[float] = []
    server.script = lambda _: BUSY
    for _ in range(5):
        pause = failing._outbox._pause
        assert pause is not None
        pauses.append(pause.until - world.now)
        world.now = pause.until
        failing.send_tracked_data()
    assert pauses == [5, 10, 20, 40, 60]
    server.script = store_all
    world.now += 60
    assert failing.send_tracked_data()["summary"]["errors"] == 0
    assert failing._outbox._pause is None


@pytest.mark.parametrize("how", ["flush", "close"])
def test_flush_and_close_ask_all_the_same(
    failing: ConversationTracker, server: ScriptServer, how: str
) -> None:
    """At the end of a program there is no next send."""
    getattr(failing, how)()
    assert len(server.seen) == 5
    assert failing.n_waiting == 0


def test_another_endpoint_is_asked_at_once(
    failing: ConversationTracker, server: ScriptServer
) -> None:
    """It has not failed."""
    failing.configure(endpoint=server.url + "/")
    assert failing.send_tracked_data()["summary"]["errors"] == 0


def test_a_refusal_is_an_answer(
    failing: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """A wrong key costs no time, and is told each time."""
    world.now += 5
    for _ in range(2):
        server.answers = [Answer(401, {"detail": "Invalid API key.", "code": "invalid_key"})]
        assert "401" in failing.send_tracked_data()["items"][0]["error"]
    assert len(server.seen) == 6


def test_initialize_does_not_wait_for_a_server_that_failed(
    failing: ConversationTracker, server: ScriptServer
) -> None:
    """It is kept, as any item."""
    failing.initialize_conversation("visit")
    assert (len(server.seen), failing.n_waiting) == (4, 2)


def test_failures_side_by_side_count_once() -> None:
    """Eight threads that wait for the same dead server are one reason to wait, not eight."""
    pause: Pause | None = None
    for _ in range(8):
        pause = next_pause(
            pause, "http://x", began_at=0.0, now=30.0, reason="r", retry_after_s=None
        )
    assert pause is not None
    assert (pause.until, pause.n_failures) == (35.0, 1)
