"""Turns of agents at the examining processes."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.ids import AgentId
from agentsight.server.previews.turns import Turns
from agentsight.server.problems import Problem

pytestmark = pytest.mark.anyio

A, B, C = AgentId(1), AgentId(2), AgentId(3)


class Desk:
    """Runs work in turns, each until it is told to end, and notes who began."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[AgentId] = []
        self._inside: list[asyncio.Event] = []

    async def ask(self, *agents: AgentId) -> list[asyncio.Task[None]]:
        """Let somebody ask for a turn, and see who gets one."""
        made = [asyncio.create_task(self._work(agent)) for agent in agents]
        await settle()
        return made

    async def end(self) -> None:
        """End what goes on, and what comes after it, until nothing waits."""
        while self._inside:
            self._inside.pop(0).set()
            await settle()

    async def _work(self, agent: AgentId) -> None:
        async with self.turns.turn(agent):
            self.begun.append(agent)
            ended = asyncio.Event()
            self._inside.append(ended)
            try:
                await ended.wait()
            except asyncio.CancelledError:
                self._inside.remove(ended)
                raise


async def settle() -> None:
    """Let all tasks come to where they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_agent_does_not_take_all_places() -> None:
    """Hundreds of one agent's leave a place to the first of another's, at once."""
    desk = Desk(Turns(at_once=3, of_one_agent=2))
    await desk.ask(*[A] * 50)
    assert desk.begun == [A, A]
    await desk.ask(B)
    assert desk.begun == [A, A, B]
    await desk.end()
    assert desk.begun.count(A) == 50


async def test_agents_that_wait_go_by_turns() -> None:
    """Who came later is not behind all of who came first."""
    desk = Desk(Turns(at_once=1, of_one_agent=1))
    await desk.ask(*[A] * 4, *[B] * 2, C)
    await desk.end()
    assert desk.begun == [A, A, B, C, A, B, A]


async def test_whose_pictures_took_long_comes_last_and_alone() -> None:
    """Beside others it is let in when none of them waits, one at a time."""
    now = [0.0]
    desk = Desk(Turns(at_once=2, of_one_agent=2, monotonic=lambda: now[0]))
    slow = await desk.ask(A)
    now[0] = 30.0
    await desk.end()
    await asyncio.gather(*slow)
    desk.begun.clear()
    await desk.ask(A, A, A)
    assert desk.begun == [A]  # one of the two places is left to whoever comes
    await desk.ask(B, B, C)
    assert desk.begun == [A, B]
    await desk.end()
    assert desk.begun == [A, B, B, C, A, A]


async def test_what_was_taken_is_forgiven_with_time() -> None:
    """Three seconds behind the others for each second of work, and no longer."""
    now = [0.0]
    desk = Desk(Turns(at_once=1, of_one_agent=1, monotonic=lambda: now[0]))
    await desk.ask(A)
    now[0] = 10.0
    await desk.end()
    now[0] = 40.0
    await desk.ask(C)
    desk.begun.clear()
    await desk.ask(A, B)
    await desk.end()
    assert desk.begun == [A, B]


async def test_a_place_is_free_again_after_a_cancellation() -> None:
    """Whoever goes away, waiting or inside, holds up nobody."""
    desk = Desk(Turns(at_once=1, of_one_agent=1))
    inside, *waiting = await desk.ask(A, A, B)
    for task in (*waiting, inside):
        task.cancel()
    await settle()
    await desk.ask(B)
    assert desk.begun == [A, B]
    await desk.end()


async def test_a_place_is_free_again_after_an_error() -> None:
    """What fails inside goes to the caller, and the place to the next."""
    desk = Desk(Turns(at_once=1, of_one_agent=1))
    with pytest.raises(RuntimeError):
        async with desk.turns.turn(A):
            raise RuntimeError
    await desk.ask(A)
    assert desk.begun == [A]
    await desk.end()


async def test_a_place_given_to_who_just_went_is_passed_on() -> None:
    """A cancellation between a place's giving and its taking does not lose it."""
    desk = Desk(Turns(at_once=1, of_one_agent=1))
    async with desk.turns.turn(A):
        (waiting,) = await desk.ask(B)
    waiting.cancel()  # it has its place by now, and has not woken yet
    await settle()
    await desk.ask(C)
    assert desk.begun == [C]
    await desk.end()


async def test_too_many_of_one_agent_are_told_to_come_again() -> None:
    """There is an end to who may wait: 503 with `Retry-After`, and others are let in still."""
    desk = Desk(Turns(at_once=1, of_one_agent=1, max_waiting=2))
    await desk.ask(A, A, A)
    with pytest.raises(Problem) as caught:
        async with desk.turns.turn(A):
            pass
    assert (caught.value.status, caught.value.retry_after_s) == (503, 5)
    await desk.ask(B)
    await desk.end()
    assert sorted(desk.begun) == [A, A, A, B]
