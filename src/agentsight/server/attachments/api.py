"""Doors to files: the one call, the signed links, the permanent address.

`/files/…` and the one call are asked most; `front_door.py` calls their plain forms (`serve_link`,
`answer_conversation_files`) before the framework, and the handlers here document and share them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, cast

import msgspec
from litestar import Request, get
from litestar.params import FromPath
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from agentsight.server.access import Access, Permission
from agentsight.server.attachments import service
from agentsight.server.attachments.addresses import Addresses, addresses_of
from agentsight.server.attachments.serving import Delivery, cache_control, serve_blob
from agentsight.server.attachments.shapes import (
    ConversationFilesShape,
    shape_conversation_files,
)
from agentsight.server.ids import ConversationPk
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem
from agentsight.server.request_context import parts_of
from agentsight.server.text import mend_text
from agentsight.server.web.auth import KeyFinder, access_of, authenticate, reads
from agentsight.server.web.bases import Bases
from agentsight.server.web.fields import parse_row_id

_LINK = re.compile(r"/files/([0-9a-f-]{36})/([^/]{1,100})/(.*)", re.DOTALL)
HOT_PATH = re.compile(r"/api/conversations/([0-9]{1,16})/attachments/?")
"""The one call's path, where it can be answered without the framework."""
_ENCODER = msgspec.json.Encoder()


def link_refused() -> Problem:
    """Make the answer for every link that does not work; it tells nothing more."""
    return Problem(404, "link_invalid", "This link is not valid, or its file is gone.")


def _delivery(parts: Parts, cache: str) -> Delivery:
    # With files on an origin of their own, our pages are a stranger to them unless named.
    pages = (parts.settings.public_url,) if parts.settings.public_url else ()
    return Delivery(cache, accel_prefix=parts.settings.x_accel_redirect, frame_ancestors=pages)


async def serve_link(parts: Parts, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a signed link (GET, HEAD) with the file's bytes.

    Raises:
        Problem: 404 for a link that was altered, has expired or whose file is deleted; 410 when
            the bytes are gone behind our back.
    """
    found = _LINK.fullmatch(scope["path"])
    now = parts.clock()
    if found is None or parts.links.expires_at_us(found[2], now) is None:
        raise link_refused()
    uid, token, name = found.groups()
    row = await service.served_file(parts, uid)
    if row is None:
        raise link_refused()
    expires_at = parts.links.verify(
        token,
        name,
        agent_id=row.agent_id,
        attachment_uid=row.uid,
        filename=row.filename,
        now_us=now,
    )
    if expires_at is None or row.is_deleted:
        raise link_refused()
    is_public = parts.settings.files_cache == "public"
    cache = cache_control(expires_at, now, is_public=is_public)
    await serve_blob(
        cast("HTTPScope", scope),
        receive,
        send,
        store=parts.blobs,
        row=row,
        delivery=_delivery(parts, cache),
    )


async def answer_conversation_files(
    parts: Parts, keys: KeyFinder, bases: Bases, scope: Scope, pk_text: str
) -> bytes:
    """Answer the one call: all of a conversation's files, as JSON.

    Raises:
        Problem: 401, 403, or 404 when there is no such conversation for this key.
    """
    header = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            header = value.decode("latin-1")
            break
    access = await authenticate(header, keys, Permission.READ)
    api_base = bases.public_base(scope)
    to = Addresses(api_base, bases.files_url or api_base, parts.clock())
    return _ENCODER.encode(await _conversation_files(parts, access, pk_text, to))


async def _conversation_files(
    parts: Parts, access: Access, pk_text: str, to: Addresses
) -> ConversationFilesShape:
    pk = ConversationPk(parse_row_id(pk_text))
    files = await service.conversation_files(parts, access, pk)
    return shape_conversation_files(files, access.agent_id, parts.links, to)


@get(
    "/api/conversations/{pk:str}/attachments/",
    guards=[reads],
    tags=["attachments"],
    summary="All files of a conversation",
)
async def list_conversation_files(
    request: Request[Any, Any, Any], pk: FromPath[str]
) -> ConversationFilesShape:
    """Read all files of a conversation, each with a link that works.

    Grouped by message in `messages`, flat in `attachments`; deleted conversations too.
    """
    return await _conversation_files(
        parts_of(request), access_of(request), pk, addresses_of(request)
    )


@get(
    "/api/v1/attachments/{uid:str}/content/",
    guards=[reads],
    tags=["attachments"],
    summary="The bytes of a file, by key",
    media_type="application/octet-stream",
)
async def read_content(request: Request[Any, Any, Any], uid: FromPath[str]) -> ASGIApp:
    """Read a file under its permanent address, which asks for a key and never expires."""
    parts, access = parts_of(request), access_of(request)
    row = await service.owned_file(parts, access, mend_text(uid))

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await serve_blob(
            cast("HTTPScope", scope),
            receive,
            send,
            store=parts.blobs,
            row=row,
            delivery=replace(_delivery(parts, "private, no-cache"), resource_policy="same-origin"),
        )

    return respond


@get(
    "/files/{uid:str}/{token:str}/{filename:str}",
    tags=["attachments"],
    summary="The bytes of a file, by link",
    media_type="application/octet-stream",
)
async def open_link(
    request: Request[Any, Any, Any],
    uid: FromPath[str],
    token: FromPath[str],
    filename: FromPath[str],
) -> ASGIApp:
    """Open a signed link, the `file_url` of a row. It needs no key.

    Ranges, If-Range, If-None-Match and HEAD work. Pictures, sound, video, PDF and plain text are
    shown where their bytes agree with their type; everything else is a download.
    """
    del uid, token, filename
    parts = parts_of(request)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await serve_link(parts, scope, receive, send)

    return respond


routes = [list_conversation_files, read_content, open_link]
