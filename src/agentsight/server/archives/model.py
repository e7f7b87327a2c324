"""Names inside a ZIP: a folder for each message, safe and unique on every system. Pure.

What Windows forbids (`< > : " / \\ | ? *`, control characters, a dot or space at the end, `CON` and
its kind) is replaced; names that Windows or macOS would hold equal are numbered. Nothing in them
leads out of the folder they are unpacked into.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Final

MANIFEST_NAME: Final = "manifest.json"
MAX_NAME_BYTES: Final = 180
"""Of a name in UTF-8: file systems take 255, and unpackers add folders, numbers and a `.part`."""
_MAX_EXTENSION_BYTES: Final = 24
_FORBIDDEN: Final = re.compile('[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\ud800-\udfff]')
# "Naming Files, Paths, and Namespaces" (Microsoft): reserved with any extension too.
_RESERVED: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])[ ]*(\.|$)", re.IGNORECASE
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime(1980, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC)
"""What a ZIP's date can be (APPNOTE 4.4.6: MS-DOS format)."""


def folder_name(number: int, sent_at: int, sender: str, message_id: int) -> str:
    """Name the folder of one message: `0001 2026-01-31 10.30 end_user #105`.

    Args:
        number: The message's place among those with files, from 1.
        sent_at: Its time, µs since 1970 UTC.
        sender: Who sent it.
        message_id: Its row id.
    """
    time = _EPOCH + timedelta(microseconds=sent_at)
    stamp = f"{time.year:04}-{time.month:02}-{time.day:02} {time.hour:02}.{time.minute:02}"
    return f"{number:04} {stamp} {sender} #{message_id}"


def entry_time(sent_at: int) -> tuple[int, int, int, int, int, int]:
    """Return the date and time (UTC) of an entry, within what a ZIP can say."""
    time = min(max(_EPOCH + timedelta(microseconds=sent_at), _FIRST), _LAST)
    return time.year, time.month, time.day, time.hour, time.minute, time.second


def safe_name(filename: str) -> str:
    """Return a name that every system can unpack; a safe name stays as it is."""
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", filename))
    name = _clamp(name.strip(" ").rstrip(". ")).rstrip(". ")
    if not name:
        return "file"
    return f"_{name}" if _RESERVED.match(name) else name


def _clamp(name: str) -> str:
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    stem, extension = _split(name)
    room = MAX_NAME_BYTES - len(extension.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip() + extension


def _split(name: str) -> tuple[str, str]:
    """Split a name before its extension, where it has a short one."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > _MAX_EXTENSION_BYTES:
        return name, ""
    return stem, dot + extension


class Names:
    """The names given in one folder: what was given once is numbered the next time."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def give(self, filename: str) -> str:
        """Return a safe name that no other name of the folder equals, whatever its case."""
        name = safe_name(filename)
        if self._take(name):
            return name
        stem, extension = _split(name)
        # A thousand files of one name: each begins where the last one ended.
        number = self._next.get(_folded(name), 2)
        while not self._take(f"{stem} ({number}){extension}"):
            number += 1
        self._next[_folded(name)] = number + 1
        return f"{stem} ({number}){extension}"

    def _take(self, name: str) -> bool:
        folded = _folded(name)
        if folded in self._taken:
            return False
        self._taken.add(folded)
        return True


def _folded(name: str) -> str:
    """Return what equal names have in common, on file systems blind to case and composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
