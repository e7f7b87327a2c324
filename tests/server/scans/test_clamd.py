"""The daemon's protocol: the same answers from a real one and from its recorded words, and lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentsight.server.scans.clamd import ping, scan_stream
from agentsight.server.scans.model import DaemonAway, Verdict, read_verdict
from tests.server.scans.conftest import NOBODY
from tests.support.clamav import EICAR, SIGNATURE, STREAM_MAX_BYTES, FakeClamd

pytestmark = pytest.mark.anyio
TOO_LARGE = Verdict("failed", "larger than the daemon's StreamMaxLength")


async def chunks(data: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    """Yield bytes in pieces, with an empty one among them, which must not end the stream."""
    yield b""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        yield b""


async def test_it_answers_ping(clamd: str) -> None:
    """A daemon that is there says so."""
    await ping(clamd)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", Verdict("clean")),
        (b"hello", Verdict("clean")),
        (b"x" * 1_000_000, Verdict("clean")),
        (EICAR, Verdict("infected", SIGNATURE)),
        (b"x" * 100_000 + EICAR, Verdict("infected", SIGNATURE)),
    ],
    ids=["empty", "small", "large", "infected", "infected at its end"],
)
async def test_a_verdict(clamd: str, data: bytes, verdict: Verdict) -> None:
    """It says of bytes what they are, however they are cut."""
    assert await scan_stream(clamd, chunks(data)) == verdict
    assert await scan_stream(clamd, chunks(data[-200:], 7)) == (
        verdict if len(data) > 200 or verdict.result == "infected" else Verdict("clean")
    )


def _full(stream: bytes) -> bytes | None:
    too_large = b"INSTREAM size limit exceeded. ERROR\0"
    return too_large if len(stream) > STREAM_MAX_BYTES else None


@pytest.mark.parametrize("n_more", [1, 100_000, 20_000_000])
async def test_a_stream_past_the_daemons_limit_fails_with_the_reason(
    clamd: str, n_more: int
) -> None:
    """The daemon hangs up in the middle; its reason is heard, however much was still to be sent."""
    async with FakeClamd(in_between=_full).running() as recorded:
        data = bytes(STREAM_MAX_BYTES + n_more)
        # The recorded daemon of the fixture has no limit: then this test's own stands in.
        verdict = await scan_stream(clamd, chunks(data))
        if verdict == Verdict("clean"):
            verdict = await scan_stream(recorded.address, chunks(data))
        assert verdict == TOO_LARGE


async def test_nobody_there() -> None:
    """A daemon that does not answer is away, and nothing is taken for clean."""
    with pytest.raises(DaemonAway, match=r"127\.0\.0\.1:1"):
        await ping(NOBODY)
    with pytest.raises(DaemonAway):
        await scan_stream(NOBODY, chunks(b"x"))


async def test_somebody_else_there() -> None:
    """What answers, but not as clamd does, is no daemon."""
    async with FakeClamd(pong=b"SSH-2.0-OpenSSH\r\n").running() as fake:
        with pytest.raises(DaemonAway, match="SSH"):
            await ping(fake.address)


@pytest.mark.parametrize("reply", [None, b"", b"stream: PERHAPS\0", b"\xff" * 10_000, b"OK\0"])
async def test_an_answer_that_nobody_knows_is_no_verdict(reply: bytes | None) -> None:
    """Hanging up, noise and new words never count as clean."""
    async with FakeClamd(at_end=lambda _stream: reply).running() as fake:
        with pytest.raises(DaemonAway):
            await scan_stream(fake.address, chunks(b"x"))


async def test_a_daemon_that_never_answers_is_left(caplog: pytest.LogCaptureFixture) -> None:
    """One total time is the limit of a scan."""
    is_over = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(DaemonAway, match="in time"):
            await scan_stream(address, chunks(b"x"), timeout_s=0.05)
        is_over.set()


async def test_a_source_that_fails_is_heard_of() -> None:
    """What goes wrong with the bytes is not taken for the daemon's fault."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise LookupError("gone")

    async with FakeClamd().running() as fake:
        with pytest.raises(LookupError):
            await scan_stream(fake.address, broken())


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (b"stream: OK\0", Verdict("clean")),
        (b"stream: Win.Test.EICAR_HDB-1 FOUND\0", Verdict("infected", "Win.Test.EICAR_HDB-1")),
        (b"stream: Heuristics FOUND FOUND\0", Verdict("infected", "Heuristics FOUND")),
        (b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0",
         Verdict("failed", "past the daemon's limits, not scanned whole:"
                 " Heuristics.Limits.Exceeded.MaxRecursion")),
        (b"stream: bad\x1b[31m FOUND\0", Verdict("infected", "bad?[31m")),
        (b"INSTREAM size limit exceeded. ERROR\0", TOO_LARGE),
        (b"stream: Can't open file or directory ERROR\0",
         Verdict("failed", "Can't open file or directory")),
        (b"stream: Time limit reached. ERROR\0", Verdict("failed", "Time limit reached")),
    ],
)  # fmt: skip
def test_the_daemons_words(reply: bytes, verdict: Verdict) -> None:
    """Each of them is read as what it is."""
    assert read_verdict(reply) == verdict
