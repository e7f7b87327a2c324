"""Retries and backoff, as generators: no I/O, no sleeping, no clock of their own.

An *operation* (see `_operations`) yields requests and is sent replies. `with_retries` turns it into
a *flow*, which also yields waits; `run` and `run_async` drive it with a transport and a sleeper.
Thus sync and async clients share every decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from agentsight.exceptions import ConversationNetworkException

T = TypeVar("T")


class Body(Protocol):
    """A request's body that is streamed; each sending measures it anew."""

    content_type: str

    def n_bytes(self) -> int: ...
    def chunks(self) -> Iterator[bytes]: ...


class Sink(Protocol):
    """Where the body of a success goes, chunk by chunk, in place of memory."""

    def headers(self) -> Mapping[str, str]:
        """Return what to ask for with the next sending: what is still missing."""
        ...

    def begin(self, status: int, headers: Mapping[str, str]) -> None: ...
    def write(self, chunk: bytes) -> None: ...


class Meter:
    """Counts the bytes that a long transfer has moved."""

    def __init__(self) -> None:
        self.n_bytes = 0


class Request(NamedTuple):
    """One HTTP request, as an operation means it."""

    method: str
    path: str
    params: tuple[tuple[str, str], ...] = ()
    content: bytes | Body | None = None
    headers: tuple[tuple[str, str], ...] = ()
    is_repeatable: bool = True
    """Whether doing it twice is the same as doing it once."""
    timeout_s: float = 15.0
    """Longest silence of the server, and longest stop while sending (45 s at most)."""
    sink: Sink | None = None
    """Where the body of a 200 or 206 goes."""
    meter: Meter | None = None
    """Of a long transfer: while this counts up, the time is not taken from the budget."""


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


class Local(NamedTuple):
    """A flow asks its driver to work on this machine: hash, read or write a file."""

    work: Callable[[], None]


class RetryPolicy(NamedTuple):
    """How often and how long a request is repeated."""

    attempts: int = 4
    first_wait_s: float = 0.5
    longest_wait_s: float = 8.0
    budget_s: float = 30.0
    """No repetition starts later than this after the operation began, whatever it consists of.

    Time in which bytes of a long transfer move, or this machine works, does not count: a gigabyte
    takes as long as it takes, and a cut at its end is as worth repeating as one at its beginning.
    """


Operation: TypeAlias = Generator[Request | Local, Reply, T]
Flow: TypeAlias = Generator[Request | Wait | Local, Reply | Unreachable | None, T]

RETRYABLE_STATUSES: Final = frozenset({408, 423, 425, 429})
"""And every 5xx. A refusal by any other 4xx is the same the next time."""
_UNDONE_STATUSES: Final = frozenset({423, 425, 429, 503})
"""Answers that promise that nothing was done: safe to repeat even what is not repeatable."""


class LocalTrouble(Exception):
    """This machine is at fault, not the network; thrown into the operation, not at users."""


class FileUnreadable(LocalTrouble):
    """A file of the request cannot be read (any more); thrown into the operation, not at users."""

    def __init__(self, item_key: str, reason: str) -> None:
        super().__init__(reason)
        self.item_key = item_key
        self.reason = reason


def locally(work: Callable[[], T]) -> Operation[T]:
    """Have the driver do some work on this machine, off the event loop where there is one.

    Returns what it returns and raises what it raises.
    """
    values: list[T] = []
    errors: list[Exception] = []

    def watched() -> None:
        try:
            values.append(work())
        except Exception as error:  # noqa: BLE001 - it may run in a thread, and is raised below
            errors.append(error)

    yield Local(watched)
    if errors:
        raise errors[0]
    return values[0]


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
            if isinstance(request, Local):
                began_at = clock()
                yield request
                deadline += clock() - began_at
                request = operation.send(_NOTHING)
                continue
            try:
                outcome, deadline = yield from _exchange(request, policy, deadline, clock, jitter)
            except (LocalTrouble, ConversationNetworkException) as error:
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
) -> Flow[tuple[Reply | Unreachable, float]]:
    """Send a request until it need not, or may not, be repeated; also return the deadline then."""
    n_attempts = 0
    while True:
        began_at, n_moved = clock(), request.meter.n_bytes if request.meter else 0
        outcome = yield request
        assert isinstance(outcome, (Reply, Unreachable))
        if request.meter is not None and request.meter.n_bytes > n_moved:
            deadline += clock() - began_at
        n_attempts += 1
        if n_attempts >= policy.attempts or not _may_repeat(request, outcome):
            return outcome, deadline
        wait_s = min(policy.first_wait_s * 2 ** (n_attempts - 1), policy.longest_wait_s)
        wait_s *= 0.5 + jitter() / 2
        if isinstance(outcome, Reply):
            wait_s = max(wait_s, (retry_after_s(outcome) or 0.0) * (1 + jitter() / 10))
        if clock() + wait_s > deadline:
            return outcome, deadline
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


_NOTHING: Final = Reply(0, {}, b"")
"""What an operation is sent where it asked for no reply."""


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
            elif isinstance(command, Local):
                command.work()
            else:
                try:
                    answer = transport.send(command)
                except (LocalTrouble, ConversationNetworkException) as error:
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
            elif isinstance(command, Local):
                import asyncio

                await asyncio.to_thread(command.work)
            else:
                try:
                    answer = await transport.send(command)
                except (LocalTrouble, ConversationNetworkException) as error:
                    command = flow.throw(error)
                    continue
            command = flow.send(answer)
    except StopIteration as stop:
        return stop.value
    finally:
        flow.close()
