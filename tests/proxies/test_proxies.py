"""The configurations of docs/proxies, on the real nginx and the real Caddy, over TLS.

Each runs twice: with a public URL, and without one but with the proxy trusted.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from agentsight import AgentSightAPI
from tests.proxies.house import (
    MAX_FILE_BYTES,
    House,
    build_house,
    fetch_files,
    open_conversation,
    send_file,
    store_file,
    through,
)
from tests.support.proxies import Certificate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("proxies")]

EVIL = "evil.example"
HOSTILE_HEADERS = {
    "X-Forwarded-Host": EVIL,
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Port": "81",
    "X-Forwarded-For": "127.0.0.1",
    "X-Real-IP": "127.0.0.1",
    "X-Forwarded-Server": EVIL,
    "X-Original-Host": EVIL,
    "X-Host": EVIL,
    "Forwarded": f"for=127.0.0.1;host={EVIL};proto=http",
}


@pytest.fixture(
    scope="module",
    params=["nginx-public", "nginx-forwarded", "caddy-public", "caddy-forwarded"],
)
def house(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[House]:
    """Run the server behind one of the proxies."""
    kind, how = str(request.param).split("-")
    with build_house(kind, certificate, public=how == "public") as built:
        yield built


def test_it_answers_json_and_an_error_in_its_shape(house: House) -> None:
    """Answers pass as they are, errors too."""
    assert through(house, "GET", "/readyz").json["status"] == "ok"
    refused = through(house, "GET", "/api/conversations/")
    assert (refused.status, refused.json["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/a/../metrics"]
)
def test_the_counters_stay_inside(house: House, path: str) -> None:
    """However the path is written, the proxy answers it, and the server tells whoever asks it."""
    answer = through(house, "GET", path)
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert b"agentsight_" not in answer.body
    with urllib.request.urlopen(f"{house.server.base_url}/metrics") as own:
        assert b"agentsight_uploads_total" in own.read()


def test_next_links_begin_with_the_public_address(house: House) -> None:
    """A client that follows `next` stays on the address it began with, scheme and port included."""
    for number in range(2):
        open_conversation(house, f"page-{number}")
    answer = through(house, "GET", "/api/conversations/?page_size=1", key=house.agent.read_key)
    following = answer.json["next"]
    assert following.startswith(f"{house.base_url}/api/conversations/?")
    second = through(house, "GET", following, key=house.agent.read_key)
    assert second.status == 200
    assert second.json["current_page"] == 2


def test_a_30_mb_upload_passes_and_its_link_gives_the_same_bytes(house: House) -> None:
    """Thirty times nginx's default limit goes in by multipart and comes out by link."""
    content = random.Random(30).randbytes(30 * 1024 * 1024)
    row = store_file(house, "thirty", "big.bin", "application/octet-stream", content)
    assert row["size_bytes"] == len(content)
    assert row["file_url"].startswith(f"{house.base_url}/files/")
    answer = through(house, "GET", row["file_url"])
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()


def test_the_sdk_fetches_through_the_proxy(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one call and its links work for our own client at the public address."""
    name = "résumé 100% #1?.txt"
    row = store_file(house, "sdk", name, "text/plain", b"through the proxy")
    monkeypatch.setenv("SSL_CERT_FILE", str(house.certificate.certificate))
    with AgentSightAPI(house.agent.read_key, house.base_url) as api:
        files = api.fetch_conversation_attachments("sdk")
    found = files["messages"][0]["attachments"][0]
    assert (found["filename"], found["file_url"]) == (name, row["file_url"])
    assert through(house, "GET", found["file_url"]).body == b"through the proxy"


def test_ranges_head_and_304_pass(house: House) -> None:
    """What players and caches ask reaches the server, and its answer reaches them."""
    url = store_file(house, "ranges", "digits.txt", "text/plain", b"0123456789")["file_url"]
    part = through(house, "GET", url, headers={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    head = through(house, "HEAD", url)
    assert (head.status, head.headers["content-length"], head.body) == (200, "10", b"")
    etag = head.headers["etag"]
    assert not etag.startswith("W/")
    assert through(house, "GET", url, headers={"If-None-Match": etag}).status == 304
    again = through(house, "GET", url, headers={"Range": "bytes=8-", "If-Range": etag})
    assert (again.status, again.body) == (206, b"89")
    outside = through(house, "GET", url, headers={"Range": "bytes=10-"})
    assert outside.status == 416


def test_a_file_above_the_limit_is_413_in_our_shape(house: House) -> None:
    """The proxy lets the server say which limit was passed."""
    pk = open_conversation(house, "too-large")
    answer = send_file(house, pk, "x.bin", "application/octet-stream", bytes(MAX_FILE_BYTES + 1))
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert fetch_files(house, pk)["total_attachments"] == 0


def test_headers_that_a_stranger_forges_do_not_get_into_links(house: House) -> None:
    """Whatever a client says of host and scheme, links begin with the real address."""
    open_conversation(house, "forged-too")  # so that there is a second page, and a link to it
    pk = open_conversation(house, "forged")
    send_file(house, pk, "a.txt", "text/plain", b"a")
    files = fetch_files(house, pk, HOSTILE_HEADERS)
    row = files["messages"][0]["attachments"][0]
    assert row["file_url"].startswith(f"{house.base_url}/files/")
    listed = through(
        house, "GET", "/api/conversations/?page_size=1", key=house.agent.read_key,
        headers=HOSTILE_HEADERS,
    )  # fmt: skip
    assert EVIL not in json.dumps(files) + listed.body.decode()
    assert f'"next":"{house.base_url}/' in listed.body.decode()


@pytest.mark.parametrize("form", ["host", "absolute", "absolute-evil"])
def test_a_forged_host_does_not_get_into_links(house: House, form: str) -> None:
    """A request for another name gets nothing of ours, or links to the real address."""
    authority = house.base_url.partition("://")[2]
    target = {
        "host": "/api/conversations/",
        "absolute": f"https://{authority}/api/conversations/",
        "absolute-evil": f"https://{EVIL}/api/conversations/",
    }[form]
    host = authority if form == "absolute-evil" else EVIL
    request = (
        f"GET {target}?page_size=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        f"Authorization: Api-Key {house.agent.read_key}\r\n\r\n"
    )
    answer = _converse(house, request.encode())
    assert EVIL.encode() not in answer


def _converse(house: House, request: bytes) -> bytes:
    """Send raw bytes over TLS and read until the other side ends."""
    port = int(house.base_url.rpartition(":")[2])
    with (
        socket.create_connection(("localhost", port), timeout=60) as plain,
        house.context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(request)
        answer = b""
        while chunk := secure.recv(65536):
            answer += chunk
    return answer


def test_many_requests_at_once_pass(house: House) -> None:
    """The pool of kept connections serves a burst without an error."""
    statuses: list[int] = []

    def burst() -> None:
        for _ in range(10):
            statuses.append(through(house, "GET", "/healthz").status)

    threads = [threading.Thread(target=burst) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 80
