"""Talk to a ClamAV daemon: PING, and INSTREAM with the bytes as they come from the store.

Why not a library: docs/decisions/0024-malware-scans.md. One connection a command, as clamd closes
it after each (clamd(8)).

It works on the socket itself. clamd says "too large" in the middle of a stream and hangs up; a
transport of the event loop that then fails to write drops what has arrived and was not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final
from urllib.parse import urlsplit

from agentsight.server.scans.model import DaemonAway, Verdict, read_verdict

CONNECT_TIMEOUT_S: Final = 5.0
SCAN_TIMEOUT_S: Final = 600.0
"""One file from connecting to the verdict: sending 1 GiB, and unpacking what is in it."""
_MAX_REPLY_BYTES: Final = 4096


async def ping(address: str) -> None:
    """Make sure that the daemon at `host:port` answers.

    Raises:
        DaemonAway: It does not.
    """
    async with _connected(address, CONNECT_TIMEOUT_S) as daemon:
        await asyncio.get_running_loop().sock_sendall(daemon, b"zPING\0")
        reply = await _reply(daemon)
    if reply != b"PONG\0":
        raise DaemonAway(f"{address} answered {reply[:100]!r} to PING")


async def scan_stream(
    address: str, chunks: AsyncIterator[bytes], *, timeout_s: float = SCAN_TIMEOUT_S
) -> Verdict:
    """Have bytes scanned while they are read; nothing is held whole.

    Args:
        address: `host:port` of the daemon.
        chunks: The bytes; each is sent as it is, so below 4 GiB.
        timeout_s: For all of it.

    Raises:
        DaemonAway: No verdict; what `chunks` raises goes through.
    """
    async with _connected(address, timeout_s) as daemon:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has said enough
            await _send(daemon, chunks)
        return read_verdict(await _reply(daemon))


async def _send(daemon: socket.socket, chunks: AsyncIterator[bytes]) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(daemon, b"zINSTREAM\0")
    async for chunk in chunks:
        if chunk:  # a length of zero is the end
            await loop.sock_sendall(daemon, len(chunk).to_bytes(4, "big"))
            await loop.sock_sendall(daemon, chunk)
    await loop.sock_sendall(daemon, bytes(4))


async def _reply(daemon: socket.socket) -> bytes:
    """Read up to the NUL that ends a reply, or to the end."""
    loop = asyncio.get_running_loop()
    reply = b""
    while len(reply) < _MAX_REPLY_BYTES and not reply.endswith(b"\0"):
        piece = await loop.sock_recv(daemon, _MAX_REPLY_BYTES)
        if not piece:
            break
        reply += piece
    return reply


@contextlib.asynccontextmanager
async def _connected(address: str, timeout_s: float) -> AsyncGenerator[socket.socket]:
    """Connect for one command, within one total time; our own failures become `DaemonAway`."""
    try:
        async with asyncio.timeout(timeout_s):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                daemon = await _connect(address)
            with daemon:
                yield daemon
    except TimeoutError as error:
        raise DaemonAway(f"no answer from {address} in time") from error
    except OSError as error:
        raise DaemonAway(f"{address}: {error.strerror or error}") from error


async def _connect(address: str) -> socket.socket:
    """Connect to the first of the name's addresses that answers."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(f"//{address}")
    places = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    for index, (family, kind, protocol, _, place) in enumerate(places):
        daemon = socket.socket(family, kind, protocol)
        daemon.setblocking(False)
        try:
            await loop.sock_connect(daemon, place)
        except OSError:
            daemon.close()
            if index == len(places) - 1:
                raise
        except BaseException:
            daemon.close()
            raise
        else:
            return daemon
    raise DaemonAway(f"{address} has no address")
