"""What every request passes first: its id, a tolerant path, and an answer that is heard."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import requests
import uvicorn

from agentsight.server.web import lingering
from tests.support.http import JSON, House, People, with_headers

pytestmark = pytest.mark.anyio

TRACK = "/api/track/"


@pytest.mark.parametrize("path", ["//api/conversations/", "///api/conversations/"])
async def test_leading_slashes_collapse(people: People, path: str) -> None:
    """An endpoint with a slash at its end makes published clients ask so."""
    answer = await people.alice.writer.send("GET", "", raw_path=path.encode())
    assert (answer.status, answer.json()["count"]) == (200, 0)


async def test_request_ids(people: People) -> None:
    """Ours are new each time; a caller's is kept where it is harmless, also in the error body."""
    first = await people.alice.get("/api/conversations/")
    second = await people.alice.get("/api/conversations/")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    named = await with_headers(people.alice.writer, x_request_id="abc-1.2_3").get("/nowhere/")
    assert named.is_error(404, "not_found")
    assert named.json()["request_id"] == "abc-1.2_3"
    for bad in ("", "x" * 65, "a b", 'a"b', "\u00e4"):
        answer = await with_headers(people.alice.writer, x_request_id=bad).get("/nowhere/")
        assert answer.headers["x-request-id"] != bad


async def test_the_one_call_with_and_without_its_last_slash(people: People) -> None:
    """Both are answered at the front, errors too in the one shape."""
    pk = await people.alice.conversation()
    for tail in ("", "/"):
        answer = await people.alice.get(f"/api/conversations/{pk}/attachments{tail}")
        assert (answer.status, answer.json()["total_attachments"]) == (200, 0)
        missing = await people.alice.get(f"/api/conversations/{2**50}/attachments{tail}")
        assert missing.is_error(404, "not_found")


# --- Lingering ------------------------------------------------------------------------------------


def pieces(n_bytes: int, size: int = 65_536) -> Iterator[bytes]:
    """Yield so many bytes of a body."""
    for _ in range(n_bytes // size):
        yield b"x" * size


async def test_a_refused_body_is_read_before_the_answer_ends(house: House) -> None:
    """The answer goes out whole, then the rest is dropped, then the connection closes."""
    headers = JSON | {"content-length": str(10 * 2**20)}
    answer = await house.stranger.send("POST", TRACK, body=pieces(10 * 2**20), headers=headers)
    assert answer.is_error(401, "not_authenticated")
    assert answer.headers["connection"] == "close"
    assert (answer.n_pulled, answer.n_body_messages) == (10 * 2**20, 2)


async def test_no_more_is_read_than_the_stated_number(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body without an end is given up."""
    monkeypatch.setattr(lingering, "MAX_DRAINED_BYTES", 2**20)
    endless = pieces(2**60)
    answer = await house.stranger.send(
        "POST", TRACK, body=endless, headers={"transfer-encoding": "chunked"}
    )
    assert answer.is_error(401, "not_authenticated")
    assert answer.n_pulled == 2**20


async def test_no_longer_is_waited_than_the_stated_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sender that says nothing more is given up."""
    monkeypatch.setattr(lingering, "MAX_DRAINED_S", 0.01)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    lingers = lingering.Lingering(receive, send)
    await lingers.send({"type": "http.response.start", "status": 401, "headers": []})
    await lingers.send({"type": "http.response.body", "body": b"no"})
    assert [m.get("body") for m in sent] == [None, b"no", b""]
    assert [m.get("more_body") for m in sent[1:]] == [True, False]


async def test_a_small_body_keeps_its_connection(house: House, people: People) -> None:
    """What a server drops in one go costs nobody a new connection; nor does a read body."""
    small = await house.stranger.send("POST", TRACK, body=b"{}", headers=JSON)
    assert small.status == 401
    assert "connection" not in small.headers
    large = await people.alice.writer.send(
        "POST", TRACK, body=b'{"content":"%s"}' % (b"x" * 200_000), headers=JSON
    )
    assert large.is_error(400, "required")
    assert "connection" not in large.headers


@contextlib.asynccontextmanager
async def serve(app: Any, http: Any) -> AsyncIterator[str]:
    """Run uvicorn on this loop and a free port; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=http, ws="none", lifespan="off", log_config=None, proxy_headers=False
    )
    server = uvicorn.Server(config)
    # `serve` would take the test run's signals; the two halves below are what it does between.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    ticking = asyncio.create_task(server.main_loop())
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets=[listener])


@pytest.mark.slow
@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize(
    ("path", "code", "is_known"),
    [(TRACK, "too_large", True), ("/api/attachments/", "not_authenticated", False)],
)
async def test_a_client_that_is_still_sending_hears_the_refusal(
    house: House, people: People, http: str, connection: str, path: str, code: str, is_known: bool
) -> None:
    """The published client's library, sending 70 MB, sees the status and not a reset connection."""
    headers = JSON | {"connection": connection}
    if is_known:
        headers["authorization"] = f"Api-Key {people.alice.write_key}"

    def send(base: str) -> requests.Response:
        return requests.post(base + path, data=bytes(70_000_000), headers=headers, timeout=30)

    async with serve(house.app, http) as base:
        answer = await asyncio.to_thread(send, base)
    assert answer.json()["code"] == code
    assert answer.headers["connection"] == "close"


async def test_a_client_that_waits_for_leave_is_told_at_once(house: House) -> None:
    """With `Expect: 100-continue` the refusal comes without the body having been asked for."""
    request = (
        b"POST /api/track/ HTTP/1.1\r\nHost: x\r\nContent-Length: 70000000\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    async with serve(house.app, "httptools") as base:
        port = int(base.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in head


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_client_that_reads_only_when_it_has_sent_all(house: House, http: str) -> None:
    """It asked for the connection to be closed, and still is not reset before it can read."""
    n_bytes = 70_000_000

    def send(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            head = f"POST {TRACK} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            client.sendall(f"{head}Content-Length: {n_bytes}\r\n\r\n".encode())
            for piece in pieces(n_bytes, 1_000_000):
                client.sendall(piece)
            return b"".join(iter(lambda: client.recv(65_536), b""))

    async with serve(house.app, http) as base:
        answer = await asyncio.to_thread(send, int(base.rpartition(":")[2]))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"code":"not_authenticated"' in answer


async def test_answers_of_the_api_are_kept_by_nobody(people: People) -> None:
    """They hold transcripts, and links that open without a key."""
    pk = await people.alice.conversation()
    for path in ("", f"{pk}/", f"{pk}/attachments/", "lookup/?conversation_id=c"):
        answer = await people.alice.get(f"/api/conversations/{path}")
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")


# --- File links in a browser ----------------------------------------------------------------------

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


async def test_a_dead_file_link_in_a_browser_is_a_page(house: House) -> None:
    """The same status with a page that tells nothing, under the strict policy of all pages."""
    for path in ("/files/x", "/files/a/b/c%2Fd.png", f"/files/{'0' * 36}/t/name.png"):
        answer = await house.stranger.send("GET", path, headers={"accept": BROWSER})
        text = answer.body.decode()
        assert (answer.status, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "expired or was changed" in text
        assert "name.png" not in text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert f'href="{"../" * (path.count("/") - 1)}app/style.css' in text


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/json, text/html",
        "application/json, text/html;q=0.5",
        "text/html;q=0",
        "image/avif,image/webp,*/*;q=0.8",
    ],
)
async def test_a_dead_file_link_for_a_program_is_json(house: House, accept: str) -> None:
    """Programs, and browsers that load a picture, get the one shape of errors."""
    answer = await house.stranger.send("GET", "/files/a/b/c", headers={"accept": accept})
    assert answer.is_error(404, "link_invalid")


async def test_other_errors_stay_json_in_a_browser(people: People) -> None:
    """Only file links are opened by people who know nothing of an API."""
    answer = await with_headers(people.alice.writer, accept=BROWSER).get(
        f"/api/conversations/{2**50}/attachments/"
    )
    assert answer.is_error(404, "not_found")


async def test_head_reaches_no_route_of_the_api(people: People) -> None:
    """A HEAD there would cost as much as the GET; it is refused as before."""
    answer = await people.alice.writer.send("HEAD", "/api/conversations/")
    assert answer.status == 405
