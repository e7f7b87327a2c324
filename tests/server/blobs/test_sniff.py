"""Tests of telling types by content."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.blobs import HEAD_BYTES, detect_mime_type

OFFICE = "application/vnd.openxmlformats-officedocument."


def zipped(*names: str, stored: str = "") -> bytes:
    """Make a ZIP of members; `stored` is the text of an uncompressed `mimetype` before them."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        if stored:
            archive.writestr("mimetype", stored, zipfile.ZIP_STORED)
        for name in names:
            archive.writestr(name, "content " * 20)
    return target.getvalue()


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
WORKBOOK_START = b"\x09\x08\x10\0\0\x06\x05\0"


def compound_head(*sectors: bytes) -> bytes:
    """Make the beginning of a compound file: its header, and sectors that begin so."""
    return b"".join(part.ljust(512, b"\0") for part in (OLE, *sectors))


def entry(name: str, kind: int = 2) -> bytes:
    """Write what the directory of a compound file says of a stream."""
    encoded = f"{name}\0".encode("utf-16-le")
    return encoded.ljust(64, b"\0") + len(encoded).to_bytes(2, "little") + bytes([kind])


def ftyp(major: bytes, *others: bytes) -> bytes:
    """Make the first box of an ISO media file."""
    brands = major + b"\0\0\0\0" + b"".join(others)
    return (len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08free"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image/jpeg"),
        (b"GIF89a\1\0\1\0", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\x10\0\0\0AVI LIST", "video/x-msvideo"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", "image/bmp"),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "application/pdf"),
        (b"ID3\x04\0\0\0\0\0\0", "audio/mpeg"),
        (b"\xff\xfb\x90\x44\0\0", "audio/mpeg"),
        (b"\xff\xf1\x50\x80\0\0", "audio/aac"),
        (b"fLaC\0\0\0\x22", "audio/flac"),
        (b"OggS\0\x02" + b"\0" * 22 + b"\x01\x13OpusHead", "audio/ogg"),
        (b"OggS\0\x02" + b"\0" * 22 + b"\x01\x2a\x80theora", "video/ogg"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
        (ftyp(b"isom", b"iso2", b"mp41"), "video/mp4"),
        (ftyp(b"M4A ", b"mp42"), "audio/mp4"),
        (ftyp(b"qt  "), "video/quicktime"),
        (ftyp(b"3gp5"), "video/3gpp"),
        (ftyp(b"3g2a"), "video/3gpp2"),
        (ftyp(b"heic", b"mif1"), "image/heic"),
        (ftyp(b"mif1", b"mif1", b"heic"), "image/heic"),
        (ftyp(b"mif1", b"avif"), "image/avif"),
        (ftyp(b"mif1"), "image/heif"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video/quicktime"),
        (b"#!AMR\n\x3c", "audio/amr"),
        (
            zipped("[Content_Types].xml", "_rels/.rels", "word/document.xml"),
            OFFICE + "wordprocessingml.document",
        ),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), OFFICE + "spreadsheetml.sheet"),
        (zipped("[Content_Types].xml", "ppt/p.xml"), OFFICE + "presentationml.presentation"),
        (zipped(stored="application/epub+zip"), "application/epub+zip"),
        (zipped("x", stored="text/html; alert(1)"), "application/zip"),
        (zipped("a.txt", "b.txt"), "application/zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 40, "application/x-ole-storage"),
        (compound_head(), "application/x-ole-storage"),
        (compound_head(entry("WordDocument")), "application/msword"),
        (compound_head(entry("Workbook")), "application/vnd.ms-excel"),
        (compound_head(entry("Book")), "application/vnd.ms-excel"),
        (compound_head(entry("PowerPoint Document")), "application/vnd.ms-powerpoint"),
        # What is embedded in a document has entries, too; its streams may begin first.
        (compound_head(entry("Workbook"), entry("WordDocument")), "application/msword"),
        (compound_head(WORKBOOK_START, entry("WordDocument")), "application/msword"),
        (compound_head(entry("WordDocument", kind=1)), "application/x-ole-storage"),
        (compound_head(entry("WordDocument2")), "application/x-ole-storage"),
        (compound_head(entry("__properties_version1.0")), "application/x-ole-storage"),
        (compound_head(b"\xec\xa5\xc1\0"), "application/msword"),
        (compound_head(b"", WORKBOOK_START), "application/vnd.ms-excel"),
        (compound_head(b"\x0f\0\xe8\x03"), "application/vnd.ms-powerpoint"),
        (compound_head(b"x\xec\xa5\xc1\0"), "application/x-ole-storage"),
        (b"{\\rtf1\\ansi", "application/rtf"),
    ],
)
def test_what_may_be_shown_is_recognised_exactly(content: bytes, expected: str) -> None:
    """Formats that serving decides about are told apart by their own rules."""
    assert detect_mime_type(content, len(content)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hello", "text/plain"),
        ("Grüße, 日本語 ☕".encode(), "text/plain"),
        (b"\xef\xbb\xbfname,value\n", "text/plain"),
        ("Grüße".encode("utf-16"), "text/plain"),
        ("Grüße aus Köln".encode("latin-1"), "text/plain"),
        (b"The free coffee", "text/plain"),
        (b"The ftyp box", "text/plain"),
        (b"ID3 is a kind of tag", "text/plain"),
        (b"BMW is a maker of cars, and motorbikes", "text/plain"),
        (b"a < b and c > d", "text/plain"),
        (b"<3 you", "text/plain"),
        (b'{"a": 1}', "text/plain"),
        (b"BEGIN:VCARD\r\nVERSION:3.0", "text/vcard"),
        (b"begin:vcalendar\r\n", "text/calendar"),
        (b"  \n<!DOCTYPE html><p>", "text/html"),
        (b"<HTML><body>", "text/html"),
        (b"<script>alert(1)</script>", "text/html"),
        ("<script>".encode("utf-16"), "text/html"),
        (b"\xef\xbb\xbf<svg xmlns='x'>", "image/svg+xml"),
        (b"<!-- made by --><svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'>", "image/svg+xml"),
        (b"<?xml version='1.0'?><ns0:svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?><html xmlns='x'>", "text/html"),
        (b"<?xml version='1.0'?><feed>", "text/xml"),
    ],
)
def test_text_is_told_from_what_runs(content: bytes, expected: str) -> None:
    """Plain text is plain, whatever word it begins with; markup that could run is never plain."""
    assert detect_mime_type(content, len(content)) == expected


@pytest.mark.parametrize("content", [b"", b"\0\1\2\3", bytes(range(128, 256)) * 4, b"\xff\xff\xff"])
def test_the_unknown_is_none(content: bytes) -> None:
    """What is not recognised has no type."""
    assert detect_mime_type(content, len(content)) is None


def test_a_character_cut_by_the_heads_end_is_no_noise() -> None:
    """The head ends anywhere, in the middle of a character too."""
    content = ("a" + "é" * HEAD_BYTES).encode()
    assert detect_mime_type(content[:HEAD_BYTES], len(content)) == "text/plain"


def test_the_long_tail_is_recognised_too() -> None:
    """Formats that are never shown inside a page come from the library's table."""
    content = b"SQLite format 3\0" + b"\x10\0\x01\x01" * 20
    found = detect_mime_type(content, len(content))
    assert found is not None
    assert found.startswith("application/")


STARTS = [
    b"",
    b"PK\x03\x04",
    b"\0\0\0\x18ftyp",
    b"RIFF",
    b"OggS",
    b"\x1a\x45\xdf\xa3",
    b"<?xml",
    b"BM",
]
STARTS += [
    b"\xff\xf1",
    b"\xff\xfb",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"<",
    b"<!--",
    b"MZ",
]


@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=300), size=st.integers(0, 2**50))
def test_hostile_bytes_never_raise(start: bytes, rest: bytes, size: int) -> None:
    """Any bytes give a type that could stand in a header, or none."""
    found = detect_mime_type(start + rest, size)
    assert found is None or (found.isascii() and found.isprintable() and "/" in found)


@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="<", exclude_categories=["Cc", "Cs"]),
        min_size=1,
    )
)
def test_words_are_text(text: str) -> None:
    """Any text without markup is some kind of text."""
    found = detect_mime_type(text.encode(), len(text.encode()))
    assert found is not None
    assert found.startswith("text/") or text.startswith(("%PDF-", "GIF8", "{\\rtf", "fLaC"))


def test_the_long_tail_is_loaded_when_it_is_needed() -> None:
    """Ordinary files cost no import."""
    code = (
        "import sys; from agentsight.server.blobs import detect_mime_type as detect;"
        "detect(b'hello', 5); detect(b'%PDF-1.7', 8); assert 'puremagic' not in sys.modules;"
        "detect(b'\\0\\1\\2\\3', 4); assert 'puremagic' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
