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
from agentsight.server.attachments.deliveries import (
    key_delivery,
    link_delivery,
    link_refused,
    split_link,
)
from agentsight.server.attachments.model import ConversationFiles
from agentsight.server.attachments.refusals import refusal_of
from agentsight.server.attachments.serving import serve_blob
from agentsight.server.attachments.shapes import (
    ConversationFilesShape,
    shape_conversation_files,
)
from agentsight.server.ids import ConversationPk
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem
from agentsight.server.queries import read_flag
from agentsight.server.request_context import parts_of
from agentsight.server.text import mend_text
from agentsight.server.web.auth import KeyFinder, access_of, authenticate, reads
from agentsight.server.web.bases import Bases
from agentsight.server.web.fields import parse_row_id
from agentsight.server.web.openapi import with_query

HOT_PATH = re.compile(r"/api/conversations/([0-9]{1,16})/attachments/?")
"""The one call's path, where it can be answered without the framework."""
_INSISTED = '{"allow_infected": true}'
"""What the audit log says of an infected file that was given to who insisted."""
_ENCODER = msgspec.json.Encoder()


async def serve_link(parts: Parts, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a signed link (GET, HEAD) with the file's bytes.

    Raises:
        Problem: 404 for a link that was altered, has expired or whose file is deleted; 403 when
            the file is infected or blocked; 410 when the bytes are gone behind our back.
    """
    uid, token, name = split_link(parts, scope["path"])
    row = await service.served_file(parts, uid)
    if row is None:
        raise link_refused("unknown")
    await serve_blob(
        cast("HTTPScope", scope),
        receive,
        send,
        store=parts.blobs,
        row=row,
        delivery=link_delivery(parts, row, token, name, now_us=parts.clock()),
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
    files_base = bases.files_url or api_base
    to = Addresses(api_base, files_base, parts.clock(), parts.settings.examine)
    files = await _conversation_files(parts, access, pk_text)
    return _ENCODER.encode(shape_conversation_files(files, access.agent_id, parts.links, to))


async def _conversation_files(parts: Parts, access: Access, pk_text: str) -> ConversationFiles:
    return await service.conversation_files(parts, access, ConversationPk(parse_row_id(pk_text)))


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
    parts, access = parts_of(request), access_of(request)
    files = await _conversation_files(parts, access, pk)
    return shape_conversation_files(files, access.agent_id, parts.links, addresses_of(request))


@get(
    "/api/v1/attachments/{uid:str}/content/",
    guards=[reads],
    tags=["attachments"],
    summary="The bytes of a file, by key",
    media_type="application/octet-stream",
    operation_class=with_query(
        {"allow_infected": "`true` asks for a file that the malware scan has found to be infected."}
    ),
)
async def read_content(request: Request[Any, Any, Any], uid: FromPath[str]) -> ASGIApp:
    """Read a file under its permanent address, which asks for a key and never expires.

    An infected file is refused (403) but to a key that may write and says `allow_infected=true`; it
    then is a download, whatever it is.
    """
    parts, access = parts_of(request), access_of(request)
    insists = read_flag(request.query_params, "allow_infected")
    if insists and not access.may(Permission.WRITE):
        raise Problem(403, "permission_denied", "allow_infected needs a key that may write.")
    row = await service.owned_file(parts, access, mend_text(uid))
    refusal = refusal_of(row, allow_infected=insists)
    if refusal is not None:
        raise refusal
    # Without insisting, `refusal_of` had withheld it.
    detail = _INSISTED if row.scan == "infected" else None
    parts.audit.read(access, "open", "attachment", row.uid, detail=detail)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await serve_blob(
            cast("HTTPScope", scope),
            receive,
            send,
            store=parts.blobs,
            row=row,
            delivery=replace(key_delivery(parts), as_download=row.scan == "infected"),
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
