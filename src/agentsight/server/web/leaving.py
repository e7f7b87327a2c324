"""Notice that a client has gone away while it is being answered.

The server swallows what is sent to a closed connection, so somebody must listen.
"""

from __future__ import annotations

from litestar.types import Receive


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone away; made a task, it is cancelled by whoever made it."""
    while (await receive())["type"] != "http.disconnect":
        pass
