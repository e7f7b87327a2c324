"""Let a refusal be heard by a client that is still sending.

Who answers before it has read the body, and then closes, resets the connection: the kernel throws
the answer away together with what it had not handed over (RFC 9112, section 9.6, "lingering
close"). So the answer goes out at once, whole, and the connection ends only after the rest of the
body was read and dropped, up to a number of bytes and seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, cast

from litestar.types import Receive, Send

from agentsight._contract import MAX_JSON_BODY_BYTES

SMALL_BODY_BYTES: Final = 64 * 1024
"""What is left of a smaller body the server drops by itself, and keeps the connection."""
MAX_DRAINED_BYTES: Final = 2 * MAX_JSON_BODY_BYTES
"""Whoever sends one file too many in JSON is past the limit by less than as much again."""
MAX_DRAINED_S: Final = 5.0


def is_large_body(name: bytes, value: bytes) -> bool:
    """Say whether this header announces a body that the server would not drop in one go."""
    if name == b"content-length":
        return len(value) > 5 or (value.isdigit() and int(value) > SMALL_BODY_BYTES)
    return name == b"transfer-encoding"


class Lingering:
    """Stands between an application and its server for one request with a large body.

    Use its `receive` and `send` in place of the server's.
    """

    __slots__ = ("_is_lingering", "_is_read", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_read = False
        self._is_lingering = False

    async def receive(self) -> Any:
        """Receive, and notice when the body has ended."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Any) -> None:
        """Send; before the last piece of an answer to a body that was not read, read it."""
        if message["type"] == "http.response.start":
            self._is_lingering = not self._is_read
            if self._is_lingering:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif self._is_lingering and not message.get("more_body", False):
            # Our server takes what it is told as the client's hang-up once the answer is complete,
            # so the body is read while the answer still lacks its empty last piece.
            await self._send(cast("Any", {**message, "more_body": True}))
            await self._drain()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drain(self) -> None:
        n_left = MAX_DRAINED_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_DRAINED_S):
                while not self._is_read and n_left > 0:
                    message = await self.receive()
                    n_left -= len(message.get("body", b""))
