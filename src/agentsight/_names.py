"""Turn names that others chose into names of files in one directory of ours. Pure.

A name comes from whoever sent the file: it may try to leave the directory, to be a device of
Windows, to hide, or to look like another. What comes out is one plain name that every system takes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

_MAX_NAME_BYTES: Final = 240
"""Of 255 that file systems take; the rest is for ` (12345)`."""
_MAX_ENDING_CHARS: Final = 20
_FORBIDDEN: Final = frozenset('/\\:*?"<>|')
"""On Windows, or anywhere (Microsoft, "Naming Files, Paths, and Namespaces")."""
_UNSEEN_CATEGORIES: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control characters, and such as turn `gpj.exe` around."""
_JOINERS: Final = "\u200c\u200d"
"""Unseen, but Persian words and families of emoji are not themselves without."""
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE
)
_NUMBERED: Final = re.compile(r"(.+) \([1-9][0-9]{0,8}\)", re.DOTALL)


def safe_name(given: str) -> str:
    """Return a plain file name for any text: never a path, never hidden, never a device."""
    text = unicodedata.normalize("NFC", given)
    text = "".join("_" if _is_unsafe(character) else character for character in text)
    text = text.strip().rstrip(". ")
    bare = text.lstrip(".")
    text = f"_{bare}" if bare != text else text
    stem, ending = split_name(text)
    if _DEVICE.fullmatch(text.partition(".")[0].rstrip()):
        stem = f"_{stem}"
    stem = stem[:_MAX_NAME_BYTES]  # a character has a byte at least
    while len(f"{stem}{ending}".encode()) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return f"{stem.rstrip()}{ending}" or "file"


def split_name(name: str) -> tuple[str, str]:
    """Split a name before its last dot; an ending of more than 20 characters is none."""
    stem, dot, ending = name.rpartition(".")
    if not stem or not dot or len(ending) > _MAX_ENDING_CHARS:
        return name, ""
    return stem, f".{ending}"


def fold_name(name: str) -> str:
    """Return what two names share that some file system takes for the same."""
    return unicodedata.normalize("NFKC", name).casefold()


def free_name(name: str, taken: Iterable[str], first: int = 1) -> tuple[str, int]:
    """Return `name`, or `name (2)` and so on before its ending: the first that is not taken.

    Args:
        name: as `safe_name` made it.
        taken: folded names.
        first: the number to begin with; 1 is the plain name.

    Returns:
        The name and its number.
    """
    stem, ending = split_name(name)
    number = first
    while True:
        numbered = name if number == 1 else f"{stem} ({number}){ending}"
        if fold_name(numbered) not in taken:
            return numbered, number
        number += 1


def bases_of(name: str) -> set[str]:
    """Return, folded, the names of which `free_name` may have made this one."""
    stem, ending = split_name(name)
    numbered = _NUMBERED.fullmatch(stem)
    bases = {fold_name(name)}
    return bases if numbered is None else bases | {fold_name(numbered[1] + ending)}


def _is_unsafe(character: str) -> bool:
    if character in _FORBIDDEN:
        return True
    return unicodedata.category(character) in _UNSEEN_CATEGORIES and character not in _JOINERS
