"""Tests of file names: cleaned when they come in, quoted when they go out."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentsight.server.attachments.names import clean_filename, content_disposition

# Hypothesis's text leaves out surrogates unless they are asked for.
NAMES = st.text(st.characters(exclude_categories=[]), max_size=400)
PIECES = st.lists(
    st.sampled_from(
        ["/", "\\", ".", "..", "\0", "\r\n", "\u202e", " ", "a", "é", "\ud83d", "x.png"]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("report.pdf", "report.pdf"),
        ("Grüße aus Köln.pdf", "Grüße aus Köln.pdf"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("../../x.png", "x.png"),
        ("folder/", "folder"),
        ("a\r\nSet-Cookie: x.txt", "aSet-Cookie: x.txt"),
        ("a\0b.txt", "ab.txt"),
        ("evil\u202egpj.exe", "evilgpj.exe"),
        ("\ufeffname.txt", "name.txt"),
        ("  spaced.txt  ", "spaced.txt"),
        ("half\ud83d.txt", "half\ufffd.txt"),
        ("pair\ud83d\ude00.txt", "pair\U0001f600.txt"),
        (".env", ".env"),
        ("👩‍👩‍👧.png", "👩‍👩‍👧.png"),
        ("", "file"),
        (None, "file"),
        ("/", "file"),
        (".", "file"),
        ("..", "file"),
        ("...", "file"),
        (". .", "file"),
        ("\r\n\t", "file"),
        ("a" * 300 + ".png", "a" * 251 + ".png"),
        ("a" * 300, "a" * 255),
        ("a." + "b" * 300, "a." + "b" * 253),
        ("é" * 300 + ".tar.gz", "é" * 252 + ".gz"),
    ],
)
def test_names_are_mended_not_refused(raw: str | None, expected: str) -> None:
    """What harms is taken out, what is left is kept."""
    assert clean_filename(raw) == expected


@given(NAMES | PIECES)
@example("a" * 254 + " .png")
@example("x" * 254 + " b")
def test_a_clean_name_is_safe(raw: str) -> None:
    """No path, no control or bidirectional character, never empty, never dots, never too long."""
    name = clean_filename(raw)
    assert 1 <= len(name) <= 255
    assert not set(name) & set("/\\\0\r\n\u202e\u2066\u200f")
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name)
    assert name.strip(". ")
    assert name == name.strip()
    name.encode("utf-8")


@given(NAMES | PIECES)
def test_cleaning_twice_changes_nothing(raw: str) -> None:
    """A clean name stays as it is."""
    assert clean_filename(clean_filename(raw)) == clean_filename(raw)


@given(stem=NAMES, extension=st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True))
def test_the_extension_is_kept(stem: str, extension: str) -> None:
    """However long a name is, its extension survives."""
    assert clean_filename(f"a{stem}b.{extension}").endswith(f".{extension}")


@given(name=NAMES, kind=st.sampled_from(["inline", "attachment"]))
@example(name='a"; filename="b', kind="inline")
@example(name="a\\", kind="inline")
@example(name="a%22b'c.txt", kind="attachment")
def test_a_header_says_the_name_and_nothing_else(name: str, kind: str) -> None:
    """The value is printable ASCII with balanced quotes, and receivers read the true name."""
    header = content_disposition(kind, name)  # pyright: ignore[reportArgumentType]
    assert header.isascii()
    assert header.isprintable()
    shape = re.fullmatch(
        rf"{kind}; filename=\"([^\"\\%]*)\"(?:; filename\*=UTF-8''([!-~]*))?", header
    )
    assert shape is not None
    exact = shape[1] if shape[2] is None else unquote(shape[2])
    assert exact == name.encode("utf-8", "replace").decode()


def test_old_receivers_get_a_readable_name() -> None:
    """The plain parameter keeps letters without their accents."""
    header = content_disposition("inline", "Café 日本.pdf")
    assert header.startswith('inline; filename="Cafe __.pdf"; ')
