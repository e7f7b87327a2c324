"""A proxy in front of an HTTP server that misbehaves as networks and other stores do.

It passes bytes through; a test may let it cut answers short, swallow one, or answer in the server's
place. It reads no more of HTTP than each connection's first request line and headers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

_STEP = 65_536


class Meddler:
    """A proxy to `target`; make it by `meddling_with`.

    Attributes:
        requests: The first line of every request seen, in order.
        cut_after: Close the connection after so many bytes of an answer; None: never.
        n_cuts: How often to do so; counted down.
        swallow: Says of a request's head whether its answer is thrown away, with the connection.
        answer: Says of a request's head what to answer in the server's place; None: pass it on.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port or 80)
        self.endpoint = ""
        self.requests: list[str] = []
        self.cut_after: int | None = None
        self.n_cuts = 0
        self.swallow: Callable[[str], bool] = lambda _head: False
        self.answer: Callable[[str], bytes | None] = lambda _head: None
        self._connections: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task that we hold: one that nobody holds may be collected."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """End the connections that are still open."""
        open_ones = list(self._connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        # A transport that was closed a moment ago lets go of its socket in the loop's next turn.
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request and hang up, so that every request is seen."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve_one(reader, writer)
            await _close(writer)
        finally:
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        text = head.decode("latin-1")
        self.requests.append(text.partition("\r\n")[0])
        made = self.answer(text)
        if made is not None:
            writer.write(made)
            await writer.drain()
        else:
            await self._pass_on(text, reader, writer)

    async def _pass_on(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream, sender = await asyncio.open_connection(*self._target)
        lines = [x for x in head.rstrip().split("\r\n") if not x.lower().startswith("connection:")]
        sender.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        sending = asyncio.create_task(_copy(reader, sender))
        try:
            await self._answer(upstream, writer, is_swallowed=self.swallow(head))
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await _close(sender)

    async def _answer(
        self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_swallowed: bool
    ) -> None:
        n_left = self.cut_after if self.n_cuts and self.cut_after is not None else None
        while chunk := await upstream.read(_STEP):
            if is_swallowed and not chunk.startswith(b"HTTP/1.1 100"):
                break
            if n_left is not None and len(chunk) >= n_left:
                writer.write(chunk[:n_left])
                self.n_cuts -= 1
                break
            n_left = None if n_left is None else n_left - len(chunk)
            writer.write(chunk)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_STEP):
        writer.write(chunk)
        await writer.drain()


@contextlib.asynccontextmanager
async def meddling_with(target: str) -> AsyncGenerator[Meddler]:
    """Run a proxy to `target` on a free loopback port."""
    meddler = Meddler(target)
    server = await asyncio.start_server(meddler.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    meddler.endpoint = f"http://127.0.0.1:{port}"
    try:
        yield meddler
    finally:
        server.close()
        await meddler.close()
        await server.wait_closed()
