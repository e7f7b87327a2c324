"""The two messages of a plain ASGI answer, for responders that pass the framework by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from litestar.types import HTTPResponseBodyEvent, HTTPResponseStartEvent, Send


async def send_start(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Begin an answer; `send_body` follows, once at least."""
    start = {"type": "http.response.start", "status": status, "headers": headers}
    await send(cast("HTTPResponseStartEvent", start))


async def send_body(send: Send, body: bytes, *, more: bool = False) -> None:
    """Send bytes of an answer, and end it unless more follow."""
    event = {"type": "http.response.body", "body": body, "more_body": more}
    await send(cast("HTTPResponseBodyEvent", event))
