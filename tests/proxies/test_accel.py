"""X-Accel-Redirect: nginx sends the bytes of files, and nothing that confines them is lost."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agentsight.server.attachments.presentation import SANDBOX
from tests.proxies.house import (
    House,
    build_house,
    store_file,
    through,
)
from tests.support.proxies import Certificate
from tests.support.server import open_link

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("proxies")]

KEPT = (
    "cache-control",
    "content-disposition",
    "content-security-policy",
    "content-type",
    "cross-origin-resource-policy",
    "etag",
    "last-modified",
    "referrer-policy",
    "x-content-type-options",
)
PDF = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"


@pytest.fixture(scope="module")
def house(certificate: Certificate) -> Iterator[House]:
    """Run the server behind nginx, which sends the files."""
    with build_house("nginx", certificate, accel=True) as built:
        yield built


@pytest.fixture(scope="module")
def plain_house(certificate: Certificate) -> Iterator[House]:
    """Run the server behind nginx, sending the files itself."""
    with build_house("nginx", certificate) as built:
        yield built


def direct(house: House, url: str) -> str:
    """Return a link's address at the server itself."""
    return house.server.base_url + url.removeprefix(house.base_url)


def test_the_bytes_come_from_nginx(house: House) -> None:
    """The server answers with headers alone; behind nginx the same link gives the whole file."""
    content = random.Random(1).randbytes(3_000_000)
    row = store_file(house, "bytes", "a.bin", "application/octet-stream", content)
    from_server = open_link(direct(house, row["file_url"]))
    assert from_server.body == b""
    assert from_server.headers["x-accel-redirect"].startswith("/internal-files/blobs/")
    from_nginx = through(house, "GET", row["file_url"])
    assert from_nginx.body == content
    assert from_nginx.headers["server"].startswith("nginx")
    assert "x-accel-redirect" not in from_nginx.headers


@pytest.mark.parametrize(
    ("name", "mime_type", "content"),
    [
        ("note.txt", "text/plain", b"plain"),
        ("page.html", "text/html", b"<script>alert(1)</script>"),
        ("doc.pdf", "application/pdf", PDF),
        ("lie.png", "image/png", b"not a picture"),
    ],
)
def test_no_header_is_lost(
    house: House, plain_house: House, name: str, mime_type: str, content: bytes
) -> None:
    """Type, disposition, policy, validators: nginx's answer carries what the server's would."""
    theirs, ours = [
        through(one, "GET", store_file(one, name, name, mime_type, content)["file_url"])
        for one in (house, plain_house)
    ]
    assert (theirs.status, theirs.body) == (200, content)
    for header in KEPT:
        assert header in theirs.headers, header
        if header != "last-modified":
            expected = ours.headers[header].replace(plain_house.base_url, house.base_url)
            assert theirs.headers[header] == expected
    assert theirs.headers["accept-ranges"] == "bytes"


def test_ranges_are_cut_by_nginx(house: House) -> None:
    """The server never sees the range's bytes, and players can seek."""
    url = store_file(house, "cut", "digits.txt", "text/plain", b"0123456789")["file_url"]
    part = through(house, "GET", url, headers={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    assert part.headers["content-security-policy"] == SANDBOX
    assert through(house, "GET", url, headers={"Range": "bytes=99-"}).status == 416
    several = through(house, "GET", url, headers={"Range": "bytes=0-1,4-5"})
    assert (several.status, several.body) == (200, b"0123456789")


def test_a_broken_download_resumes(house: House) -> None:
    """If-Range with our ETag gives the rest; with another one the whole file."""
    url = store_file(house, "resume", "digits.txt", "text/plain", b"0123456789")["file_url"]
    etag = through(house, "HEAD", url).headers["etag"]
    rest = through(house, "GET", url, headers={"Range": "bytes=8-", "If-Range": etag})
    assert (rest.status, rest.body) == (206, b"89")
    other = through(house, "GET", url, headers={"Range": "bytes=8-", "If-Range": '"x"'})
    assert (other.status, other.body) == (200, b"0123456789")


def test_validators_and_head_work(house: House) -> None:
    """A cache that has the file is told so; HEAD has the length and no bytes."""
    url = store_file(house, "head", "digits.txt", "text/plain", b"0123456789")["file_url"]
    head = through(house, "HEAD", url)
    assert (head.status, head.headers["content-length"], head.body) == (200, "10", b"")
    headers = {"If-None-Match": head.headers["etag"]}
    assert through(house, "GET", url, headers=headers).status == 304
    since = {"If-Modified-Since": head.headers["last-modified"]}
    assert through(house, "GET", url, headers=since).status == 304
    assert through(house, "GET", url, headers={"If-None-Match": '"other"'}).status == 200


def test_if_match_is_what_nginx_cannot_do(house: House) -> None:
    """docs/proxies.md says so: nginx compares it before our ETag is there."""
    url = store_file(house, "match", "digits.txt", "text/plain", b"0123456789")["file_url"]
    etag = through(house, "HEAD", url).headers["etag"]
    assert through(house, "GET", url, headers={"If-Match": etag}).status == 412


def test_an_empty_file_passes(house: House) -> None:
    """No bytes at all is a file too."""
    url = store_file(house, "empty", "empty.txt", "text/plain", b"")["file_url"]
    answer = through(house, "GET", url)
    assert (answer.status, answer.body) == (200, b"")


def test_the_store_is_not_open_to_the_outside(house: House) -> None:
    """Nobody reaches the internal location but by an answer of the server."""
    store_file(house, "closed", "a.txt", "text/plain", b"secret")
    key = next(
        path.relative_to(house.files)
        for path in (house.files / "blobs").rglob("*")
        if path.is_file()
    )
    for target in (f"/internal-files/{key}", "/internal-files/agentsight-instance"):
        answer = through(house, "GET", target)
        assert answer.status == 404


def test_a_broken_link_is_refused_by_the_server(house: House) -> None:
    """What is no link of ours gets our 404, from the server, and no file."""
    url = store_file(house, "broken", "a.txt", "text/plain", b"a")["file_url"]
    answer = through(house, "GET", url.replace("a.txt", "b.txt"))
    assert (answer.status, answer.json["code"]) == (404, "link_invalid")
