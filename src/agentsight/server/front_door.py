"""What every request passes first: id, tolerant path, HEAD, lingering close, the hottest routes.

Plain ASGI: a file link and the one call are answered here without the framework, which costs more
than they do. Everything else goes on to Litestar.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, cast

from litestar import Litestar
from litestar.types import Receive, Scope, Send

from agentsight.server.attachments.api import HOT_PATH, answer_conversation_files, serve_link
from agentsight.server.dashboard.render import PAGE_HEADERS, render_page
from agentsight.server.previews.api import PREVIEW_LINK, serve_preview_link
from agentsight.server.problems import Problem
from agentsight.server.web.bodies import BodyBudget
from agentsight.server.web.errors import log_problem, problem_body, problem_headers, to_problem
from agentsight.server.web.lingering import Lingering, is_large_body
from agentsight.server.web.sending import send_body, send_start

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_WEIGHT = re.compile(r"(?:^|;)\s*q=([01](?:\.[0-9]{0,3})?)\s*(?:;|$)")
_NO_STORE = (b"cache-control", b"no-store")
_PAGES_FOR_PEOPLE = {
    "link_invalid": "file_gone.html",
    "not_found": "file_gone.html",
    "gone": "file_gone.html",
    "infected": "file_blocked.html",
    "quarantined": "file_blocked.html",
}
"""What a browser's window shows where a program gets JSON, by the error's code."""


class FrontDoor:
    """The outermost application."""

    def __init__(self, app: Litestar) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith("//"):
            # An endpoint with a slash at its end makes published clients ask for //api/….
            path = "/" + path.lstrip("/")
            scope["path"] = path
            scope["raw_path"] = b"/" + scope.get("raw_path", b"").lstrip(b"/")
        request_id, has_large_body = _look_at_headers(scope)
        cast("dict[str, Any]", scope)["agentsight.request_id"] = request_id
        send = _with_request_id(send, request_id.encode(), is_api=path.startswith("/api/"))
        if has_large_body:
            lingering = Lingering(receive, send)
            receive, send = lingering.receive, lingering.send
        if path.startswith("/files/"):
            await self._guarded(self._files, scope, receive, send)
            return
        if scope["method"] == "HEAD" and not path.startswith("/api/"):
            # A copy: the server below us must go on knowing that no body follows.
            scope = cast("Scope", {**scope, "method": "GET"})
            send = _without_body(send)
        hot = HOT_PATH.fullmatch(path) if scope["method"] == "GET" else None
        if hot is not None:
            await self._guarded(self._conversation_files, scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            budget: BodyBudget = self.app.state.body_budget
            budget.end_request(scope)

    async def _files(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = serve_preview_link if PREVIEW_LINK.fullmatch(scope["path"]) else serve_link
        await answer(self.app.state.parts, scope, receive, send)

    async def _conversation_files(self, scope: Scope, _receive: Receive, send: Send) -> None:
        state = self.app.state
        pk_text = scope["path"].split("/")[3]
        body = await answer_conversation_files(
            state.parts, state.key_finder, state.bases, scope, pk_text
        )
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            _NO_STORE,
        ]
        await _send_whole(send, 200, headers, body)

    async def _guarded(self, answer: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a plain handler; what it raises before it began becomes the usual error body."""
        try:
            await answer(scope, receive, send)
        except Exception as error:  # noqa: BLE001 # the edge of a request
            problem = to_problem(error)
            request_id = cast("dict[str, Any]", scope)["agentsight.request_id"]
            log_problem(error, problem, request_id, "GET", scope["path"][:40])
            page = _PAGES_FOR_PEOPLE.get(problem.code)
            if page is not None and _is_for_people(scope):
                await _send_page(scope, send, page, problem)
                return
            body = problem_body(problem, request_id)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                *(
                    (name.lower().encode(), value.encode())
                    for name, value in problem_headers(problem).items()
                ),
            ]
            await _send_whole(send, problem.status, headers, body)


def _look_at_headers(scope: Scope) -> tuple[str, bool]:
    """Return the request's id, and whether it brings a body that is more than a few packets."""
    request_id, has_large_body = "", False
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
        elif is_large_body(name, value):
            has_large_body = True
    return request_id or os.urandom(8).hex(), has_large_body


def _with_request_id(send: Send, request_id: bytes, *, is_api: bool) -> Send:
    async def send_with_id(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], (b"x-request-id", request_id)]
            if is_api and not _has_cache_control(headers):
                headers.append(_NO_STORE)  # transcripts, and links that open without a key
            message["headers"] = headers
        await send(message)

    return send_with_id


def _has_cache_control(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    for name, _ in headers:  # noqa: SIM110 # a generator costs twice as much, in every answer
        if name.lower() == b"cache-control":
            return True
    return False


def _without_body(send: Send) -> Send:
    """Let the headers of an answer through, as they are for GET, and nothing else."""

    async def send_head(message: Any) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head


def _is_for_people(scope: Scope) -> bool:
    """Say whether a file link was opened in a browser's window: HTML by name, before JSON."""
    if not scope["path"].startswith("/files/"):
        return False
    accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
    weights = dict[str, float]()
    for part in accept.decode("latin-1").lower().split(","):
        kind, _, parameters = part.partition(";")
        found = _WEIGHT.search(parameters)
        weights[kind.strip()] = float(found[1]) if found else 1.0
    return weights.get("text/html", 0.0) > weights.get("application/json", 0.0)


async def _send_page(scope: Scope, send: Send, page: str, problem: Problem) -> None:
    # Counted as the browser sees it: an encoded slash in a name is no step.
    raw_path = cast("dict[str, bytes]", scope).get("raw_path", b"")
    n_steps = raw_path.partition(b"?")[0].count(b"/") - 1
    body = render_page(page, "../" * n_steps, {"code": problem.code})
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        *((name.lower().encode(), value.encode()) for name, value in PAGE_HEADERS.items()),
    ]
    await _send_whole(send, problem.status, headers, body)


async def _send_whole(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    await send_start(send, status, headers)
    await send_body(send, body)
