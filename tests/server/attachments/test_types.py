"""Tests of the rule that decides types."""

from __future__ import annotations

import mimetypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight._contract import ATTACHMENT_TYPES
from agentsight.server.attachments.types import (
    MIME_TYPE_BY_EXTENSION,
    attachment_type,
    effective_mime_type,
    normal_mime_type,
)


@pytest.mark.parametrize(
    ("mime_type", "expected"),
    [
        ("image/png", "image"),
        ("image/svg+xml", "image"),
        ("audio/mpeg", "audio"),
        ("video/quicktime", "video"),
        ("text/plain", "text"),
        ("text/csv", "text"),
        ("text/markdown", "text"),
        ("text/html", "text"),
        ("application/pdf", "document"),
        ("application/msword", "document"),
        ("application/json", "document"),
        ("application/zip", "document"),
        ("application/octet-stream", "document"),
        ("message/rfc822", "document"),
        ("imagery/png", "document"),
        ("", "document"),
    ],
)
def test_the_family_decides(mime_type: str, expected: str) -> None:
    """image, audio, video and text are what their family says; the rest is a document."""
    assert attachment_type(mime_type) == expected


@given(st.text())
def test_there_is_no_sixth_type(mime_type: str) -> None:
    """The set is closed, whatever comes in."""
    assert attachment_type(mime_type) in ATTACHMENT_TYPES


@pytest.mark.parametrize(
    ("declared", "filename", "detected", "expected"),
    [
        ("image/png", "a.txt", "application/pdf", "image/png"),
        ("text/csv", "x.json", None, "text/csv"),
        ("Text/CSV; charset=utf-8", "x", None, "text/csv"),
        (" IMAGE/PNG ", "x", None, "image/png"),
        (None, "q.PDF", "text/plain", "application/pdf"),
        ("", "notes.md", "text/plain", "text/markdown"),
        ("   ", "orders.csv", "text/plain", "text/csv"),
        ("application/octet-stream", "q.pdf", None, "application/pdf"),
        ("APPLICATION/OCTET-STREAM; x=y", "clip.mov", None, "video/quicktime"),
        ("application/octet-stream", "attachment_0.bin", "image/png", "image/png"),
        (None, "no-extension", "audio/ogg", "audio/ogg"),
        (None, "png", None, "application/octet-stream"),
        (None, "archive.tar.gz", None, "application/gzip"),
        ("png", "a.jpg", None, "image/jpeg"),
        ("image/", "a.jpg", None, "image/jpeg"),
        ("a/b/c", "file", None, "application/octet-stream"),
        ("text/html\r\nX-Evil: 1", "a.txt", None, "text/plain"),
        ("*/*", "a.gif", None, "image/gif"),
    ],
)
def test_declared_then_extension_then_content(
    declared: str | None, filename: str, detected: str | None, expected: str
) -> None:
    """The sender's word where it says anything, then the name, then the bytes."""
    assert effective_mime_type(declared, filename, detected) == expected


@given(
    declared=st.none() | st.text(),
    filename=st.text(),
    detected=st.sampled_from([None, "image/png"]),
)
def test_the_effective_type_could_stand_in_a_header(
    declared: str | None, filename: str, detected: str | None
) -> None:
    """Whatever was declared, the result is a plain lower-case type."""
    found = effective_mime_type(declared, filename, detected)
    assert normal_mime_type(found) == found
    assert 3 <= len(found) <= 201


def test_the_platforms_table_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type does not depend on the machine's files of types."""
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: pytest.fail("asked the platform"))
    assert effective_mime_type(None, "a.csv", None) == "text/csv"


def test_the_table_agrees_with_pythons_on_the_family() -> None:
    """Where Python's own table knows an extension, ours decides the same of the five types."""
    known = mimetypes.MimeTypes(filenames=()).types_map[True]
    differing = {
        extension
        for extension, ours in MIME_TYPE_BY_EXTENSION.items()
        if (theirs := known.get(f".{extension}"))
        and attachment_type(theirs) != attachment_type(ours)
    }
    # Code is text to us; Python 3.11 takes every 3GPP file for sound.
    assert differing <= {"js", "mjs", "sh", "sql", "ts", "xml", "xsl", "3gp", "3gpp", "3g2", "rtf"}
