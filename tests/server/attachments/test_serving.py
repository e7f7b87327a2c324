"""Tests of serving files by a real server over loopback sockets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar.types import HTTPScope, Receive, Send

from agentsight.server.attachments.model import ServedRow
from agentsight.server.attachments.presentation import SANDBOX
from agentsight.server.attachments.serving import Delivery, cache_control, serve_blob
from agentsight.server.blobs import LocalBlobStore, blob_key, detect_mime_type
from agentsight.server.ids import AgentId, BlobId, new_uid
from agentsight.server.problems import Problem
from agentsight.server.web.errors import problem_body, request_id_of

pytestmark = pytest.mark.anyio

CREATED_US = 1_700_000_000_000_000
MODIFIED = "Tue, 14 Nov 2023 22:13:20 GMT"
DELIVERY = Delivery("private, max-age=3600")
LARGE_BYTES = 24 << 20


class CountingStore(LocalBlobStore):
    """A local store that tells when its last stream was left, and how much was read of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.left = asyncio.Event()
        self.n_read = 0

    async def read(self, key: str, start: int = 0, end: int | None = None) -> Any:
        """Read, and watch the reading."""
        stream = await super().read(key, start, end)
        step, close = stream.__anext__, stream.close
        store = self

        class Watched:
            size_bytes = stream.size_bytes

            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> bytes:
                chunk = await step()
                store.n_read += len(chunk)
                return chunk

            async def __aenter__(self) -> Any:
                return self

            async def __aexit__(self, *_: object) -> None:
                close()
                store.left.set()

        return Watched()


class FileServer:
    """An ASGI app that serves one row at a time, as a door would."""

    def __init__(self, store: CountingStore) -> None:
        self.store = store
        self.rows: dict[str, ServedRow] = {}
        self.delivery = DELIVERY
        self.url = ""
        self.port = 0

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve the row that the path names."""
        row = self.rows[scope["path"]]
        try:
            await serve_blob(
                cast("HTTPScope", scope),
                receive,
                send,
                store=self.store,
                row=row,
                delivery=self.delivery,
            )
        except Problem as problem:
            body = problem_body(problem, request_id_of(scope))
            headers = [(b"content-length", b"%d" % len(body))]
            start = {"type": "http.response.start", "status": problem.status, "headers": headers}
            await send(cast("Any", start))
            await send(cast("Any", {"type": "http.response.body", "body": body}))

    async def add(
        self, data: bytes, *, path: str = "/f", filename: str = "a.bin", mime_type: str = ""
    ) -> ServedRow:
        """Store a file and serve it under `path`."""
        uid = new_uid(CREATED_US)
        key = blob_key(AgentId(1), uid)
        async with await self.store.create(key) as writer:
            await writer.write(data)
            stored = await writer.finish()
        row = ServedRow(
            agent_id=1,
            uid=uid,
            filename=filename,
            mime_type=mime_type or "application/octet-stream",
            declared_mime_type=mime_type or None,
            detected_mime_type=detect_mime_type(stored.head, stored.size_bytes),
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            object_key=key,
            created_at=CREATED_US,
            is_deleted=False,
            blob_id=BlobId(1),
            scan="not_scanned",
            is_quarantined=False,
        )
        self.rows[path] = row
        return row


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FileServer]:
    """Run a server on a free port until the test ends."""
    store = CountingStore(tmp_path / "files")
    await store.write_marker("0190a0b0-0000-7000-8000-000000000001")
    app = FileServer(store)
    listener = socket.create_server(("127.0.0.1", 0))
    app.port = listener.getsockname()[1]
    app.url = f"http://127.0.0.1:{app.port}/f"
    config = uvicorn.Config(app, log_config=None, lifespan="off", http="httptools", loop="none")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    yield app
    server.should_exit = True
    server.force_exit = True
    await server.shutdown(sockets=[listener])
    await store.close()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    """Give an HTTP client that takes bytes as they are."""
    async with httpx2.AsyncClient(headers={"accept-encoding": "identity"}) as made:
        yield made


@pytest.mark.parametrize("size", [0, 1, 250_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_001])
async def test_a_file_comes_back_whole(
    files: FileServer, client: httpx2.AsyncClient, size: int
) -> None:
    """Every size is sent with its length, its hash as ETag, and its confinement."""
    data = os.urandom(size)
    await files.add(data)
    answer = await client.get(files.url)
    assert answer.status_code == 200
    assert answer.content == data
    headers = answer.headers
    assert headers["content-length"] == str(size)
    assert headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert headers["last-modified"] == MODIFIED
    assert headers["accept-ranges"] == "bytes"
    assert headers["cache-control"] == "private, max-age=3600"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["content-security-policy"] == SANDBOX
    assert headers["content-disposition"] == 'attachment; filename="a.bin"'


async def test_head_says_what_get_would(files: FileServer, client: httpx2.AsyncClient) -> None:
    """HEAD has the same headers and no body, and ranges do not apply to it."""
    await files.add(b"x" * 5000, filename="Größe.txt", mime_type="text/plain")
    got = await client.get(files.url)
    head = await client.head(files.url, headers={"range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == got.headers


@given(first=st.integers(0, 2_600_000), length=st.integers(1, 2_600_000))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_a_range_is_exactly_those_bytes(
    files: FileServer, client: httpx2.AsyncClient, first: int, length: int
) -> None:
    """Any range, across any chunk boundary, is a slice of the file."""
    if "/f" not in files.rows:
        await files.add(DATA)
    last = first + length - 1
    answer = await client.get(files.url, headers={"range": f"bytes={first}-{last}"})
    if first >= len(DATA):
        assert answer.status_code == 416
        return
    assert answer.status_code == 206
    assert answer.content == DATA[first : last + 1]
    shown_last = min(last, len(DATA) - 1)
    assert answer.headers["content-range"] == f"bytes {first}-{shown_last}/{len(DATA)}"
    assert answer.headers["content-length"] == str(len(answer.content))


DATA = os.urandom(2_500_000)


async def test_open_and_suffix_ranges(files: FileServer, client: httpx2.AsyncClient) -> None:
    """Players ask for the rest, and for the end."""
    await files.add(b"0123456789")
    for header, expected in [
        ("bytes=4-", b"456789"),
        ("bytes=-3", b"789"),
        ("bytes=-99", b"0123456789"),
    ]:
        answer = await client.get(files.url, headers={"range": header})
        assert (answer.status_code, answer.content) == (206, expected)
    for header in ("bytes=0-1,4-5", "bytes=5-1", "lines=1-2", "bytes=x"):
        answer = await client.get(files.url, headers={"range": header})
        assert (answer.status_code, answer.content) == (200, b"0123456789")


async def test_a_range_outside_is_told_the_size(
    files: FileServer, client: httpx2.AsyncClient
) -> None:
    """416 carries the size and the usual error body."""
    await files.add(b"0123456789")
    answer = await client.get(files.url, headers={"range": "bytes=10-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */10"
    assert answer.json()["code"] == "range_not_satisfiable"
    assert answer.headers["content-type"] == "application/json"


async def test_if_range_protects_a_resumed_download(
    files: FileServer, client: httpx2.AsyncClient
) -> None:
    """The rest is sent only of the same bytes; of others, the whole."""
    row = await files.add(b"0123456789")
    for if_range, status in [
        (f'"{row.sha256}"', 206),
        (MODIFIED, 206),
        ('"other"', 200),
        (f'W/"{row.sha256}"', 200),
    ]:
        headers = {"range": "bytes=5-", "if-range": if_range}
        assert (await client.get(files.url, headers=headers)).status_code == status


async def test_what_the_client_has_is_not_sent_again(
    files: FileServer, client: httpx2.AsyncClient
) -> None:
    """304 carries the validators and no bytes, for GET and HEAD."""
    row = await files.add(b"0123456789")
    for headers in ({"if-none-match": f'"x", W/"{row.sha256}"'}, {"if-modified-since": MODIFIED}):
        for method in ("GET", "HEAD"):
            answer = await client.request(method, files.url, headers=headers)
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == f'"{row.sha256}"'
            assert answer.headers["cache-control"] == DELIVERY.cache_control
            assert "content-type" not in answer.headers
    changed = {"if-none-match": '"x"', "if-modified-since": MODIFIED}
    assert (await client.get(files.url, headers=changed)).status_code == 200
    assert (await client.get(files.url, headers={"if-match": '"x"'})).status_code == 412


async def test_only_get_and_head(files: FileServer, client: httpx2.AsyncClient) -> None:
    """Nothing can be done to a file through its link."""
    await files.add(b"x")
    for method in ("POST", "PUT", "DELETE"):
        assert (await client.request(method, files.url)).status_code == 405


async def test_bytes_that_vanished_are_gone(files: FileServer, client: httpx2.AsyncClient) -> None:
    """A missing or a damaged object is 410 in the error shape, never an empty file."""
    row = await files.add(b"0123456789")
    for method in ("GET", "HEAD"):
        files.rows["/f"] = replace(row, size_bytes=11)
        assert (await client.request(method, files.url)).status_code == 410
    files.rows["/f"] = row
    await files.store.delete(row.object_key)
    answer = await client.get(files.url)
    assert (answer.status_code, answer.json()["code"]) == (410, "gone")
    assert (await client.head(files.url)).status_code == 410


@pytest.mark.parametrize(
    ("filename", "disposition"),
    [
        ("sample.png", "inline"),
        ("sample.mp3", "inline"),
        ("sample.mp4", "inline"),
        ("sample.pdf", "inline"),
        ("note.txt", "inline"),
        ("hostile.svg", "attachment"),
        ("hostile.html", "attachment"),
        ("liar.pdf", "attachment"),
    ],
)
async def test_each_kind_is_presented_by_its_bytes(
    files: FileServer, client: httpx2.AsyncClient, filename: str, disposition: str
) -> None:
    """Inert and honest files open, the others are saved."""
    contents = {
        "png": (b"\x89PNG\r\n\x1a\n", "image/png"),
        "mp3": (b"ID3\x04\0\0\0", "audio/mpeg"),
        "mp4": (b"\0\0\0\x10ftypisom\0\0\0\0", "video/mp4"),
        "pdf": (b"%PDF-1.7", "application/pdf"),
        "txt": ("Grüße".encode(), "text/plain"),
        "svg": (b"<svg><script>alert(1)</script></svg>", "image/svg+xml"),
        "html": (b"<!doctype html><script>alert(1)</script>", "text/html"),
    }
    data, mime_type = contents[filename.rpartition(".")[2]]
    if filename == "liar.pdf":
        data = contents["png"][0]
    await files.add(data, filename=filename, mime_type=mime_type)
    answer = await client.get(files.url)
    assert answer.headers["content-disposition"] == f'{disposition}; filename="{filename}"'
    files.delivery = replace(DELIVERY, as_download=True)
    answer = await client.get(files.url)
    assert answer.headers["content-disposition"].startswith("attachment; ")


async def test_a_pdf_may_be_framed_by_the_dashboard(
    files: FileServer, client: httpx2.AsyncClient
) -> None:
    """Where files have an origin of their own, the dashboard's is named."""
    await files.add(b"%PDF-1.7", mime_type="application/pdf")
    files.delivery = replace(DELIVERY, frame_ancestors=("https://app.example.org",))
    policy = (await client.get(files.url)).headers["content-security-policy"]
    assert policy.endswith("; frame-ancestors 'self' https://app.example.org")


async def test_nginx_is_told_what_to_send(files: FileServer, client: httpx2.AsyncClient) -> None:
    """With a prefix, the answer is headers only; conditions and missing bytes are still ours."""
    row = await files.add(b"0123456789", filename="a.txt", mime_type="text/plain")
    files.delivery = replace(DELIVERY, accel_prefix="/_blobs/")
    for method in ("GET", "HEAD"):
        answer = await client.request(method, files.url, headers={"range": "bytes=0-1"})
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["x-accel-redirect"] == f"/_blobs/{row.object_key}"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["content-disposition"] == 'inline; filename="a.txt"'
        assert not {"content-range", "accept-ranges"} & set(answer.headers)
    has_it = {"if-none-match": f'"{row.sha256}"'}
    assert (await client.get(files.url, headers=has_it)).status_code == 304
    await files.store.delete(row.object_key)
    assert (await client.get(files.url)).status_code == 410


async def test_a_client_that_goes_away_stops_the_reading(files: FileServer) -> None:
    """When the connection is closed in the middle, the file is left and the rest is not read."""
    await files.add(os.urandom(LARGE_BYTES))
    reader, writer = await asyncio.open_connection("127.0.0.1", files.port, limit=4096)
    writer.write(b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    await asyncio.wait_for(files.store.left.wait(), 30)
    assert files.store.n_read < LARGE_BYTES
    await files.store.check()  # and the server's threads are free


async def test_a_slow_client_holds_little(files: FileServer) -> None:
    """A reader that takes its time makes the server wait, not read ahead; it gets every byte."""
    data = os.urandom(LARGE_BYTES)
    await files.add(data)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("127.0.0.1", files.port))
    await loop.sock_sendall(slow, b"GET /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    received = bytearray(await loop.sock_recv(slow, 1000))
    for _ in range(20):
        await files.store.check()  # round trips through the server's loop and threads
    # Socket buffers of the machine, a chunk in the transport, one in hand, one ahead.
    assert files.store.n_read <= 12 << 20
    while chunk := await loop.sock_recv(slow, 1 << 18):
        received += chunk
    slow.close()
    assert bytes(received).partition(b"\r\n\r\n")[2] == data


async def test_a_file_that_breaks_off_is_not_taken_for_whole(
    files: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    """When bytes fail in the middle, the connection is cut short of the announced length."""
    row = await files.add(os.urandom(LARGE_BYTES))
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, ("127.0.0.1", files.port))
    await loop.sock_sendall(slow, b"GET /f HTTP/1.1\r\nHost: x\r\n\r\n")
    received = len(await loop.sock_recv(slow, 1000))
    os.truncate(files.store.local_path(row.object_key), 1000)
    while chunk := await loop.sock_recv(slow, 1 << 18):
        received += len(chunk)
    slow.close()
    assert received < LARGE_BYTES
    assert "broke off" in caplog.text


async def test_a_kept_connection_serves_many(files: FileServer, client: httpx2.AsyncClient) -> None:
    """Answers of all kinds leave the connection in order for the next."""
    data = os.urandom(3 << 20)
    row = await files.add(data)
    for _ in range(3):
        assert (await client.get(files.url)).content == data
        assert (await client.head(files.url)).status_code == 200
        headers = {"if-none-match": f'"{row.sha256}"'}
        assert (await client.get(files.url, headers=headers)).status_code == 304
        answer = await client.get(files.url, headers={"range": "bytes=-2000000"})
        assert answer.content == data[-2_000_000:]
        answer = await client.get(files.url, headers={"range": "bytes=99999999-"})
        assert answer.status_code == 416


def test_a_cache_forgets_within_the_hour_and_with_the_link() -> None:
    """Deleted files leave caches soon; no cache outlives a link."""
    now_us = CREATED_US
    day_us = 86_400_000_000
    assert cache_control(now_us + day_us, now_us, is_public=False) == "private, max-age=3600"
    assert cache_control(now_us + day_us, now_us, is_public=True) == "public, max-age=3600"
    assert cache_control(now_us + 59_999_999, now_us, is_public=False) == "private, max-age=59"
    assert cache_control(now_us - 1, now_us, is_public=False) == "private, max-age=0"
