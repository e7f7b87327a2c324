"""Word documents of before 2007 (Word 97 to 2003, [MS-DOC]): the text, by the piece table.

The text stands in pieces, each of one byte or two a character, anywhere in the main stream; the
table stream tells their order. One after the other come the document, its footnotes, headers,
comments, endnotes and text boxes. Text that was deleted while changes were recorded, and hidden
text, are told apart by formatting alone, which is not read: they are found, too.
"""

from __future__ import annotations

import contextlib
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final, NamedTuple

from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.texts import SinkFull, TextSink

_WORD_97, _WORD_6 = 0xA5EC, 0xA5DC
_FLAGS_AT: Final = 10
_IS_ENCRYPTED, _USES_TABLE_1 = 0x0100, 0x0200
_LENGTHS_AT: Final = 0x4C
"""`ccpText` and the seven lengths that follow it (2.5.4 FibRgLw97)."""
_TABLE_AT: Final = 0x1A2
"""`fcClx` and `lcbClx` (2.5.6 FibRgFcLcb97)."""
_UNUSED_PART: Final = 3
_PIECE_BYTES, _PLACE_BYTES = 8, 4
_IS_COMPRESSED: Final = 0x40000000
_STEP_CHARS: Final = 0x8000
"""Pieces are decoded by so many characters: one may claim to hold the whole file."""
_FIELD: Final = re.compile("[\x13\x14\x15]")
_CELLS: Final = re.compile("\x07+")
_WRITTEN: Final = str.maketrans("\x0b\x0c\x0d\x0e\x1e", "\n\n\n\n-", "\x1f")
"""Ends of lines, pages, paragraphs and columns; a hyphen that does not break, one that may."""


class _Piece(NamedTuple):
    """Characters `start` to `end` of the text, and where their bytes are."""

    start: int
    end: int
    at: int
    width: int


def read(main: bytes, open_table: Callable[[str], bytes], sink: TextSink) -> None:
    """Put the text into the sink.

    Args:
        main: The whole stream `WordDocument`.
        open_table: Gives the stream of a name.
        sink: Takes the text.

    Raises:
        NotReadable: When it is locked, of Word 6 or 95, or its tables are damaged.
    """
    try:
        magic, flags = (struct.unpack_from("<H", main, at)[0] for at in (0, _FLAGS_AT))
        lengths = struct.unpack_from("<8i", main, _LENGTHS_AT)
        clx_at, clx_bytes = struct.unpack_from("<II", main, _TABLE_AT)
    except struct.error as exc:
        raise NotReadable("its first page is not whole") from exc
    if magic == _WORD_6:
        raise NotReadable("written by Word of before 1997")
    if magic != _WORD_97:
        raise NotReadable("it does not begin as a document does")
    if flags & _IS_ENCRYPTED:
        raise NotReadable("locked by a password")
    table = open_table("1Table" if flags & _USES_TABLE_1 else "0Table")
    with contextlib.suppress(SinkFull):
        pieces = _find_pieces(memoryview(table)[clx_at : clx_at + clx_bytes], sink)
        # Where each part ends. The one that is to be ignored is, whatever its length says.
        ends = accumulate(max(n, 0) for place, n in enumerate(lengths) if place != _UNUSED_PART)
        _read_parts(memoryview(main), pieces, list(ends), sink)


def _find_pieces(clx: memoryview, sink: TextSink) -> memoryview:
    """Return the piece table: where pieces begin in the text, its end, then the pieces (2.8.35).

    Raises:
        NotReadable: When there is none.
        SinkFull: When the time is over.
    """
    at = 0
    while bytes(clx[at : at + 1]) == b"\x01":  # formatting, which pieces refer to
        at += 3 + int.from_bytes(clx[at + 1 : at + 3], "little")
        sink.tick()
    n_bytes = int.from_bytes(clx[at + 1 : at + 5], "little")
    table = clx[at + 5 : at + 5 + n_bytes]
    if bytes(clx[at : at + 1]) != b"\x02" or len(table) < _PLACE_BYTES * 2 + _PIECE_BYTES:
        raise NotReadable("its piece table is not there")
    return table


def _pieces(table: memoryview) -> Iterator[_Piece]:
    """Read the pieces one by one: a table may claim millions."""
    n_pieces = (len(table) - _PLACE_BYTES) // (_PLACE_BYTES + _PIECE_BYTES)
    split = (n_pieces + 1) * _PLACE_BYTES
    starts = struct.iter_unpack("<I", table[: split - _PLACE_BYTES])
    ends = struct.iter_unpack("<I", table[_PLACE_BYTES:split])
    places = struct.iter_unpack("<2xI2x", table[split : split + n_pieces * _PIECE_BYTES])
    for (start,), (end,), (place,) in zip(starts, ends, places, strict=True):
        at = place & ~_IS_COMPRESSED
        if place & _IS_COMPRESSED:
            yield _Piece(start, end, at // 2, 1)
        else:
            yield _Piece(start, end, at, 2)


def _read_parts(main: memoryview, table: memoryview, ends: list[int], sink: TextSink) -> None:
    """Walk the pieces once, and begin anew where a part of the text ends: a field ends with it.

    Raises:
        SinkFull: When there is enough.
    """
    place, part = 0, _Part(sink)
    for piece in _pieces(table):
        sink.tick()
        place = max(place, piece.start)
        while place < min(piece.end, ends[-1]):
            end = ends[bisect_right(ends, place)]
            for text in _characters(main, piece, place, min(piece.end, end)):
                part.add(text)
                sink.check_time()
            place = min(piece.end, end)
            if place == end:
                part = _Part(sink)
                sink.add("\n")


def _characters(main: memoryview, piece: _Piece, first: int, last: int) -> Iterator[str]:
    """Give the characters `first` to `last` of a piece, by steps, as far as there are bytes."""
    # Windows' code page 1252 is what the specification lists for single bytes (2.9.73).
    codec, errors = ("utf-16-le", "surrogatepass") if piece.width == 2 else ("cp1252", "replace")
    for place in range(first, last, _STEP_CHARS):
        at = piece.at + (place - piece.start) * piece.width
        raw = main[at : at + min(_STEP_CHARS, last - place) * piece.width]
        if len(raw) < piece.width:
            return
        yield str(raw[: len(raw) // piece.width * piece.width], codec, errors)


class _Part:
    """Writes characters as they are read: of a field what it shows, not how it comes about."""

    def __init__(self, sink: TextSink) -> None:
        self._sink = sink
        self._is_result: list[bool] = []
        """Of each field that is open: whether its instruction is over."""
        self._n_hidden = 0

    def add(self, text: str) -> None:
        at = 0
        for mark in _FIELD.finditer(text):
            self._write(text[at : mark.start()])
            at = mark.end()
            self._turn(mark[0])
        self._write(text[at:])

    def _turn(self, mark: str) -> None:
        if mark == "\x13":
            self._is_result.append(False)
            self._n_hidden += 1
        elif mark == "\x14" and self._is_result and not self._is_result[-1]:
            self._is_result[-1] = True
            self._n_hidden -= 1
        elif mark == "\x15" and self._is_result:
            self._n_hidden -= not self._is_result.pop()

    def _write(self, text: str) -> None:
        if text and not self._n_hidden:
            # A row ends as its last cell does, with a second mark.
            shown = _CELLS.sub(lambda marks: "\t" if len(marks[0]) == 1 else "\n", text)
            self._sink.add(shown.translate(_WRITTEN))
