"""Tests of reading multipart bodies: real encoders, any cuts, any rubbish, every limit."""

from __future__ import annotations

import email.utils
import logging
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import httpx2
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from agentsight.server.problems import Problem
from agentsight.server.web.multipart import MultipartLimits, MultipartReader, parse_boundary

pytestmark = pytest.mark.anyio

BOUNDARY = "frontier"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
LIMITS = MultipartLimits(
    max_files=5, max_file_bytes=10_000, max_fields=20, max_field_bytes=2_000, max_total_bytes=60_000
)


@dataclass(frozen=True)
class Seen:
    """One part as it was read."""

    name: str
    filename: str | None
    content_type: str | None
    data: bytes


class Body:
    """A body in chunks that counts what was asked of it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.n_taken = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            self.n_taken += 1
            return chunk
        raise StopAsyncIteration


def cut(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut bytes at the given places."""
    edges = [0, *sorted(at for at in cuts if at <= len(body)), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


async def read(
    body: bytes | Body, content_type: str = CONTENT_TYPE, *, limits: MultipartLimits = LIMITS
) -> list[Seen]:
    """Read all parts of a body."""
    chunks = body if isinstance(body, Body) else Body([body])
    seen: list[Seen] = []
    async for part in MultipartReader(chunks, content_type, limits=limits):
        if part.filename is None:
            data = await part.read()
        else:
            data = b"".join([bytes(chunk) async for chunk in part])
        seen.append(Seen(part.name, part.filename, part.content_type, data))
    return seen


async def refused(
    body: bytes | Body, content_type: str = CONTENT_TYPE, *, limits: MultipartLimits = LIMITS
) -> Problem:
    """Read a body that must be refused."""
    with pytest.raises(Problem) as caught:
        await read(body, content_type, limits=limits)
    return caught.value


def part(headers: str, data: bytes = b"x", *, newline: str = "\r\n") -> bytes:
    """Write one part."""
    text = f"--{BOUNDARY}{newline}{headers}{newline}{newline}"
    return text.encode("utf-8", "surrogateescape") + data + newline.encode()


def whole(*parts: bytes) -> bytes:
    """Write a body of parts."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file_part(disposition: str, data: bytes = b"x") -> bytes:
    """Write a body of one part with the given parameters."""
    return whole(part(f"Content-Disposition: form-data; {disposition}", data))


# --- what real clients send -----------------------------------------------------------------------

CONTENTS = st.binary(max_size=300) | st.sampled_from(
    [b"\r\n", b"\r\n--", b"--", b"\r\n--frontie", b"\r", b"\n\r\n--frontierX", b"-" * 80]
)
# Quotes and line breaks are percent-encoded by every encoder below; a literal `%22` is not, and so
# cannot be told from a quote.
FILENAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="%\\", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=40,
)
FILES = st.lists(st.tuples(FILENAMES, CONTENTS), max_size=5)
CUTS = st.lists(st.integers(0, 4000), max_size=30)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@given(files=FILES, text=TEXTS, cuts=CUTS)
@example(files=[("q.pdf", b"%PDF")], text="", cuts=list(range(600)))
async def test_what_requests_sends_is_read(
    files: list[tuple[str, bytes]], text: str, cuts: list[int]
) -> None:
    """The published client's encoder (requests, urllib3 2) is understood at any cuts."""
    made = requests.Request(
        "POST",
        "http://localhost/",
        data={"sender": "end_user", "metadata": text},
        files=[
            (f"attachment_{n}", (name, data, "text/csv")) for n, (name, data) in enumerate(files)
        ]
        or [("none", (None, "x"))],
    ).prepare()
    body = cast("bytes", made.body)
    seen = await read(Body(cut(body, cuts)), str(made.headers["Content-Type"]))
    assert seen[0] == Seen("sender", None, None, b"end_user")
    assert seen[1].data == text.encode()
    if files:
        assert [(s.filename, s.data, s.content_type) for s in seen[2:]] == [
            (name, data, "text/csv") for name, data in files
        ]
        assert [s.name for s in seen[2:]] == [f"attachment_{n}" for n in range(len(files))]


@given(files=FILES.filter(bool), cuts=CUTS)
async def test_what_httpx2_sends_is_read(files: list[tuple[str, bytes]], cuts: list[int]) -> None:
    """Our own client's encoder is understood at any cuts."""
    made = httpx2.Request(
        "POST",
        "http://localhost/",
        data={"batch": "{}"},
        files=[(f"file_{n}", (name, data)) for n, (name, data) in enumerate(files)],
    )
    body = made.read()
    seen = await read(Body(cut(body, cuts)), made.headers["content-type"])
    assert seen[0] == Seen("batch", None, None, b"{}")
    assert [(s.filename, s.data) for s in seen[1:]] == files


@given(name=FILENAMES)
async def test_what_older_urllib3_sends_is_read(name: str) -> None:
    """urllib3 1 writes names that are not ASCII by RFC 2231."""
    value = email.utils.encode_rfc2231(name, "utf-8")
    (seen,) = await read(file_part(f'name="a"; filename*={value}'))
    assert seen.filename == name


@given(parts=st.lists(st.tuples(st.booleans(), CONTENTS), max_size=5), first=CUTS, second=CUTS)
async def test_cuts_make_no_difference(
    parts: list[tuple[bool, bytes]], first: list[int], second: list[int]
) -> None:
    """One body, cut in two ways, is read as the same parts."""
    written = [
        part(
            f'Content-Disposition: form-data; name="p{n}"' + ('; filename="f"' if is_file else ""),
            data,
        )
        for n, (is_file, data) in enumerate(parts)
        if b"\r\n--frontier" not in b"\r\n" + data
    ]
    body = whole(*written)
    expected = [d for _, d in parts if b"\r\n--frontier" not in b"\r\n" + d]
    one = await read(Body(cut(body, first)))
    assert [seen.data for seen in one] == expected
    assert await read(Body(cut(body, second))) == one


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('name="a"', "a", None),
        ("name=a", "a", None),
        ('name="a"; filename=""', "a", ""),
        ('name="a"; filename="q.pdf"', "a", "q.pdf"),
        ("name=a; filename=q.pdf", "a", "q.pdf"),
        ('NAME="a"; FileName="q.pdf"', "a", "q.pdf"),
        ('name="a";filename="q;r=s.pdf"', "a", "q;r=s.pdf"),
        ('name="a"; filename="Größe ☕.txt"', "a", "Größe ☕.txt"),
        ('name="a"; filename="Gr\udcf6\udcdfe.txt"', "a", "Größe.txt"),
        ('name="a"; filename="say %22hi%22.txt"', "a", 'say "hi".txt'),
        ('name="a"; filename="100%25.txt"', "a", "100%25.txt"),
        (r'name="a"; filename="say \"hi\".txt"', "a", 'say "hi".txt'),
        (r'name="a"; filename="C:\dir\new.txt"', "a", r"C:\dir\new.txt"),
        (r'name="a"; filename="C:\dir\"', "a", "C:\\dir\\"),
        ("name=a; filename*=utf-8''na%C3%AFve.txt", "a", "naïve.txt"),
        ("name=a; filename=\"x.txt\"; filename*=UTF-8'de'%E2%82%AC.txt", "a", "€.txt"),
        ("name=a; filename*=iso-8859-1''%A3.txt", "a", "£.txt"),
        ("name=a; filename=\"x.txt\"; filename*=klingon''%A3.txt", "a", "x.txt"),
        ('name=a; filename="x.txt"; filename*=broken', "a", "x.txt"),
        ("name*=utf-8''%C3%A9; filename=\"x\"", "é", "x"),
        ('name="a"; filename="nul\0.txt"', "a", "nul\0.txt"),
        ('name="a"; name="b"', "a", None),
    ],
)
async def test_names_are_read_as_they_were_meant(
    disposition: str, name: str, filename: str | None
) -> None:
    """Raw UTF-8, Latin-1, percent and backslash escapes, RFC 5987: all are understood."""
    (seen,) = await read(file_part(disposition))
    assert (seen.name, seen.filename) == (name, filename)


async def test_a_parts_own_type_is_kept_without_controls() -> None:
    """The declared type comes back as it was, fit for a row."""
    disposition = 'Content-Disposition: form-data; name="a"; filename="f"'
    body = whole(
        part(f"{disposition}\r\nContent-Type: Text/CSV; x=y"),
        part(f"{disposition}\r\nContent-Type: im\0age/p\x7fng"),
        part(f"{disposition.upper()}\r\nCONTENT-TYPE:"),
    )
    assert [seen.content_type for seen in await read(body)] == ["Text/CSV; x=y", "image/png", None]


async def test_a_body_without_parts_is_a_body() -> None:
    """A form of nothing has no parts and no fault."""
    assert await read(f"--{BOUNDARY}--\r\n".encode()) == []


async def test_what_follows_the_last_boundary_is_ignored() -> None:
    """An epilogue is read to its end and means nothing."""
    body = Body([file_part("name=a"), b"epilogue", b"--frontier\r\n"])
    assert [seen.data for seen in await read(body)] == [b"x"]
    assert body.n_taken == 3


async def test_a_part_that_nobody_reads_is_skipped() -> None:
    """The next part is found whatever was done with the one before."""
    body = whole(
        *(
            part(f'Content-Disposition: form-data; name="p{n}"; filename="f"', b"data" * 500)
            for n in range(3)
        )
    )
    reader = MultipartReader(Body(cut(body, range(0, 9000, 700))), CONTENT_TYPE, limits=LIMITS)
    names: list[str] = []
    async for found in reader:
        names.append(found.name)
        if found.name == "p1":
            await anext(found)
    assert names == ["p0", "p1", "p2"]


async def test_text_that_is_not_utf8_is_mended() -> None:
    """A field is text whatever its bytes are."""
    reader = MultipartReader(Body([file_part("name=a", b"a\xffb")]), CONTENT_TYPE, limits=LIMITS)
    assert await (await anext(reader)).text() == "a\ufffdb"


async def test_chunks_are_not_copied() -> None:
    """A large file's pieces are views of what came in, so that 50 MB are moved once."""
    data = os.urandom(9_000)
    start = part('Content-Disposition: form-data; name="a"; filename="f"', b"")[:-2]
    middle = data[:8_000].replace(b"\r", b"\n")
    body = Body([start, middle, whole(b"\r\n")])
    found = await anext(MultipartReader(body, CONTENT_TYPE, limits=LIMITS))
    assert await anext(found) is middle


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "x" * 201,
        "multipart/form-data; boundary=é",
        "multipart/form-data; boundary=a\tb",
        "multipart/mixed; boundary=x",
        "application/json; boundary=x",
    ],
)
async def test_no_boundary_is_malformed(content_type: str) -> None:
    """Without a usable boundary the body cannot be read, and is not."""
    body = Body([file_part("name=a")])
    problem = await refused(body, content_type)
    assert (problem.status, problem.code) == (400, "malformed_multipart")
    assert body.n_taken == 0


def test_a_boundary_may_be_quoted() -> None:
    """Both spellings of a boundary are read."""
    assert parse_boundary('Multipart/Form-Data; charset=utf-8; Boundary="a b"') == b"a b"
    assert parse_boundary("multipart/form-data;boundary=----WebKit") == b"----WebKit"


async def test_a_body_cut_off_anywhere_is_malformed() -> None:
    """Every proper beginning of a body is refused: nothing half is ever taken for whole."""
    body = whole(
        part('Content-Disposition: form-data; name="a"', b"value"),
        part('Content-Disposition: form-data; name="b"; filename="f"', b"data" * 10),
    )
    for n_bytes in range(len(body) - 2):
        if body[:n_bytes].endswith(b"--frontier--"):
            continue
        problem = await refused(body[:n_bytes])
        assert (problem.status, problem.code) == (400, "malformed_multipart"), n_bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"--other\r\n\r\nx\r\n--other--\r\n",
        whole(part('Content-Disposition: form-data; name="a"', newline="\n")),
        whole(part("Content-Type: text/plain")),
        whole(part("Content-Disposition: form-data")),
        whole(part('Content-Disposition: attachment; name="a"')),
        whole(part("Content-Disposition")),
        whole(part("Content Disposition: x")),
        whole(part(": x")),
        whole(part("X-Long: " + "y" * 20_000)),
        whole(part("y" * 20_000 + ": x")),
        whole(part("\r\n".join(f"X-{n}: y" for n in range(40)))),
        whole(
            part('Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64')
        ),
        b"--frontier\r\n\r\n",
        b"\r\n" * 5000,
        b"\r\nx" + whole(part('Content-Disposition: form-data; name="a"')),
        b"-" * 5000,
    ],
)
async def test_what_is_not_multipart_is_malformed(body: bytes) -> None:
    """Each way of being broken is a 400 in the caller's words."""
    problem = await refused(body)
    assert (problem.status, problem.code) == (400, "malformed_multipart")
    assert problem.detail.startswith("The multipart body ")


@given(
    pieces=st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            [
                *(b"--frontier", b"\r\n--frontier", b"--frontier--\r\n", b"--", b"\r\n"),
                *(b"\r\n\r\n", b"\r", b"\n", b" \t", b":", b'"', b"; filename*=", b"a", b"''%"),
                b"Content-Disposition: form-data; name=",
                part('Content-Disposition: form-data; name="a"'),
            ]
        ),
        max_size=30,
    ),
    content_type=st.just(CONTENT_TYPE) | st.text(max_size=40),
)
@example(pieces=[b"\r", b"\x00", b"--frontier--"], content_type=CONTENT_TYPE)
@example(pieces=[b"\r", b"\n", b"", b"--frontier--"], content_type=CONTENT_TYPE)
async def test_rubbish_is_parts_or_a_problem(pieces: list[bytes], content_type: str) -> None:
    """No bytes raise anything but a Problem, and cuts make no difference to which."""
    outcomes: list[object] = []
    for chunks in (pieces, [b"".join(pieces)]):
        try:
            outcomes.append(await read(Body(chunks), content_type))
        except Problem as problem:
            outcomes.append(problem.code)
    assert outcomes[0] == outcomes[1]
    assert isinstance(outcomes[0], list) or outcomes[0] in ("malformed_multipart", "too_large")


async def test_malformed_bodies_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What anyone can send is not worth a line each."""
    with caplog.at_level(logging.DEBUG):
        await refused(whole(part("Content Disposition: x")))
    assert caplog.records == []


async def test_errors_of_the_connection_pass_through() -> None:
    """A client that hangs up is the door's matter."""

    async def broken() -> AsyncIterator[bytes]:
        yield part('Content-Disposition: form-data; name="a"; filename="f"')
        raise ConnectionResetError

    reader = MultipartReader(broken(), CONTENT_TYPE, limits=LIMITS)
    found = await anext(reader)
    with pytest.raises(ConnectionResetError):
        _ = [chunk async for chunk in found]


# --- limits ---------------------------------------------------------------------------------------


async def test_a_file_is_stopped_at_its_limit() -> None:
    """The chunk that passes the limit is the last one that is read, and the file is named."""
    start = part('Content-Disposition: form-data; name="a"; filename="big\nfile.bin"', b"")[:-2]
    start = start.replace(b"big\nfile", "größe".encode())
    body = Body([start, *([b"z" * 1000] * 100)])
    problem = await refused(body)
    assert (problem.status, problem.code) == (413, "too_large")
    name = r"'gr\xf6\xdfe.bin'"
    assert problem.detail == f"The file {name} is larger than max_file_bytes (10000 bytes)."
    assert body.n_taken == 12


async def test_a_file_of_just_the_limit_is_taken() -> None:
    """The limit itself is allowed."""
    (seen,) = await read(file_part('name="a"; filename="f"', b"z" * 10_000))
    assert len(seen.data) == 10_000


async def test_a_field_has_a_limit_of_its_own() -> None:
    """A field is held, so it is small, unless the caller says how large it may be."""
    body = file_part('name="metadata"', b"z" * 2_001)
    problem = await refused(body)
    assert (problem.status, problem.detail) == (
        413,
        "The field 'metadata' is larger than 2000 bytes.",
    )
    found = await anext(MultipartReader(Body([body]), CONTENT_TYPE, limits=LIMITS))
    assert len(await found.read(max_bytes=3_000)) == 2_001


async def test_the_body_has_a_limit() -> None:
    """All parts together, an endless preamble and an endless epilogue are stopped too."""
    end = Body([file_part("name=a"), *([b"e" * 10_000] * 100)])
    problem = await refused(end)
    text = "The body is larger than 60000 bytes (see max_request_bytes)."
    assert (problem.status, problem.detail) == (413, text)
    assert end.n_taken == 7
    begin = Body([b"\r\n"] * 100_000)
    assert (await refused(begin)).status == 413


async def test_a_body_that_announces_too_much_is_not_read() -> None:
    """Content-Length alone is enough to refuse."""
    with pytest.raises(Problem) as caught:
        MultipartReader(Body([]), CONTENT_TYPE, limits=LIMITS, content_length=60_001)
    assert caught.value.status == 413
    MultipartReader(Body([]), CONTENT_TYPE, limits=LIMITS, content_length=60_000)


async def test_files_and_fields_are_counted() -> None:
    """One file, one field too many is refused with the limit."""
    files = [part(f'Content-Disposition: form-data; name="{n}"; filename="f"') for n in range(6)]
    assert len(await read(whole(*files[:5]))) == 5
    assert (await refused(whole(*files))).detail == "The body holds more than 5 files."
    fields = [part(f'Content-Disposition: form-data; name="{n}"') for n in range(21)]
    assert len(await read(whole(*fields[:20]))) == 20
    assert (await refused(whole(*fields))).detail == "The body holds more than 20 fields."
