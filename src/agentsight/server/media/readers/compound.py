"""Compound files ([MS-CFB], "OLE"): small file systems in a file, read for the streams at the root.

Nothing is believed of what a file claims: chains end after as many sectors as the file has, tables
are no longer than it needs, and streams are no larger than it is.
"""

from __future__ import annotations

import array
import os
import struct
import sys
from collections.abc import Iterable
from itertools import islice
from typing import BinaryIO, Final, NamedTuple

from agentsight.server.media.readers.errors import NotReadable

_MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEADER_BYTES: Final = 512
_SECTOR_SHIFTS: Final = (9, 12)
_MINI_BYTES: Final = 64
_MINI_CUTOFF: Final = 4096
"""Smaller streams lie in sectors of `_MINI_BYTES` inside of the root's stream."""
_IN_HEADER: Final = 109
"""Sectors of the allocation table that the header names; the others stand in a chain."""
_END: Final = 0xFFFFFFFA
"""From here on numbers are marks: the end of a chain, no sector, …"""
_ENTRY_BYTES: Final = 128
_ROOT, _STREAM = 5, 2
_MAX_ENTRIES: Final = 0x8000
"""Of the directory; a document with a thousand embedded objects has some 10,000."""
_MAX_STREAM_BYTES: Final = 128 * 1024 * 1024
"""A stream is held whole, for a moment twice, in a process that may take 1 GiB."""


class _Entry(NamedTuple):
    """One of the directory: a storage or a stream, and its neighbours in the tree of names."""

    name: str
    kind: int
    left: int
    right: int
    child: int
    start: int
    n_bytes: int


class CompoundFile:
    """The streams at the root of an open file. The file stays the caller's.

    Args:
        file: Open for reading, in binary.

    Raises:
        NotReadable: When it is no compound file, or its directory is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._n_file_bytes = os.fstat(file.fileno()).st_size
        header = self._bytes(0, _HEADER_BYTES)
        if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
            raise NotReadable("it does not begin as a compound file does")
        shift = struct.unpack_from("<H", header, 30)[0]
        if shift not in _SECTOR_SHIFTS:
            raise NotReadable("its sectors have an impossible size")
        self._sector_bytes = 1 << shift
        self._n_sectors = -(-self._n_file_bytes // self._sector_bytes)
        self._table = self._read_table(header)
        directory_at, mini_table_at = (struct.unpack_from("<I", header, at)[0] for at in (48, 60))
        self._mini_table_at = mini_table_at
        entries = self._read_directory(directory_at)
        self._root = entries[0]
        self._streams = {name.lower(): entry for name, entry in _below_root(entries)}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._streams

    def read(self, name: str) -> bytes:
        """Return a stream's bytes.

        Args:
            name: Of a stream at the root, in any case.

        Raises:
            NotReadable: When there is none, it is too large, or it ends too early.
        """
        entry = self._streams.get(name.lower())
        if entry is None:
            raise NotReadable("a stream is not there")
        if entry.n_bytes > min(_MAX_STREAM_BYTES, self._n_file_bytes):
            raise NotReadable(f"a stream claims {entry.n_bytes} bytes")
        if entry.n_bytes < _MINI_CUTOFF:
            found = self._read_mini(entry)
        else:
            n_sectors = -(-entry.n_bytes // self._sector_bytes)
            found = self._sectors(self._chain(entry.start, n_sectors))
        if len(found) < entry.n_bytes:
            raise NotReadable("a stream ends too early")
        del found[entry.n_bytes :]
        return bytes(found)

    def _read_mini(self, entry: _Entry) -> bytearray:
        place = self._chain(self._root.start)
        mini_table = _numbers(self._sectors(self._chain(self._mini_table_at)))
        a_sector = self._sector_bytes // _MINI_BYTES
        found = bytearray()
        for number in islice(_follow(mini_table, entry.start), _MINI_CUTOFF // _MINI_BYTES):
            if number // a_sector >= len(place):
                break
            at = (place[number // a_sector] + 1) * self._sector_bytes
            found += self._bytes(at + number % a_sector * _MINI_BYTES, _MINI_BYTES)
        return found

    def _read_table(self, header: bytes) -> array.array[int]:
        """Read the allocation table: for each sector, which one comes after it."""
        n_claimed, further_at = (struct.unpack_from("<I", header, at)[0] for at in (44, 68))
        # A number has four bytes: no more sectors of them than number the sectors of this file.
        n_parts = min(n_claimed, self._n_sectors * 4 // self._sector_bytes + 1)
        parts = list(struct.unpack_from(f"<{_IN_HEADER}I", header, 76))
        while len(parts) < n_parts and further_at < _END:
            numbers = _numbers(self._sectors([further_at]))
            if len(numbers) < 2:
                break
            parts += numbers[:-1]
            further_at = numbers[-1]
        return _numbers(self._sectors(parts[:n_parts]))

    def _read_directory(self, at: int) -> list[_Entry]:
        n_sectors = _MAX_ENTRIES * _ENTRY_BYTES // self._sector_bytes
        raw = self._sectors(self._chain(at, n_sectors))
        whole = memoryview(raw)[: len(raw) // _ENTRY_BYTES * _ENTRY_BYTES]
        entries = [
            _Entry(
                str(name[: max(n_name_bytes - 2, 0)], "utf-16-le", "replace"),
                kind,
                left,
                right,
                child,
                start,
                # The upper half of the size is noise in files of small sectors (2.6.1).
                n_bytes if self._sector_bytes > _HEADER_BYTES else n_bytes & 0xFFFFFFFF,
            )
            for name, n_name_bytes, kind, left, right, child, start, n_bytes in struct.iter_unpack(
                "<64sHBxIII36xIQ", whole
            )
        ]
        if not entries or entries[0].kind != _ROOT:
            raise NotReadable("its directory is damaged")
        return entries

    def _chain(self, start: int, n_wanted: int | None = None) -> list[int]:
        """Return a chain's sectors, at most as many as there are: a longer one goes in circles."""
        n_sectors = self._n_sectors if n_wanted is None else min(n_wanted, self._n_sectors)
        return list(islice(_follow(self._table, start), n_sectors))

    def _sectors(self, numbers: Iterable[int]) -> bytearray:
        """Read sectors one after the other, up to the first that is not in the file."""
        found = bytearray()
        for number in numbers:
            sector = self._bytes((number + 1) * self._sector_bytes, self._sector_bytes)
            found += sector
            if len(sector) < self._sector_bytes:
                break
        return found

    def _bytes(self, at: int, n_bytes: int) -> bytes:
        if at >= self._n_file_bytes:
            return b""
        self._file.seek(at)
        return self._file.read(n_bytes)


def _follow(table: array.array[int], number: int) -> Iterable[int]:
    """Walk a chain, in circles where it does."""
    while number < _END:
        yield number
        if number >= len(table):
            return
        number = table[number]


def _numbers(raw: bytearray) -> array.array[int]:
    found = array.array("I")
    found.frombytes(raw[: len(raw) // found.itemsize * found.itemsize])
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _below_root(entries: list[_Entry]) -> Iterable[tuple[str, _Entry]]:
    """Walk the tree of names at the root; what is met twice is passed over."""
    seen: set[int] = set()
    waiting = [entries[0].child]
    while waiting:
        number = waiting.pop()
        if number in seen or number >= len(entries):
            continue
        seen.add(number)
        entry = entries[number]
        if entry.kind == _STREAM:
            yield entry.name, entry
        waiting += (entry.left, entry.right)
