"""Doors to what was made of files: by the file's own link, and by key.

Whoever may open a file may see what was made of it, so its link's signature opens both. Like the
files themselves, links are answered before the framework (`front_door.py`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final, cast

from litestar import Request, get
from litestar.params import FromPath
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from agentsight.server.attachments.deliveries import (
    key_delivery,
    link_delivery,
    link_refused,
    split_link,
)
from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.names import file_stem
from agentsight.server.attachments.refusals import refusal_of
from agentsight.server.attachments.serving import Delivery, serve_blob, serve_text
from agentsight.server.parts import Parts
from agentsight.server.previews import service
from agentsight.server.previews.model import (
    PLAYBACK_KIND,
    ROW_SIZE,
    TEXT_KIND,
    THUMBNAIL_SIZES,
    Found,
    Wanted,
    derived_name,
    wanted_by_path,
    wanted_thumbnail,
)
from agentsight.server.problems import invalid
from agentsight.server.request_context import parts_of
from agentsight.server.text import mend_text
from agentsight.server.web.auth import access_of, reads
from agentsight.server.web.openapi import with_query

AnyRequest = Request[Any, Any, Any]
PREVIEW_LINK: Final = re.compile(r"/files/[^/]*/[^/]*/(?:preview|playback)/.*", re.DOTALL)
"""Links to what was made of a file; a file's own name has no slash."""
_SIZES: Final = ", ".join(str(size) for size in THUMBNAIL_SIZES)


async def serve_preview_link(parts: Parts, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the link of a thumbnail, a text preview or a copy that plays (GET, HEAD).

    Raises:
        Problem: As for the file itself; 404 `no_preview` where none can be made.
    """
    uid, token, rest = split_link(parts, scope["path"])
    wanted = wanted_by_path(rest)
    if wanted is None:
        raise link_refused()
    found = await service.find_by_link(parts, uid, wanted)
    if found is None:
        raise link_refused("unknown")
    delivery = link_delivery(
        parts, found.row, token, found.row.filename, now_us=parts.clock(), action="preview"
    )
    if wanted.kind == PLAYBACK_KIND and not _is_named(found, wanted):
        raise service.no_preview(wanted)
    await _serve(parts, scope, receive, send, found=found, wanted=wanted, delivery=delivery)


def _is_named(found: Found, wanted: Wanted) -> bool:
    """Say whether a copy is asked for by its one name, so that caches know it by one."""
    return wanted.name == f"{file_stem(found.row.filename)}.{found.facts.playback}"


async def _serve(
    parts: Parts,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    found: Found,
    wanted: Wanted,
    delivery: Delivery,
) -> None:
    http = cast("HTTPScope", scope)
    if wanted.kind == TEXT_KIND:
        text = await service.text_preview(parts, found)
        row = replace(found.row, filename=derived_name(wanted, found.row.filename, "txt"))
        await serve_text(http, send, text, row=row, delivery=delivery)
        return

    async def send_row(row: ServedRow) -> None:
        await serve_blob(http, receive, send, store=parts.blobs, row=row, delivery=delivery)

    await service.serve_derived(parts, found, wanted, send_row)


async def _by_key(request: AnyRequest, uid: str, wanted: Wanted | None) -> ASGIApp:
    """Answer who asks by key; without a wish: what the file's row offers."""
    parts, access = parts_of(request), access_of(request)
    asked = wanted or wanted_thumbnail(ROW_SIZE)
    found = await service.find_owned(parts, access, mend_text(uid), asked)
    refusal = refusal_of(found.row)
    if refusal is not None:
        raise refusal
    if wanted is None and found.facts.preview == "text":
        asked = Wanted(TEXT_KIND)
    parts.audit.read(access, "preview", "attachment", found.row.uid)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await _serve(
            parts, scope, receive, send, found=found, wanted=asked, delivery=key_delivery(parts)
        )

    return respond


@get(
    "/api/v1/attachments/{uid:str}/preview/",
    guards=[reads],
    tags=["attachments"],
    summary="A preview of a file, by key",
    media_type="image/webp",
    operation_class=with_query(
        {
            "size": f"The longest edge of the picture in pixels: {_SIZES}; or `text` for the start"
            " of the file's text. Left out: what the file's row offers."
        }
    ),
)
async def read_preview(request: AnyRequest, uid: FromPath[str]) -> ASGIApp:
    """Read a picture of a file (WebP), or the start of its text.

    Pictures, first pages of PDFs and frames of videos; for text, office documents and data their
    first 20,000 characters. It is made when it is first asked for. 404 `no_preview` where there is
    none, as for a damaged file.
    """
    size = str(request.query_params.get("size", "")).strip()
    return await _by_key(request, uid, _wanted_by_size(size) if size else None)


def _wanted_by_size(text: str) -> Wanted:
    if text == TEXT_KIND:
        return Wanted(TEXT_KIND)
    if text not in {str(size) for size in THUMBNAIL_SIZES}:
        raise invalid("size", f"Not a size of previews; there are {_SIZES} and text.")
    return wanted_thumbnail(int(text))


@get(
    "/api/v1/attachments/{uid:str}/playback/",
    guards=[reads],
    tags=["attachments"],
    summary="A copy of a file that browsers play, by key",
    media_type="application/octet-stream",
)
async def read_playback(request: AnyRequest, uid: FromPath[str]) -> ASGIApp:
    """Read the copy of what phones send and browsers do not play or show.

    M4A of Opus and AMR voice notes, MP4 of 3GP, JPEG of HEIC and TIFF. The file itself stays as it
    came. 404 `no_preview` where no copy is needed or possible.
    """
    return await _by_key(request, uid, Wanted(PLAYBACK_KIND))


async def _answer_link(request: AnyRequest) -> ASGIApp:
    parts = parts_of(request)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        await serve_preview_link(parts, scope, receive, send)

    return respond


@get(
    "/files/{uid:str}/{token:str}/preview/{name:str}",
    tags=["attachments"],
    summary="A preview of a file, by link",
    media_type="image/webp",
)
async def open_preview(
    request: AnyRequest, uid: FromPath[str], token: FromPath[str], name: FromPath[str]
) -> ASGIApp:
    """Open the `preview_url` of a row. It needs no key.

    `128.webp`, `512.webp`, `1600.webp`: a picture of that longest edge; `text.txt`: the start of
    the text. The signature is that of the file's own link.
    """
    del uid, token, name
    return await _answer_link(request)


@get(
    "/files/{uid:str}/{token:str}/playback/{name:str}",
    tags=["attachments"],
    summary="A copy of a file that browsers play, by link",
    media_type="application/octet-stream",
)
async def open_playback(
    request: AnyRequest, uid: FromPath[str], token: FromPath[str], name: FromPath[str]
) -> ASGIApp:
    """Open the `playback_url` of a row. It needs no key. Ranges work as for files."""
    del uid, token, name
    return await _answer_link(request)


routes = [open_playback, open_preview, read_playback, read_preview]
