"""The bare ASGI application that others are compared with: a body of a given size, and no more."""

from __future__ import annotations

import os
from typing import Any

_BODY = b"x" * int(os.environ.get("BARE_BODY_BYTES", "2"))
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything alike."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})
