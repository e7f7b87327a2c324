"""Names that others chose become names of files in one directory, whatever they were."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentsight._names import bases_of, fold_name, free_name, safe_name

HOSTILE = [
    ("../../etc/passwd", "__.._etc_passwd"),
    ("..\\..\\boot.ini", "__.._boot.ini"),
    ("C:\\Windows\\x.dll", "C__Windows_x.dll"),
    ("/etc/shadow", "_etc_shadow"),
    (".bashrc", "_bashrc"),
    ("..", "file"),
    ("", "file"),
    ("   ", "file"),
    ("a\0b", "a_b"),
    ("a\nb\x1b[2J", "a_b_[2J"),
    ("photo\u202egpj.exe", "photo_gpj.exe"),
    ("CON", "_CON"),
    ("nul.tar.gz", "_nul.tar.gz"),
    ("COM\u00b9.txt", "_COM\u00b9.txt"),
    ("report.pdf. . ", "report.pdf"),
    ("a?b*c.txt", "a_b_c.txt"),
    ("half \ud83d", "half _"),
    ("Rechnung März.pdf", "Rechnung März.pdf"),
    ("می\u200cخواهم.txt", "می\u200cخواهم.txt"),
]


@pytest.mark.parametrize(("given", "safe"), HOSTILE)
def test_hostile_names_become_plain_ones(given: str, safe: str) -> None:
    """What may stay stays."""
    assert safe_name(given) == safe


@given(st.text(st.characters(), max_size=400))
@example("x" * 300 + ".pdf")
@example("\U0001f408" * 100)
def test_any_text_becomes_one_file_in_the_directory(text: str) -> None:
    """Never a path, never hidden, never too long, and the same when it is made safe again."""
    name = safe_name(text)
    assert name
    assert len(name.encode()) <= 240
    assert Path(name).name == name
    assert PureWindowsPath(name).name == name
    assert not name.startswith(".")
    assert name == name.strip() == name.rstrip(". ")
    assert not any(ord(character) < 32 for character in name)
    assert safe_name(name) == name


@given(st.lists(st.sampled_from(["a.txt", "A.TXT", "a (2).txt", "b", "ﬁ.txt", "fi.txt"])))
def test_no_two_get_the_same_name_on_any_file_system(names: list[str]) -> None:
    """Also where case does not count, and letters are taken apart; and each says what it was."""
    taken: set[str] = set()
    for name in names:
        free, _ = free_name(name, taken)
        assert fold_name(free) not in taken
        assert fold_name(name) in bases_of(free)
        taken.add(fold_name(free))


def test_the_ending_stays_at_the_end() -> None:
    """So that a picture stays a picture."""
    assert free_name("a.txt", {"a.txt", "a (2).txt"}) == ("a (3).txt", 3)
    assert free_name("README", {"readme"}) == ("README (2)", 2)
    assert safe_name("x" * 300 + ".pdf").endswith("x.pdf")


@pytest.mark.slow
def test_a_name_of_megabytes_is_cut_at_once() -> None:
    """A server that makes up names cannot keep its client busy for hours."""
    name = safe_name("x" * 5_000_000 + ".pdf")
    assert name == "x" * 236 + ".pdf"
