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

from agentsight.server import metrics
from agentsight.server.access import Access, Permission, link_access
from agentsight.server.attachments import service
from agentsight.server.attachments.addresses import Addresses, addresses_of
from agentsight.server.attachments.model import ConversationFiles, ServedRow
from agentsight.server.attachments.refusals import refusal_of
from agentsight.server.attachments.serving import Delivery, cache_control, serve_blob
from agentsight.server.attachments.shapes import (
    ConversationFilesShape,
    shape_conversation_files,
)
from agentsight.server.ids import AgentId, ConversationPk
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, invalid
from agentsight.server.queries import parse_flag
from agentsight.server.request_context import parts_of
from agentsight.server.text import mend_text
from agentsight.server.web.auth import KeyFinder, access_of, authenticate, reads
from agentsight.server.web.bases import Bases
from agentsight.server.web.fields import parse_row_id
from agentsight.server.web.openapi import with_query

_LINK = re.compile(r"/files/([0-9a-f-]{36})/([^/]{1,100})/(.*)", re.DOTALL)
HOT_PATH = re.compile(r"/api/conversations/([0-9]{1,16})/attachments/?")
"""The one call's path, where it can be answered without the framework."""
_ENCODER = msgspec.json.Encoder()


def link_refused(reason: str = "invalid") -> Problem:
    """Make the answer for every link that does not work; it tells nothing more.

    Args:
        reason: For the counter alone.
    """
    metrics.links_refused.labels(reason).inc()
    return Problem(404, "link_invalid", "This link is not valid, or its file is gone.")


def _delivery(parts: Parts, cache: str) -> Delivery:
    # With files on an origin of their own, our pages are a stranger to them unless named.
    pages = (parts.settings.public_url,) if parts.settings.public_url else ()
    return Delivery(
        cache,
        accel_prefix=parts.settings.x_accel_redirect,
        frame_ancestors=pages,
        redirects=parts.settings.downloads == "redirect",
    )


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


def split_link(parts: Parts, path: str) -> tuple[str, str, str]:
    """Cut a link's path into uid, token and what follows; what it names is still to be checked.

    Raises:
        Problem: 404 for what is malformed or has expired: the database need not be asked.
    """
    found = _LINK.fullmatch(path)
    if found is None:
        raise link_refused()
    uid, token, rest = found.groups()
    if parts.links.expires_at_us(token, parts.clock()) is None:
        was_right = parts.links.expires_at_us(token, 0) is not None
        raise link_refused("expired" if was_right else "invalid")
    return uid, token, rest


def link_delivery(
    parts: Parts, row: ServedRow, token: str, name: str, *, now_us: int, action: str = "open"
) -> Delivery:
    """Check a link to a file against the file's row, and say how it is handed out.

    It is noted in the audit log.

    Args:
        parts: The server's.
        row: What the link's uid names.
        token: The link's middle part.
        name: The file name in the link; for what was made of a file, the row's own.
        now_us: The time.
        action: What the audit log calls it: `open` or `preview`.

    Raises:
        Problem: 404 for a link that was altered or has expired, and for a file that is deleted;
            403 for one that is infected or blocked.
    """
    expires_at = parts.links.verify(
        token,
        name,
        agent_id=row.agent_id,
        attachment_uid=row.uid,
        filename=row.filename,
        now_us=now_us,
    )
    if expires_at is None:
        raise link_refused()
    if row.is_deleted:
        raise link_refused("deleted")
    refusal = refusal_of(row)
    if refusal is not None:
        metrics.links_refused.labels(refusal.code).inc()
        raise refusal
    parts.audit.read(link_access(AgentId(row.agent_id)), action, "attachment", row.uid)
    is_public = parts.settings.files_cache == "public"
    return _delivery(parts, cache_control(expires_at, now_us, is_public=is_public))


def key_delivery(parts: Parts) -> Delivery:
    """Say how a file is handed out to who asks with a key."""
    return replace(_delivery(parts, "private, no-cache"), resource_policy="same-origin")


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
    insists = _allows_infected(request)
    if insists and not access.may(Permission.WRITE):
        raise Problem(403, "permission_denied", "allow_infected needs a key that may write.")
    row = await service.owned_file(parts, access, mend_text(uid))
    refusal = refusal_of(row, allow_infected=insists)
    if refusal is not None:
        raise refusal
    parts.audit.read(access, "open", "attachment", row.uid)

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


def _allows_infected(request: Request[Any, Any, Any]) -> bool:
    raw = str(request.query_params.get("allow_infected", ""))
    try:
        return parse_flag(raw) if raw.strip() else False
    except ValueError as error:
        raise invalid("allow_infected", str(error)) from error


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
