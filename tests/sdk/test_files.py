"""Files: every form they may be given in, read as they are, and never moved or copied whole."""

from __future__ import annotations

import base64
import gzip
import io
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight import ConversationTracker
from agentsight._files import Field, File, Multipart, read_attachments
from agentsight._flow import FileUnreadable
from agentsight.exceptions import InvalidAttachmentException
from tests.sdk.support import ScriptServer, Seen

DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10


def read(attachment: Any, mode: str = "base64") -> tuple[str, str | None, bytes]:
    """Return name, declared type and content of one attachment."""
    [file] = read_attachments([attachment], mode)
    try:
        content = b"".join(file.source.chunks())
        assert file.source.size() == len(content)
        return file.filename, file.mime_type, content
    finally:
        file.source.close()


def test_a_path_in_any_form(tmp_path: Path) -> None:
    """Text, Path, or in a mapping."""
    path = tmp_path / "ünï.png"
    path.write_bytes(DATA)
    for given_as in (str(path), path, {"path": str(path)}, {"file": path}, {"data": path}):
        assert read(given_as) == ("ünï.png", None, DATA)


def test_a_relative_path_survives_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read when it is sent."""
    (tmp_path / "a.txt").write_bytes(b"here")
    [file] = read_attachments(["a.txt"], "base64")
    monkeypatch.chdir("/")
    assert b"".join(file.source.chunks()) == b"here"


@pytest.mark.parametrize("mode", ["base64", "form_data"])
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_in_any_form_in_both_modes(mode: str, make: Any) -> None:
    """With and without a mapping."""
    described = {"filename": "a.bin", "mime_type": "x/y", "data": make(DATA)}
    assert read(described, mode) == ("a.bin", "x/y", DATA)
    assert read(make(DATA), mode) == ("attachment_0.png", None, DATA)
    assert read({"content": make(DATA), "name": "b"}, mode) == ("b", None, DATA)


def test_base64_text_in_base64_mode() -> None:
    """What the published client takes in its default mode."""
    text = base64.b64encode(DATA).decode()
    described = {"filename": "a.png", "mime_type": "image/png", "data": text}
    assert read(described) == ("a.png", "image/png", DATA)


def test_base64_text_needs_neither_type_nor_name() -> None:
    """The server finds the type, as for bytes."""
    text = base64.b64encode(DATA).decode()
    assert read({"filename": "a.png", "data": text}) == ("a.png", None, DATA)
    assert read({"filename": "a", "mime_type": None, "data": text}) == ("a", None, DATA)
    assert read({"data": text}) == ("attachment_0.png", None, DATA)


def test_an_open_file_is_read_from_its_start_and_not_moved(tmp_path: Path) -> None:
    """The caller may go on reading, close it, or delete it."""
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    with path.open("rb") as opened:
        opened.seek(100)
        [file] = read_attachments([opened], "form_data")
        assert b"".join(file.source.chunks()) == DATA
        assert opened.tell() == 100
    path.unlink()
    assert b"".join(file.source.chunks()) == DATA
    assert file.filename == "a.bin"
    file.source.close()


def test_a_temporary_file_gives_what_was_written_so_far() -> None:
    """Also what is still in Python's buffer; its name is a number and not used."""
    with tempfile.TemporaryFile() as opened:
        opened.write(DATA)
        assert read(opened) == ("attachment_0.png", None, DATA)
        assert opened.tell() == len(DATA)


def test_seekable_objects_are_put_back_where_they_were(tmp_path: Path) -> None:
    """Objects that only look like files, such as one that decompresses."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(DATA))
    with gzip.open(path, "rb") as unpacked:
        unpacked.seek(7)
        assert read({"data": unpacked, "filename": "a"}) == ("a", None, DATA)
        assert unpacked.tell() == 7
    with tempfile.SpooledTemporaryFile(max_size=10**6) as spooled:
        spooled.write(DATA)
        assert read({"data": spooled, "filename": "a"}) == ("a", None, DATA)
        assert spooled.tell() == len(DATA)


def test_a_stream_that_cannot_seek_is_read_at_once() -> None:
    """It is there only now."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(DATA)
    with os.fdopen(reading, "rb") as pipe:
        [file] = read_attachments([pipe], "base64")
    assert b"".join(file.source.chunks()) == DATA
    file.source.close()


@pytest.mark.parametrize(
    ("attachment", "mode", "message"),
    [
        (None, "base64", "must be a mapping, a path, bytes or an open file, not NoneType"),
        (5, "base64", "not int"),
        ({}, "form_data", "missing required key: 'data'"),
        ({"filename": "a"}, "base64", "'data', 'content' or 'file' (bytes, an open file or base64"),
        ({"filename": "a"}, "base64", "or 'path'"),
        ({"filename": 5, "data": "YQ=="}, "base64", "invalid or empty filename"),
        ({"filename": " ", "mime_type": "a/b", "data": ""}, "base64", "invalid or empty filename"),
        ({"filename": "a", "mime_type": "", "data": ""}, "base64", "invalid or empty mime_type"),
        ({"filename": "a", "mime_type": "a/b", "data": "YQ=\n"}, "base64", "invalid base64"),
        ({"data": "YQ=="}, "form_data", "in form_data mode"),
        ({"data": 5}, "form_data", "must be bytes, a path or an open file, not int"),
        ({"data": io.StringIO("x")}, "form_data", "binary mode"),
        ("/no/such/file", "base64", "cannot read /no/such/file"),
        ("a\0b", "base64", "cannot read"),
        ("/", "base64", "is a directory"),
    ],
)
def test_what_cannot_be_a_file_is_refused_by_number(
    attachment: Any, mode: str, message: str
) -> None:
    """At the call, saying which and why."""
    with pytest.raises(InvalidAttachmentException) as caught:
        read_attachments([b"fine", attachment], mode)
    assert "Attachment 2" in str(caught.value)
    assert message in str(caught.value)


def test_a_closed_file_is_refused(tmp_path: Path) -> None:
    """At the call, not hours later."""
    opened = (tmp_path / "a").open("wb")
    opened.close()
    with pytest.raises(InvalidAttachmentException, match="is closed"):
        read_attachments([opened], "base64")


def test_a_list_is_needed_and_has_a_limit() -> None:
    """Limits are told, not silent."""
    with pytest.raises(InvalidAttachmentException, match="as a list"):
        read_attachments({"data": b""}, "base64")
    with pytest.raises(
        InvalidAttachmentException, match="101 attachments on one item: at most 100"
    ):
        read_attachments([b""] * 101, "base64")


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    """Before a byte of it is sent."""
    with (tmp_path / "huge").open("wb") as sparse:
        sparse.truncate(1024 * 1024 * 1024 + 1)
    with pytest.raises(InvalidAttachmentException, match="at most 1024 MiB"):
        read_attachments([tmp_path / "huge"], "base64")


def test_a_file_that_vanishes_is_told_and_its_message_goes_out(
    tracker: ConversationTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """The published client hid it."""
    (tmp_path / "a.txt").write_bytes(b"a")
    (tmp_path / "b.txt").write_bytes(b"b")
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi", [tmp_path / "a.txt", tmp_path / "b.txt"])
    tracker.track_attachments([tmp_path / "a.txt"])
    (tmp_path / "a.txt").unlink()
    result = tracker.send_tracked_data()
    assert result["items"][1]["success"] is True
    [lost] = result["items"][1]["attachments_failed"]
    assert lost["filename"] == "a.txt"
    assert "none of its files can be sent" in result["items"][2]["error"]
    assert result["summary"]["errors"] == 2
    [item] = server.seen[0].json["items"]
    assert [file["filename"] for file in item["attachments"]] == ["b.txt"]
    assert tracker.n_waiting == 0


def test_a_large_file_is_streamed(
    tracker: ConversationTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """64 MB go out with a few MB of memory; the server counts them."""
    path = tmp_path / "large.bin"
    with path.open("wb") as large:
        large.truncate(64_000_000)
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("big", [path])
    [item] = [i for i in tracker._outbox.spool.peek("c") if i.files]
    form = Multipart([("file", item.files[0])])
    tracemalloc.start()
    try:
        n_bytes = form.n_bytes()
        assert sum(len(chunk) for chunk in form.chunks()) == n_bytes > 64_000_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_grows_or_shrinks_while_it_is_sent(tmp_path: Path) -> None:
    """Exactly what was announced goes out, or the request breaks; never a false body."""
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    [file] = read_attachments([path], "base64")
    form = Multipart([("file", file)])
    n_bytes = form.n_bytes()
    path.write_bytes(b"1234567")
    assert len(b"".join(form.chunks())) == n_bytes
    path.write_bytes(b"123")
    with pytest.raises(FileUnreadable, match="shorter"):
        b"".join(form.chunks())


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=300)), min_size=1, max_size=5),
    st.text(max_size=50),
)
def test_a_form_is_read_as_it_was_written(files: list[tuple[str, bytes]], text: str) -> None:
    """Whatever the names and contents, by a parser of another hand (python-multipart's)."""
    from python_multipart.multipart import MultipartParser

    sources = [
        File(str(i), name, None, read_attachments([data], "base64")[0].source)
        for i, (name, data) in enumerate(files)
    ]
    field = Field("batch", text.encode("utf-8", "replace"), "application/json")
    form = Multipart([field, *((f"file_{i}", file) for i, file in enumerate(sources))])
    n_bytes = form.n_bytes()
    body = b"".join(form.chunks())
    assert len(body) == n_bytes
    contents: list[bytes] = []
    parser = MultipartParser(
        form.content_type.partition("boundary=")[2],
        {
            "on_part_begin": lambda: contents.append(b""),
            "on_part_data": lambda data, start, end: contents.append(
                contents.pop() + data[start:end]
            ),
        },
    )
    parser.write(body)
    parser.finalize()
    assert contents == [field.value, *(data for _, data in files)]


def test_the_server_sees_the_announced_length(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """No chunked encoding, which proxies may refuse."""
    tracker.get_or_create_conversation("c")
    tracker.track_attachments([b"x" * 1000])
    tracker.send_tracked_data()
    seen: Seen = server.seen[0]
    assert int(seen.headers["content-length"]) == len(seen.body)
    assert "transfer-encoding" not in seen.headers
