"""Names inside a ZIP: safe on every system, unique in their folder, and the sender's otherwise."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.archives.model import (
    MAX_NAME_BYTES,
    Names,
    entry_time,
    folder_name,
    safe_name,
)

NASTY = 'aA./\\:*?"<>| \x00\x1f\x7f\u202eßẞéÉe\u0301\u0345😀CONconLPT1nul()2'


def us(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    "filename",
    ["report.pdf", "Straße 7.csv", "日本語.txt", "archive.tar.gz", ".env", "a (2).txt", "😀.png"],
)
def test_a_safe_name_stays(filename: str) -> None:
    """Nobody's name is changed without need."""
    assert safe_name(filename) == filename


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("C:\\Windows\\x.dll", "C__Windows_x.dll"),
        ("a:b?.txt", "a_b_.txt"),
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Nul .tar.gz", "_Nul .tar.gz"),
        ("COM\u00b9.log", "_COM\u00b9.log"),
        ("LPT0", "_LPT0"),
        ("CONIN$", "_CONIN$"),
        ("console.txt", "console.txt"),
        ("dots...", "dots"),
        (" . ", "file"),
        ("..", "file"),
        ("", "file"),
        ("e\u0301.txt", "é.txt"),
        ("a\nb\x00c", "a_b_c"),
        ("x\ud800.txt", "x_.txt"),
    ],
)
def test_what_a_system_forbids_is_replaced(filename: str, expected: str) -> None:
    """Paths, Windows' characters and devices, and what file systems cut off."""
    assert safe_name(filename) == expected


def test_a_long_name_keeps_its_extension() -> None:
    """File systems count bytes, of which one character may have four."""
    name = safe_name("😀" * 255 + ".jpeg")
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name.endswith("😀.jpeg")
    assert len(safe_name("x." + "y" * 500).encode()) <= MAX_NAME_BYTES


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


@given(st.lists(st.text(NASTY, max_size=12) | st.text(max_size=300), max_size=20))
def test_names_of_a_folder_are_safe_and_unique(filenames: list[str]) -> None:
    """Whatever is sent: unique without case, in NFC, one step, nothing reserved, short enough."""
    names = Names()
    given_names = [names.give(filename) for filename in filenames]
    assert len({folded(name) for name in given_names}) == len(given_names)
    for name in given_names:
        assert name == unicodedata.normalize("NFC", name)
        assert not set(name) & set('<>:"/\\|?*\x00')
        assert name.isprintable() or all(ord(c) >= 32 for c in name)
        assert name.strip(" ") == name
        assert not name.endswith(".")
        assert name.partition(".")[0].strip().upper() not in ("CON", "NUL", "LPT1", "AUX")
        assert len(name.encode()) <= MAX_NAME_BYTES + 10
        assert safe_name(name) == name or len(name.encode()) > MAX_NAME_BYTES


def test_equal_names_are_numbered() -> None:
    """Before the extension, from 2; a name that looks numbered is passed over."""
    names = Names()
    sent = ["a.txt", "A.TXT", "a (2).txt", "a.txt", "e\u0301", "É"]
    assert [names.give(name) for name in sent] == [
        "a.txt", "A (2).TXT", "a (2) (2).txt", "a (3).txt", "é", "É (2)",
    ]  # fmt: skip


def test_thousands_of_equal_names_take_no_time() -> None:
    """Each begins to count where the last one ended."""
    names = Names()
    assert len({names.give("image.jpg") for _ in range(20_000)}) == 20_000


def test_folders_sort_as_the_messages_do() -> None:
    """Number, time, sender and id, in characters that every system takes."""
    at = us(2026, 1, 31, 10, 30)
    assert folder_name(1, at, "end_user", 105) == "0001 2026-01-31 10.30 end_user #105"
    assert folder_name(12345, us(1, 1, 1), "agent", 7) == "12345 0001-01-01 00.00 agent #7"


def test_times_stay_within_what_a_zip_can_say() -> None:
    """MS-DOS dates begin in 1980 and end in 2107."""
    assert entry_time(us(1969)) == (1980, 1, 1, 0, 0, 0)
    assert entry_time(us(2026, 5, 4, 3, 2)) == (2026, 5, 4, 3, 2, 0)
    assert entry_time(us(3000))[0] == 2107
