"""Retries: what is repeated, how long is waited, and when it ends. No network, no clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight._flow import (
    Meter,
    Operation,
    Reply,
    Request,
    RetryPolicy,
    Unreachable,
    Wait,
    locally,
    retry_after_s,
    run,
    run_async,
    with_retries,
)
from agentsight.exceptions import ConversationNetworkException
from tests.sdk.conftest import World

POLICY = RetryPolicy()
LOST = Unreachable("ReadTimeout", may_have_arrived=True)
NEVER_SENT = Unreachable("ConnectError", may_have_arrived=False)


def reply(status: int, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, b"{}")


def one_request(*, is_repeatable: bool = True) -> Operation[int]:
    answer = yield Request("POST", "/x/", is_repeatable=is_repeatable)
    return answer.status


def play(
    world: World, outcomes: Iterable[Reply | Unreachable], *, is_repeatable: bool = True
) -> tuple[int | str, int]:
    """Return the result (or the error) and the number of requests."""
    left = list(outcomes)
    n_all = len(left)
    flow = with_retries(
        one_request(is_repeatable=is_repeatable),
        POLICY,
        clock=world.runtime.clock,
        jitter=world.runtime.jitter,
    )
    try:
        command = next(flow)
        while True:
            if isinstance(command, Wait):
                world.sleep(command.seconds)
                command = flow.send(None)
            else:
                command = flow.send(left.pop(0))
    except StopIteration as stop:
        return stop.value, n_all - len(left)
    except ConversationNetworkException as error:
        return str(error), n_all - len(left)


@pytest.mark.parametrize("status", [408, 423, 425, 429, 500, 502, 503, 504, 507])
def test_passing_troubles_are_repeated(world: World, status: int) -> None:
    """A little later the answer may be another."""
    assert play(world, [reply(status), reply(status), reply(200)]) == (200, 3)
    assert world.slept == [0.5, 1.0]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 302, 400, 401, 403, 404, 409, 413, 422])
def test_final_answers_are_not_repeated(world: World, status: int) -> None:
    """The published client sent 202 and 204 three times."""
    assert play(world, [reply(status), reply(200)]) == (status, 1)


def test_a_lost_connection_is_repeated_and_then_told(world: World) -> None:
    """At most four times in all."""
    told, n_requests = play(world, [LOST] * 9)
    assert told == "Network error: POST /x/: ReadTimeout"
    assert n_requests == 4


def test_what_may_have_happened_is_not_done_twice(world: World) -> None:
    """A request that must not be repeated is repeated only where it surely did nothing."""
    assert play(world, [LOST, reply(200)], is_repeatable=False)[1] == 1
    assert play(world, [reply(500), reply(200)], is_repeatable=False) == (500, 1)
    assert play(world, [NEVER_SENT, reply(200)], is_repeatable=False) == (200, 2)
    assert play(world, [reply(503), reply(200)], is_repeatable=False) == (200, 2)


def test_retry_after_is_obeyed(world: World) -> None:
    """With a little more, so that not all come back at once."""
    assert play(world, [reply(429, retry_after="7"), reply(200)]) == (200, 2)
    assert world.slept == [pytest.approx(7.7)]


def test_a_retry_after_beyond_the_budget_ends_the_attempts(world: World) -> None:
    """Whoever called us does not wait for an hour."""
    assert play(world, [reply(503, retry_after="3600"), reply(200)]) == (503, 1)
    assert world.slept == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("Sun, 22 Nov 2026 10:00:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text: str, seconds: float | None) -> None:
    """RFC 9110 knows both; the date counts against the server's clock, not ours."""
    got = retry_after_s(reply(503, retry_after=text, date="Sun, 22 Nov 2026 10:00:00 GMT"))
    assert got == seconds


@given(
    st.lists(
        st.one_of(
            st.just(LOST),
            st.just(NEVER_SENT),
            st.builds(reply, st.sampled_from([200, 400, 429, 500, 503])),
            st.builds(
                lambda s: reply(503, retry_after=str(s)), st.integers(min_value=0, max_value=10**12)
            ),
        ),
        min_size=4,
        max_size=4,
    ),
    st.booleans(),
)
def test_it_always_ends_within_its_budget(outcomes: list[Reply | Unreachable], twice: bool) -> None:
    """Whatever the server does."""
    world = World()
    _, n_requests = play(world, outcomes, is_repeatable=twice)
    assert n_requests <= POLICY.attempts
    assert sum(world.slept) <= POLICY.budget_s


@pytest.mark.anyio
async def test_the_async_driver_takes_the_same_steps(world: World) -> None:
    """One generator, two drivers."""

    class Transport:
        def __init__(self) -> None:
            self.answers = [reply(503), LOST, reply(200)]

        async def send(self, request: Request) -> Reply | Unreachable:
            return self.answers.pop(0)

    flow = with_retries(
        one_request(), POLICY, clock=world.runtime.clock, jitter=world.runtime.jitter
    )
    assert await run_async(flow, Transport(), world.sleep_async) == 200
    assert world.slept == [0.5, 1.0]


def test_time_in_which_bytes_move_or_this_machine_works_is_not_taken_from_the_budget(
    world: World,
) -> None:
    """Only what is wasted counts: waiting, and sending that brings nothing."""
    meter = Meter()

    def moved(n_bytes: int) -> Reply | Unreachable:
        world.now += 100
        meter.n_bytes += n_bytes
        return LOST

    def long_work() -> Operation[int]:
        hashed = yield from locally(lambda: world.sleep(100) or 7)
        answer = yield Request("PATCH", "/x/", meter=meter)
        return answer.status + hashed

    def send(script: list[int]) -> int | str:
        flow = with_retries(
            long_work(), POLICY, clock=world.runtime.clock, jitter=world.runtime.jitter
        )
        outcomes = iter(script)

        class Transport:
            def send(self, request: Request) -> Reply | Unreachable:
                n_bytes = next(outcomes, None)
                return reply(200) if n_bytes is None else moved(n_bytes)

        try:
            return run(flow, Transport(), world.sleep)
        except ConversationNetworkException as error:
            return str(error)

    assert send([5, 5, 5]) == 207
    assert send([5, 0]) == "Network error: PATCH /x/: ReadTimeout"


def test_local_work_raises_into_the_operation(world: World) -> None:
    """As if it had been done there."""

    def operation() -> Operation[str]:
        try:
            yield from locally(lambda: (_ for _ in ()).throw(KeyError("x")))
        except KeyError as error:
            return repr(error)
        return "nothing"

    flow = with_retries(operation(), POLICY, clock=world.runtime.clock, jitter=lambda: 1.0)
    assert run(flow, None, world.sleep) == "KeyError('x')"  # type: ignore[arg-type]
