"""A real clamd with one signature of our own, and one that only says what clamd has said.

Signatures are not downloaded: the one here finds the EICAR test string (www.eicar.org), which every
scanner finds. It is put together here, so that no scanner takes this repository for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from tests.support.proxies import free_port

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD" + b"-ANTIVIRUS-TEST-FILE!$H+H*"
SIGNATURE = "AgentSight.Test.Eicar.UNOFFICIAL"
"""How clamd names what a signature of nobody's finds."""
STREAM_MAX_BYTES = 2 * 1024 * 1024
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_START_TIMEOUT_S = 60.0


def find_clamd() -> str | None:
    """Return the program, or None where it cannot be installed."""
    return shutil.which("clamd", path=_PATH)


@contextlib.contextmanager
def real_clamd(program: str, directory: Path) -> Iterator[str]:
    """Run clamd on a free port, and give its address."""
    signatures = directory / "signatures"
    signatures.mkdir()
    line = f"AgentSight.Test.Eicar:0:*:{EICAR.hex()}\n"
    (signatures / "test.ndb").write_text(line)
    port = free_port()
    config = directory / "clamd.conf"
    config.write_text(
        f"Foreground yes\nTCPAddr 127.0.0.1\nTCPSocket {port}\nDatabaseDirectory {signatures}\n"
        f"TemporaryDirectory {directory}\nStreamMaxLength {STREAM_MAX_BYTES}\nMaxThreads 4\n"
        "ReadTimeout 30\n"
    )
    setpriv = shutil.which("setpriv")
    # So that no daemon outlives a test process that was killed.
    guard = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    process = subprocess.Popen(
        [*guard, program, f"--config-file={config}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said: list[bytes] = []
    is_settled = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if b"Listening daemon" in line or b"Self checking" in line:
                is_settled.set()
        is_settled.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        is_settled.wait(_START_TIMEOUT_S)
        if process.poll() is not None:
            raise RuntimeError(b"".join(said).decode(errors="replace"))
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


Answer = Callable[[bytes], bytes | None]
"""What to say to a stream: after each chunk, with all that has come; None says nothing yet."""


def recorded(stream: bytes) -> bytes:
    """Say what clamd 1.4.6 said of such a stream."""
    return b"stream: %b FOUND\0" % SIGNATURE.encode() if EICAR in stream else b"stream: OK\0"


class FakeClamd:
    """Speaks clamd's protocol, and says and does at the end of a stream what the test wants.

    Args:
        at_end: The reply to a whole stream; None hangs up without one.
        in_between: The reply in the middle of a stream, after which it hangs up, as clamd does at
            its StreamMaxLength.
        pong: The reply to PING.
    """

    def __init__(
        self,
        *,
        at_end: Answer = recorded,
        in_between: Answer = lambda _stream: None,
        pong: bytes = b"PONG\0",
    ) -> None:
        self.at_end, self.in_between, self.pong = at_end, in_between, pong
        self.streams: list[bytes] = []
        self.address = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeClamd]:
        """Listen on a free port; `address` says which."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            command = await reader.readuntil(b"\0")
            reply = self.pong if command == b"zPING\0" else await self._stream(reader)
            writer.write(reply or b"")
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _stream(self, reader: asyncio.StreamReader) -> bytes | None:
        stream = b""
        self.streams.append(stream)
        while size := int.from_bytes(await reader.readexactly(4), "big"):
            stream += await reader.readexactly(size)
            self.streams[-1] = stream
            reply = self.in_between(stream)
            if reply is not None:
                return reply
        return self.at_end(stream)
