"""Retries and backoff, as generators: no I/O, no sleeping, no clock of their own.

An *operation* (see `_operations`) yields requests and is sent replies. `with_retries` turns it into
a *flow*, which also yields waits; `run` and `run_async` drive it with a transport and a sleeper.
Thus sync and async clients share every decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from agentsight.exceptions import ConversationNetworkException

if TYPE_CHECKING:
    from agentsight._files import Multipart

T = TypeVar("T")


class Request(NamedTuple):
    """One HTTP request, as an operation means it."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    content: bytes | Multipart | None = None
    headers: tuple[tuple[str, str], ...] = ()
    is_repeatable: bool = True
    """Whether doing it twice is the same as doing it once."""
    timeout_s: float = 15.0
    """Longest silence of the server, and longest stop while sending."""


class Reply(NamedTuple):
    """What the server answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    endpoint: str = ""
    """Whom it was asked of, as it may be shown."""


class Unreachable(NamedTuple):
    """No answer."""

    reason: str
    may_have_arrived: bool


class Wait(NamedTuple):
    """A flow asks its driver to sleep."""

    seconds: float


class RetryPolicy(NamedTuple):
    """How often and how long a request is repeated."""

    attempts: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 8.0
    budget_s: float = 30.0
    """No repetition starts later than this after the operation began, whatever it consists of."""


Operation: TypeAlias = Generator[Request, Reply, T]
Flow: TypeAlias = Generator[Request | Wait, Reply | Unreachable | None, T]

RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})
"""And every 5xx. A refusal by any other 4xx is the same the next time."""
_UNDONE_STATUSES: Final = frozenset({425, 429, 503})
"""Answers that promise that nothing was done: safe to repeat even what is not repeatable."""


class FileUnreadable(Exception):
    """A file of the request cannot be read (any more); thrown into the operation, not at users."""

    def __init__(self, item_key: str, reason: str) -> None:
        super().__init__(reason)
        self.item_key = item_key
        self.reason = reason


def with_retries(
    operation: Operation[T],
    policy: RetryPolicy,
    *,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Flow[T]:
    """Repeat the operation's requests where that is safe, within one total budget.

    Args:
        operation: is sent the last reply, or thrown a ConversationNetworkException where there was
            none.
        policy: how often, how long.
        clock: seconds, monotonic.
        jitter: a number from 0 to 1, so that many clients do not return at the same moment.
    """
    deadline = clock() + policy.budget_s
    try:
        request = next(operation)
        while True:
            try:
                outcome = yield from _exchange(request, policy, deadline, clock, jitter)
            except (FileUnreadable, ConversationNetworkException) as error:
                request = operation.throw(error)
                continue
            if isinstance(outcome, Unreachable):
                message = f"Network error: {request.method} {request.path}: {outcome.reason}"
                request = operation.throw(ConversationNetworkException(message))
            else:
                request = operation.send(outcome)
    except StopIteration as stop:
        return stop.value
    finally:
        operation.close()


def _exchange(
    request: Request,
    policy: RetryPolicy,
    deadline: float,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Flow[Reply | Unreachable]:
    n_attempts = 0
    while True:
        outcome = yield request
        assert isinstance(outcome, (Reply, Unreachable))
        n_attempts += 1
        if n_attempts >= policy.attempts or not _may_repeat(request, outcome):
            return outcome
        wait_s = min(policy.first_wait_s * 2 ** (n_attempts - 1), policy.longest_wait_s)
        wait_s *= 0.5 + jitter() / 2
        if isinstance(outcome, Reply):
            wait_s = max(wait_s, (retry_after_s(outcome) or 0.0) * (1 + jitter() / 10))
        if clock() + wait_s > deadline:
            return outcome
        yield Wait(wait_s)


def is_passing(reply: Reply) -> bool:
    """Say whether the same request may be answered otherwise a little later."""
    return reply.status in RETRYABLE_STATUSES or reply.status >= 500


def _may_repeat(request: Request, outcome: Reply | Unreachable) -> bool:
    if isinstance(outcome, Unreachable):
        return request.is_repeatable or not outcome.may_have_arrived
    return is_passing(outcome) and (request.is_repeatable or outcome.status in _UNDONE_STATUSES)


def retry_after_s(reply: Reply) -> float | None:
    """Return how long the server asks to wait: `Retry-After` in seconds or as a date (RFC 9110)."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        # Against the reply's own Date: our clock may be wrong, the server's is the one it means.
        until = parsedate_to_datetime(text)
        since = parsedate_to_datetime(reply.headers.get("date", ""))
        return max(0.0, (until - since).total_seconds())
    except (ValueError, TypeError):
        return None


class SyncTransport(Protocol):
    """Sends one request and waits."""

    def send(self, request: Request) -> Reply | Unreachable: ...


class AwaitableTransport(Protocol):
    """Sends one request and awaits."""

    async def send(self, request: Request) -> Reply | Unreachable: ...


def run(flow: Flow[T], transport: SyncTransport, sleep: Callable[[float], None]) -> T:
    """Drive a flow to its value."""
    try:
        command = next(flow)
        while True:
            answer: Reply | Unreachable | None = None
            if isinstance(command, Wait):
                sleep(command.seconds)
            else:
                try:
                    answer = transport.send(command)
                except (FileUnreadable, ConversationNetworkException) as error:
                    command = flow.throw(error)
                    continue
            command = flow.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        flow.close()


async def run_async(
    flow: Flow[T], transport: AwaitableTransport, sleep: Callable[[float], Awaitable[None]]
) -> T:
    """Drive a flow to its value without blocking the event loop."""
    try:
        command = next(flow)
        while True:
            answer: Reply | Unreachable | None = None
            if isinstance(command, Wait):
                await sleep(command.seconds)
            else:
                try:
                    answer = await transport.send(command)
                except (FileUnreadable, ConversationNetworkException) as error:
                    command = flow.throw(error)
                    continue
            command = flow.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        flow.close()
