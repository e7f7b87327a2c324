"""Answer a request for a file's bytes: a plain ASGI responder, for links and for the permanent URL.

Whoever calls it has decided that the caller may have the file. A `Problem` is raised only before
the answer has begun; afterwards a failure cuts the connection, so that nobody takes half a file for
a whole one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from litestar.types import HTTPScope, Receive, Scope, Send

from agentsight.server import metrics
from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.names import content_disposition
from agentsight.server.attachments.presentation import present, served_type
from agentsight.server.blobs import BlobStore, BlobStream, ObjectMissing, StorageUnavailable
from agentsight.server.problems import Problem
from agentsight.server.web.errors import problem_body, request_id_of
from agentsight.server.web.leaving import disconnected
from agentsight.server.web.ranges import (
    RangeNotSatisfiable,
    http_date,
    is_match_refused,
    is_not_modified,
    is_range_wanted,
    parse_range,
)
from agentsight.server.web.sending import send_body, send_start
from agentsight.server.web.under_way import UnderWay

log = logging.getLogger("agentsight.server")

MAX_CACHED_S: Final = 3600
"""How long a cache may answer for us: a deleted file is gone from there an hour later at most."""
_WANTED_HEADERS: Final = frozenset(
    {b"range", b"if-range", b"if-none-match", b"if-modified-since", b"if-match"}
)

_REDIRECT_S: Final = 60
"""How long a link to the store works: it is followed at once, and what has begun goes on."""
_TOLD_TO_STORE: Final = frozenset({b"content-type", b"content-disposition", b"cache-control"})
_TOLD_WITH_REDIRECT: Final = frozenset(
    {b"cross-origin-resource-policy", b"referrer-policy", b"x-content-type-options"}
)

FILES_OF_ONE_AGENT: Final = 200
"""Long answers under way in a process: of one that nobody reads, three chunks are held."""
_SHORT_BYTES: Final = 256 * 1024
"""One chunk: the connection takes it whole, and nothing is held open."""
_under_way = UnderWay(FILES_OF_ONE_AGENT, "files")

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one door hands out files.

    Args:
        cache_control: The header's value; see `cache_control`.
        accel_prefix: Where nginx serves the local store internally (`/_blobs`): the answer is then
            its headers alone, and nginx sends the bytes. None: we send them.
        resource_policy: Who may embed the bytes without CORS. A signed link carries its permission
            in itself, so anyone who has it may; a door that reads a session says `same-origin`.
        frame_ancestors: Origins that may frame a PDF besides the files' own.
        as_download: Never inline, whatever it is.
        redirects: Send downloads and pictures to the store itself, by a link of a minute.
    """

    cache_control: str
    accel_prefix: str | None = None
    resource_policy: Literal["cross-origin", "same-site", "same-origin"] = "cross-origin"
    frame_ancestors: tuple[str, ...] = ()
    as_download: bool = False
    redirects: bool = False


def cache_control(expires_at_us: int, now_us: int, *, is_public: bool) -> str:
    """Build the header for a link: kept for an hour at most, never longer than the link lives."""
    left_s = max(0, (expires_at_us - now_us) // 1_000_000)
    return f"{'public' if is_public else 'private'}, max-age={min(left_s, MAX_CACHED_S)}"


async def serve_blob(
    scope: HTTPScope,
    receive: Receive,
    send: Send,
    *,
    store: BlobStore,
    row: ServedRow,
    delivery: Delivery,
) -> None:
    """Answer GET or HEAD with a file, a part of it, or 304.

    Raises:
        Problem: Before anything was sent: 405, 410 when the bytes are gone behind our back, 412,
            503 when the store is away.
    """
    method = scope["method"]
    if method not in ("GET", "HEAD"):
        raise Problem(405, "method_not_allowed", "Method not allowed.")
    asked = _asked(scope)
    etag = f'"{row.sha256}"'
    if is_match_refused(asked.get(b"if-match"), etag):
        raise Problem(412, "invalid", "The file is not the one that If-Match names.")
    validators = _validators(row, etag, delivery)
    if is_not_modified(
        asked.get(b"if-none-match"), asked.get(b"if-modified-since"), etag, row.created_at
    ):
        await _send_headers(send, 304, validators)
        return
    headers = validators + _presentation_headers(row, delivery)
    if delivery.redirects and method == "GET" and await _redirect(send, store, row, headers):
        return
    if delivery.accel_prefix is not None:
        await _hand_to_nginx(send, store, row, headers, delivery.accel_prefix)
    elif method == "HEAD":
        await _require_whole(store, row)
        await _send_headers(send, 200, [*headers, _length(row.size_bytes)])
    else:
        await _get(scope, receive, send, store, row, headers, asked)


async def serve_text(
    scope: HTTPScope, send: Send, text: str, *, row: ServedRow, delivery: Delivery
) -> None:
    """Answer GET or HEAD with a short text made of a file, or 304.

    Raises:
        Problem: 405 before anything was sent.
    """
    if scope["method"] not in ("GET", "HEAD"):
        raise Problem(405, "method_not_allowed", "Method not allowed.")
    body = text.encode()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    validators = [
        header
        for header in _validators(row, etag, delivery)
        if header[0] not in (b"accept-ranges", b"last-modified")
    ]
    if is_not_modified(_asked(scope).get(b"if-none-match"), None, etag, row.created_at):
        await _send_headers(send, 304, validators)
        return
    shown = present("text/plain", "text/plain")
    headers = [
        *validators,
        (b"content-type", shown.content_type.encode("ascii")),
        (b"content-disposition", content_disposition("inline", row.filename).encode("ascii")),
        (b"content-security-policy", shown.content_security_policy.encode("ascii")),
        _length(len(body)),
    ]
    is_whole = scope["method"] == "GET"
    await _send_headers(send, 200, headers, more=is_whole)
    if is_whole:
        await send_body(send, body)


def _asked(scope: Scope) -> dict[bytes, str]:
    """Collect the request's headers that matter here; lists that came in lines are joined."""
    asked: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _WANTED_HEADERS:
            text = value.decode("latin-1")
            asked[name] = f"{asked[name]}, {text}" if name in asked else text
    return asked


async def _get(
    scope: Scope,
    receive: Receive,
    send: Send,
    store: BlobStore,
    row: ServedRow,
    headers: Headers,
    asked: Mapping[bytes, str],
) -> None:
    status, start, end = 200, 0, row.size_bytes
    wanted = asked.get(b"range")
    if wanted and is_range_wanted(asked.get(b"if-range"), f'"{row.sha256}"', row.created_at):
        try:
            found = parse_range(wanted, row.size_bytes)
        except RangeNotSatisfiable:
            await _send_not_satisfiable(scope, send, row.size_bytes)
            return
        if found is not None:
            status, (start, end) = 206, found
            text = f"bytes {start}-{end - 1}/{row.size_bytes}"
            headers = [*headers, (b"content-range", text.encode("ascii"))]
    is_long = end - start > _SHORT_BYTES
    with _under_way.one(row.agent_id) if is_long else contextlib.nullcontext():
        try:
            stream = await store.read(row.object_key, start, end)
        except ObjectMissing as error:
            raise _gone(row) from error
        async with stream:
            if stream.size_bytes != row.size_bytes:
                raise _gone(row)
            await _send_headers(send, status, [*headers, _length(end - start)], more=end > start)
            if end > start:
                await _send_stream(receive, send, stream, row, end - start)


async def _send_stream(
    receive: Receive, send: Send, stream: BlobStream, row: ServedRow, n_bytes: int
) -> None:
    """Send the chunks; stop when the client goes away."""
    left = n_bytes
    metrics.files_served.inc()
    gone: asyncio.Task[None] | None = None
    try:
        async for chunk in stream:
            left -= len(chunk)
            await send_body(send, chunk, more=left > 0)
            if left <= 0:
                return
            # One chunk needs no listener.
            if gone is None:
                gone = asyncio.create_task(disconnected(receive))
            elif gone.done():
                return
    except StorageUnavailable as error:
        # Too late for a status. Returning without the last chunk makes the server cut the
        # connection, and the client sees that the length is short.
        log.error("a file broke off while it was sent: %s: %s", row.object_key, error)
    finally:
        metrics.served_bytes.inc(n_bytes - max(left, 0))
        if gone is not None:
            gone.cancel()


async def _hand_to_nginx(
    send: Send, store: BlobStore, row: ServedRow, headers: Headers, prefix: str
) -> None:
    """Answer with headers alone; nginx adds length, ranges and bytes.

    Of our headers it passes on type, disposition and caching only: its configuration in `docs/`
    adds the others back from `$upstream_http_…`. Its own ETag and Accept-Ranges replace ours.
    """
    await _require_whole(store, row)
    target = f"{prefix.rstrip('/')}/{row.object_key}".encode("ascii")
    metrics.files_served.inc()
    passed_on = [header for header in headers if header[0] != b"accept-ranges"]
    await _send_headers(send, 200, [*passed_on, (b"x-accel-redirect", target)])


async def _redirect(send: Send, store: BlobStore, row: ServedRow, headers: Headers) -> bool:
    """Send the caller to the store's own door, where that is safe; say whether it was.

    The store adds no policies to its answers, so only what needs none goes there: pictures, which
    run nothing, and downloads.
    """
    passed_on = {name.decode(): value.decode() for name, value in headers if name in _TOLD_TO_STORE}
    is_download = passed_on["content-disposition"].startswith("attachment")
    if not (is_download or passed_on["content-type"].startswith("image/")):
        return False
    await _require_whole(store, row)  # a link to nothing would not be a 410
    url = await store.presigned_url(row.object_key, expires_s=_REDIRECT_S, headers=passed_on)
    if url is None:
        return False
    metrics.files_served.inc()
    kept = f"private, max-age={_REDIRECT_S // 2}"  # so that what a browser kept still works
    answer: Headers = [
        (b"location", url.encode("ascii")),
        (b"cache-control", kept.encode("ascii")),
        *((name, value) for name, value in headers if name in _TOLD_WITH_REDIRECT),
        _length(0),
    ]
    await _send_headers(send, 302, answer)
    return True


async def _require_whole(store: BlobStore, row: ServedRow) -> None:
    if await store.size(row.object_key) != row.size_bytes:
        raise _gone(row)


def _gone(row: ServedRow) -> Problem:
    log.error("an object is not there or not whole: %s of attachment %s", row.object_key, row.uid)
    return Problem(410, "gone", "The file's bytes are no longer there.")


def _validators(row: ServedRow, etag: str, delivery: Delivery) -> Headers:
    """Build what 200, 206 and 304 have in common."""
    return [
        (b"etag", etag.encode("ascii")),
        (b"last-modified", http_date(row.created_at).encode("ascii")),
        (b"cache-control", delivery.cache_control.encode("ascii")),
        (b"accept-ranges", b"bytes"),
        (b"cross-origin-resource-policy", delivery.resource_policy.encode("ascii")),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _presentation_headers(row: ServedRow, delivery: Delivery) -> Headers:
    shown = present(row.mime_type, row.detected_mime_type)
    policy = shown.content_security_policy
    if "frame-ancestors" in policy and delivery.frame_ancestors:
        policy = f"{policy} {' '.join(delivery.frame_ancestors)}"
    kind = "attachment" if delivery.as_download else shown.disposition
    return [
        (b"content-type", served_type(shown, row.declared_mime_type).encode("ascii")),
        (b"content-disposition", content_disposition(kind, row.filename).encode("ascii")),
        (b"content-security-policy", policy.encode("ascii")),
    ]


def _length(n_bytes: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % n_bytes


async def _send_headers(send: Send, status: int, headers: Headers, *, more: bool = False) -> None:
    """Begin an answer, and end it too unless bytes follow."""
    await send_start(send, status, headers)
    if not more:
        await send_body(send, b"")


async def _send_not_satisfiable(scope: Scope, send: Send, size_bytes: int) -> None:
    problem = Problem(
        416, "range_not_satisfiable", f"The file has {size_bytes} bytes; the range is outside."
    )
    body = problem_body(problem, request_id_of(scope))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-range", b"bytes */%d" % size_bytes),
        (b"cache-control", b"no-store"),
        _length(len(body)),
    ]
    await send_start(send, 416, headers)
    await send_body(send, body)
