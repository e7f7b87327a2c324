"""Tests of how files are presented: what is shown, what is downloaded, in what confinement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.attachments.presentation import PICTURE, SANDBOX, present, served_type
from agentsight.server.attachments.types import MIME_TYPE_BY_EXTENSION, normal_mime_type

MEDIA = "default-src 'none'; media-src 'self'"
PDF = "default-src 'none'; object-src 'self'; frame-ancestors 'self'"
TEXT = "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("mime_type", "detected", "content_type", "policy"),
    [
        ("image/png", "image/png", "image/png", PICTURE),
        ("image/jpg", "image/jpeg", "image/jpeg", PICTURE),
        ("image/heif", "image/heic", "image/heif", SANDBOX),
        ("audio/mpeg", "audio/mpeg", "audio/mpeg", MEDIA),
        ("audio/mp3", "audio/mpeg", "audio/mpeg", MEDIA),
        ("audio/x-wav", "audio/wav", "audio/wav", MEDIA),
        ("audio/mp4", "video/mp4", "audio/mp4", MEDIA),
        ("video/mp4", "video/quicktime", "video/mp4", MEDIA),
        ("audio/webm", "video/webm", "audio/webm", MEDIA),
        ("audio/opus", "audio/ogg", "audio/ogg", MEDIA),
        ("application/pdf", "application/pdf", "application/pdf", PDF),
        ("text/plain", "text/plain", TEXT, SANDBOX),
        ("text/markdown", "text/plain", TEXT, SANDBOX),
        ("text/csv", "text/plain", TEXT, SANDBOX),
        ("text/vcard", "text/vcard", TEXT, SANDBOX),
        ("text/x-anything", "text/plain", TEXT, SANDBOX),
    ],
)
def test_inert_files_that_are_what_they_say_are_shown(
    mime_type: str, detected: str, content_type: str, policy: str
) -> None:
    """Pictures, sound, video, PDF and plain text open in the browser."""
    shown = present(mime_type, detected)
    assert shown.disposition == "inline"
    assert shown.content_type == content_type
    assert shown.content_security_policy == policy


@pytest.mark.parametrize(
    ("mime_type", "detected"),
    [
        ("image/svg+xml", "image/svg+xml"),
        ("text/html", "text/html"),
        ("text/html", "text/plain"),
        ("application/xhtml+xml", "text/html"),
        ("text/xml", "text/xml"),
        ("application/xml", "text/xml"),
        ("text/javascript", "text/plain"),
        ("text/css", "text/plain"),
        ("application/pdf", "image/png"),
        ("image/png", "text/html"),
        ("image/png", "image/svg+xml"),
        ("image/png", None),
        ("text/plain", "text/html"),
        ("text/plain", "application/pdf"),
        ("text/plain", None),
        ("video/mp4", "text/html"),
        ("audio/mpeg", "application/octet-stream"),
        ("application/octet-stream", None),
        ("application/x-shockwave-flash", None),
        ("multipart/x-mixed-replace", None),
        ("image/x-unheard-of", "image/png"),
    ],
)
def test_all_else_is_a_download_without_a_type(mime_type: str, detected: str | None) -> None:
    """What could run, what lies and what is unknown is nothing but bytes to a browser."""
    shown = present(mime_type, detected)
    assert shown.disposition == "attachment"
    assert shown.content_type == "application/octet-stream"
    assert shown.content_security_policy == SANDBOX


@pytest.mark.parametrize("extension", ["docx", "xlsx", "zip", "json", "odt", "eml"])
def test_documents_are_downloads_of_their_type(extension: str) -> None:
    """An office file keeps its type, so that the right program opens it."""
    mime_type = MIME_TYPE_BY_EXTENSION[extension]
    shown = present(mime_type, None)
    assert (shown.disposition, shown.content_type) == ("attachment", mime_type)
    assert shown.content_security_policy == SANDBOX


MIME_TYPES = st.sampled_from(sorted(set(MIME_TYPE_BY_EXTENSION.values()))) | st.text(
    max_size=30
).map(normal_mime_type)


@given(mime_type=MIME_TYPES, detected=st.none() | MIME_TYPES)
def test_nothing_that_runs_is_ever_named(mime_type: str, detected: str | None) -> None:
    """Whatever is declared, no browser is told that it got a page, an SVG or a script."""
    shown = present(mime_type, detected)
    told = shown.content_type
    assert not any(word in told for word in ("html", "+xml", "/xml", "javascript", "css", "flash"))
    assert told.isascii()
    assert told.isprintable()
    assert shown.content_security_policy.startswith("default-src 'none'; ")
    if shown.disposition == "attachment":
        assert shown.content_security_policy == SANDBOX


@pytest.mark.parametrize(
    ("declared", "detected", "told"),
    [
        ("audio/ogg; codecs=opus", "audio/ogg", "audio/ogg; codecs=opus"),
        ('audio/ogg;codecs="opus"', "audio/ogg", "audio/ogg; codecs=opus"),
        ("audio/ogg; codecs=opus; x=y", "audio/ogg", "audio/ogg; codecs=opus"),
        ("AUDIO/OGG; CODECS=opus", "audio/ogg", "audio/ogg; codecs=opus"),
        (
            'video/mp4; codecs="avc1.42E01E, mp4a.40.2"',
            "video/mp4",
            'video/mp4; codecs="avc1.42E01E, mp4a.40.2"',
        ),
        ("audio/ogg; codecs=a\r\nX-Evil: 1", "audio/ogg", "audio/ogg"),
        ('audio/ogg; codecs="a\x00b"', "audio/ogg", "audio/ogg"),
        ("audio/ogg; codecs=", "audio/ogg", "audio/ogg"),
        ("audio/ogg; rate=8000", "audio/ogg", "audio/ogg"),
        ("audio/ogg; codecs=opus", "text/html", "application/octet-stream"),
        ("image/png; codecs=opus", "image/png", "image/png"),
        ("text/plain; charset=ISO-8859-1", "text/plain", "text/plain; charset=iso-8859-1"),
        ('text/csv; charset="windows-1252"', "text/plain", "text/plain; charset=windows-1252"),
        ("text/plain; charset=utf-7", "text/plain", TEXT),
        ("text/plain; charset=x-user-defined", "text/plain", TEXT),
        ("text/html; charset=iso-8859-1", "text/html", "application/octet-stream"),
        (None, "audio/ogg", "audio/ogg"),
    ],
)
def test_parameters_are_kept_for_serving(declared: str | None, detected: str, told: str) -> None:
    """They do not decide the type; the two that help a browser are told it, where well-formed."""
    shown = present(normal_mime_type(declared) or "audio/ogg", detected)
    assert served_type(shown, declared) == told


@given(declared=st.text(max_size=60).map(lambda text: f"audio/ogg;codecs={text}"))
def test_no_parameter_breaks_a_header(declared: str) -> None:
    """Whatever is declared, one printable line is told."""
    told = served_type(present("audio/ogg", "audio/ogg"), declared)
    assert told.isascii()
    assert told.isprintable()
    assert told.count('"') in (0, 2)
