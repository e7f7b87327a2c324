"""What can be made of which type."""

from __future__ import annotations

import pytest

from agentsight.server.blobs import detect_mime_type
from agentsight.server.media import can_examine, can_play, can_preview, has_text, settled_type
from agentsight.server.media.kinds import (
    COMPOUND,
    COMPOUNDS,
    PICTURES,
    PLAYBACK_MIME_TYPES,
    SOUNDS,
    VIDEOS,
    XLS,
)
from tests.server.media.conftest import FILES

EXPECTED = {
    "actually-a-png.pdf": ("image", None),
    "by-word.doc": ("text", None),
    "by-xlwt.xls": ("text", None),
    "chairs.doc": (None, None),  # its directory is far behind
    "chairs.ppt": ("text", None),
    "chairs.xls": ("text", None),
    "hostile.html": ("text", None),
    "hostile.svg": ("text", None),
    "note.txt": ("text", None),
    "orders.csv": ("text", None),
    "policy.md": ("text", None),
    "sample-scan.pdf": ("image", None),
    "sample.3gp": ("image", "mp4"),
    "sample.amr": (None, "m4a"),
    "sample.docx": ("text", None),
    "sample.gif": ("image", None),
    "sample.heic": ("image", "jpg"),
    "sample.jpg": ("image", None),
    "sample.m4a": (None, None),
    "sample.mov": ("image", None),
    "sample.mp3": (None, None),
    "sample.mp4": ("image", None),
    "sample.odt": ("text", None),
    "sample.oga": (None, "m4a"),
    "sample.ogg": (None, "m4a"),
    "sample.opus": (None, "m4a"),
    "sample.pdf": ("image", None),
    "sample.png": ("image", None),
    "sample.pptx": ("text", None),
    "sample.vcf": ("text", None),
    "sample.wav": (None, None),
    "sample.webm": ("image", None),
    "sample.webp": ("image", None),
    "sample.xlsx": ("text", None),
    "sample.zip": (None, None),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_real_file_has_the_preview_of_what_it_is(name: str) -> None:
    """The content decides: a PNG that is called a PDF is shown as a picture."""
    body = (FILES / name).read_bytes()
    mime_type = detect_mime_type(body, len(body))
    assert (can_preview(mime_type), can_play(mime_type)) == EXPECTED[name]


def test_the_list_of_real_files_is_complete() -> None:
    """A file that joins the selection gets a line here."""
    assert set(EXPECTED) == {path.name for path in FILES.iterdir()}


@pytest.mark.parametrize("mime_type", [None, "", "application/zip", "application/x-elf", "image/x"])
def test_what_is_unknown_is_left_alone(mime_type: str | None) -> None:
    """No library is tried on a type that nobody listed."""
    assert can_preview(mime_type) is None
    assert can_play(mime_type) is None
    assert not has_text(mime_type)
    assert not can_examine(mime_type)


def test_whatever_can_be_copied_has_a_type_to_be_served_as() -> None:
    """Every extension of a copy goes with a type."""
    made = {can_play(mime_type) for mime_type in PICTURES | SOUNDS | VIDEOS} - {None}
    assert made == set(PLAYBACK_MIME_TYPES)


@pytest.mark.parametrize("mime_type", sorted(COMPOUNDS))
def test_a_look_at_the_whole_tells_compound_files_apart(mime_type: str) -> None:
    """By the first bytes alone some are taken for others, or for none that is known."""
    assert can_examine(mime_type)
    assert settled_type(mime_type, XLS) == XLS
    assert settled_type(mime_type, COMPOUND) == COMPOUND
    assert settled_type(mime_type, None) == mime_type


@pytest.mark.parametrize(
    ("detected", "found"),
    [
        ("text/plain", XLS),
        (None, XLS),
        (COMPOUND, "text/html"),
        (XLS, "image/png"),
        ("text/html", "text/plain"),
    ],
)
def test_nothing_else_becomes_another_type(detected: str | None, found: str) -> None:
    """A process that a file has taken over cannot have that file served as a page."""
    assert settled_type(detected, found) == detected
