"""The door to all files of a conversation in one ZIP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

from litestar import Request, get
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from agentsight.server.archives.model import safe_name
from agentsight.server.archives.service import Archive, under_way
from agentsight.server.attachments.addresses import addresses_of
from agentsight.server.attachments.names import content_disposition
from agentsight.server.blobs import StorageUnavailable
from agentsight.server.conversations.references import paths_of, ref_in
from agentsight.server.conversations.service import resolve_ref
from agentsight.server.db.errors import DatabaseError
from agentsight.server.request_context import parts_of
from agentsight.server.web.auth import access_of, reads
from agentsight.server.web.leaving import disconnected
from agentsight.server.web.sending import send_body, send_start

log = logging.getLogger("agentsight.server")
_MEDIA_TYPE: Final = "application/zip"


@get(
    paths_of("attachments/zip/"),
    guards=[reads],
    tags=["attachments"],
    summary="All files of a conversation, as one ZIP",
    media_type=_MEDIA_TYPE,
)
async def pack_files(
    request: Request[Any, Any, Any], ref: FromPath[str] = "", conversation_id: FromPath[str] = ""
) -> ASGIApp:
    """Stream a ZIP of a conversation's files, with a folder for each message and a `manifest.json`.

    `ref` is the conversation's row id or its uid; deleted conversations too. Names are made safe
    and unique. The manifest, last in the ZIP, has the shape of the call that lists the files; each
    has its `path` besides, or is `missing` (its bytes are gone) or `withheld` (`infected`,
    `quarantined`). Nothing is held whole, so there is no length: a ZIP that breaks off was cut.
    """
    del ref, conversation_id  # one of the two; `ref_in` says which
    parts, access, to = parts_of(request), access_of(request), addresses_of(request)
    head = await resolve_ref(parts, access, ref_in(request))
    parts.audit.read(access, "download", "conversation", head.uid)
    name = safe_name(f"{head.conversation_id}.zip")
    chunks = Archive(parts, access, head, to).chunks()
    async with contextlib.AsyncExitStack() as opening:
        opening.enter_context(under_way.one(access.agent_id))
        await opening.enter_async_context(contextlib.aclosing(chunks))
        # Before the answer begins: a store that is away is a 503, and not a broken ZIP.
        first = await anext(chunks)
        opened = opening.pop_all()

    async def respond(_scope: Scope, receive: Receive, send: Send) -> None:
        async with opened:
            await _send(receive, send, name, first, chunks)

    return respond


async def _send(
    receive: Receive, send: Send, name: str, first: bytes, rest: AsyncGenerator[bytes]
) -> None:
    """Send the chunks; stop when the client goes away, and cut the connection when reading fails.

    Returning without the last message makes the server do that: nobody takes half a ZIP for whole.
    """
    headers = [
        (b"content-type", _MEDIA_TYPE.encode()),
        (b"content-disposition", content_disposition("attachment", name).encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    await send_start(send, 200, headers)
    await send_body(send, first, more=True)
    gone = asyncio.create_task(disconnected(receive))
    try:
        async for chunk in rest:
            if gone.done():
                return
            await send_body(send, chunk, more=True)
    except (StorageUnavailable, DatabaseError) as error:
        log.error("a ZIP broke off while it was sent: %s", error)
        return
    finally:
        gone.cancel()
    await send_body(send, b"")


routes = [pack_files]
