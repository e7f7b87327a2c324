"""Excel workbooks of before 2007 (BIFF8 of Excel 97, BIFF5 of 5 and 95; [MS-XLS]).

Like the reader of newer ones: every sheet by name, cells as they are shown, formulas by the value
that was saved with them. A walk over records in the order of the file, given up when there is
enough; nothing is allocated for what a record only claims.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Final

from agentsight.server.media.readers.cells import (
    DATE_FORMATS,
    EPOCH,
    EPOCH_1904,
    is_date_format,
    shown_date,
)
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.texts import SinkFull, TextSink

_BOF, _EOF, _CONTINUE = 0x0809, 0x0A, 0x3C
_FILE_PASS, _DATE_1904, _CODE_PAGE, _BOUND_SHEET = 0x2F, 0x22, 0x42, 0x85
_FORMAT, _XF, _SHARED_STRINGS = 0x41E, 0xE0, 0xFC
_LABEL_SHARED, _LABEL, _RICH_STRING, _NUMBER, _RK, _MANY_RK = 0xFD, 0x204, 0xD6, 0x203, 0x27E, 0xBD
_FORMULA, _STRING, _BOOLEAN_OR_ERROR = 0x06, 0x207, 0x205

_BIFF5, _BIFF8 = 0x0500, 0x0600
_WORKSHEET = 0
"""The other kinds of sheets are charts and macros."""
_MAX_SHEETS: Final = 2000
_MAX_STYLES: Final = 0x10000
"""Cells name their style in 16 bits."""
_MAX_SHARED_CHARS: Final = 8 * 1024 * 1024
"""Of strings that sheets share, sixteen times what is kept of a text; later ones are left out."""
_ERRORS: Final = {
    0x00: "#NULL!",
    0x07: "#DIV/0!",
    0x0F: "#VALUE!",
    0x17: "#REF!",
    0x1D: "#NAME?",
    0x24: "#NUM!",
    0x2A: "#N/A",
}
_CODECS: Final = {1200: "utf-16-le", 367: "ascii", 10000: "mac-roman", 32768: "mac-roman"}
"""By code page, where Python does not call it `cp` and its number."""


def read(book: bytes, sink: TextSink) -> int | None:
    """Put all sheets into the sink, a line a row, tabs between cells; return their number.

    Args:
        book: The whole stream `Workbook`, or `Book`.
        sink: Takes the text.

    Raises:
        NotReadable: When it is locked, or no workbook that we know.
    """
    pages: int | None = None
    with contextlib.suppress(SinkFull):
        shared = _Book(memoryview(book), sink)
        pages = len(shared.sheets) or None
        # Two that begin at one place are made to have it read again and again.
        for at, name in {at: name for name, at in shared.sheets[:_MAX_SHEETS]}.items():
            sink.add(f"{name}\n")
            _Sheet(shared, sink).walk(at)
            sink.add("\n")
    return pages


def _records(book: memoryview, at: int, sink: TextSink) -> Iterator[tuple[int, memoryview, int]]:
    """Walk records from an offset on: kind, body, and where the next one begins."""
    while at + 4 <= len(book):
        kind, n_bytes = struct.unpack_from("<HH", book, at)
        end = at + 4 + n_bytes
        yield kind, book[at + 4 : end], end
        at = end
        sink.tick()


class _Run:
    """The bytes of a record and of those that continue it.

    Characters that go on in the next record begin there with a new flag for their width
    ([MS-XLS] 2.5.293); other bytes just go on. What ends too early raises `EOFError`.
    """

    def __init__(self, book: memoryview, body: memoryview, next_at: int, sink: TextSink) -> None:
        self._part = body
        self._at = 0
        self._others = _records(book, next_at, sink)

    def number(self, n_bytes: int) -> int:
        raw = bytes(self._part[self._at : self._at + n_bytes])
        self._at += len(raw)
        while len(raw) < n_bytes:
            self._reach()
            raw += bytes(self._part[self._at : self._at + 1])
            self._at += 1
        return int.from_bytes(raw, "little")

    def skip(self, n_bytes: int) -> None:
        while n_bytes > 0:
            self._reach()
            n_here = min(n_bytes, len(self._part) - self._at)
            self._at += n_here
            n_bytes -= n_here

    def string(self, n_chars: int) -> str:
        """Read a string of BIFF8, from its flags on."""
        flags = self.number(1)
        n_runs = self.number(2) if flags & 0x08 else 0
        n_phonetic = self.number(4) if flags & 0x04 else 0  # how to pronounce it
        text = self._characters(n_chars, is_wide=bool(flags & 0x01))
        self.skip(n_runs * 4 + n_phonetic)
        return text

    def narrow(self, n_chars: int, codec: str) -> str:
        """Read a string of BIFF5, in the workbook's code page."""
        raw = self._part[self._at : self._at + n_chars]
        self._at += len(raw)
        return str(raw, codec, "replace")

    def _characters(self, n_chars: int, *, is_wide: bool) -> str:
        pieces: list[str] = []
        while n_chars > 0:
            if self._at >= len(self._part):
                self._reach()
                is_wide = bool(self._part[0] & 0x01)
                self._at = 1
            width, codec = (2, "utf-16-le") if is_wide else (1, "latin-1")
            n_here = min(n_chars, (len(self._part) - self._at) // width)
            raw = self._part[self._at : self._at + n_here * width]
            pieces.append(str(raw, codec, "surrogatepass"))
            # Half a character at a record's end is damage, and passed over.
            self._at = self._at + n_here * width if n_here else len(self._part)
            n_chars -= n_here
        return "".join(pieces)

    def _reach(self) -> None:
        while self._at >= len(self._part):
            kind, self._part, _ = next(self._others, (_EOF, self._part, 0))
            if kind != _CONTINUE:
                raise EOFError
            self._at = 0


class _Book:
    """What the sheets share: their names and places, strings, formats, and the day that is 0."""

    def __init__(self, book: memoryview, sink: TextSink) -> None:
        self.bytes = book
        self.sheets: list[tuple[str, int]] = []
        self.strings: list[str] = []
        self.epoch = EPOCH
        self._codec = "cp1252"
        self._sink = sink
        self._date_formats = set(DATE_FORMATS)
        self._styles: list[int] = []
        self._n_shared_chars = 0
        self._version = self._begin()
        for kind, body, next_at in _records(book, 0, sink):
            if kind == _EOF:
                break
            with contextlib.suppress(EOFError, struct.error):  # a damaged record hides no others
                self._obey(kind, body, _Run(book, body, next_at, sink))

    def _begin(self) -> int:
        kind, _, version = struct.unpack("<HHH", bytes(self.bytes[:6]).ljust(6, b"\0"))
        if kind != _BOF or version not in (_BIFF5, _BIFF8):
            raise NotReadable("it does not begin as a workbook does")
        return version

    def _obey(self, kind: int, body: memoryview, run: _Run) -> None:
        if kind == _FILE_PASS:
            raise NotReadable("locked by a password")
        if kind == _BOUND_SHEET:
            at, _, sheet_kind = run.number(4), run.number(1), run.number(1)
            if sheet_kind == _WORKSHEET:
                self.sheets.append((self.text(run, run.number(1)), at))
        elif kind == _SHARED_STRINGS:
            self._read_shared(run)
        elif kind == _FORMAT:
            number = run.number(2)
            n_chars = run.number(2 if self._version == _BIFF8 else 1)
            if is_date_format(self.text(run, n_chars)):
                self._date_formats.add(number)
        elif kind == _XF and len(self._styles) < _MAX_STYLES:
            self._styles.append(struct.unpack_from("<H", body, 2)[0])
        elif kind == _DATE_1904:
            self.epoch = EPOCH_1904 if run.number(2) == 1 else EPOCH
        elif kind == _CODE_PAGE:
            self._use_code_page(run.number(2))

    def text(self, run: _Run, n_chars: int) -> str:
        """Read a string in the way of this workbook's version."""
        return run.string(n_chars) if self._version == _BIFF8 else run.narrow(n_chars, self._codec)

    def _read_shared(self, run: _Run) -> None:
        run.skip(4)  # how often they are used
        for _ in range(run.number(4)):
            value = run.string(run.number(2))
            # An empty one takes its place in memory, too.
            self._n_shared_chars += len(value) + 1
            if self._n_shared_chars > _MAX_SHARED_CHARS:
                self._sink.is_cut = True
                return
            self.strings.append(value)
            self._sink.tick()

    def _use_code_page(self, number: int) -> None:
        codec = _CODECS.get(number, f"cp{number}")
        with contextlib.suppress(LookupError):
            b"".decode(codec)
            self._codec = codec

    def shown(self, value: float, style: int) -> str:
        """Write a number as its cell shows it: a date where the style says so."""
        is_styled = style < len(self._styles) and self._styles[style] in self._date_formats
        date = shown_date(value, self.epoch) if is_styled else None
        return date or f"{value:.15g}"  # the digits that Excel keeps


class _Sheet:
    """Walks one sheet's cells."""

    def __init__(self, book: _Book, sink: TextSink) -> None:
        self._book = book
        self._sink = sink
        self._row = -1
        self._cells: list[str] = []

    def walk(self, at: int) -> None:
        """Read from the sheet's first record to its last.

        Raises:
            SinkFull: When there is enough.
        """
        depth = 0
        for kind, body, next_at in _records(self._book.bytes, at, self._sink):
            if kind == _BOF:  # charts on the sheet are sheets in it, and repeat its numbers
                depth += 1
            elif kind == _EOF:
                depth -= 1
            elif depth == 1:
                with contextlib.suppress(EOFError, struct.error):
                    self._obey(kind, body, next_at)
            if depth <= 0:
                break
        self._end_row()

    def _obey(self, kind: int, body: memoryview, next_at: int) -> None:
        if kind == _STRING:  # what the formula before it gave
            run = _Run(self._book.bytes, body, next_at, self._sink)
            self._cells.append(self._book.text(run, run.number(2)))
        elif kind == _MANY_RK:
            self._go_to(body)
            for style, value in struct.iter_unpack("<HI", body[4 : 4 + (len(body) - 6) // 6 * 6]):
                self._cells.append(self._book.shown(_rk(value), style))
        elif kind in _CELLS:
            self._go_to(body)
            style = struct.unpack_from("<H", body, 4)[0]
            text = self._cell(kind, body, style, next_at)
            if text is not None:
                self._cells.append(text)

    def _go_to(self, body: memoryview) -> None:
        row = struct.unpack_from("<H", body)[0]
        if row != self._row:
            self._end_row()
            self._row = row

    def _end_row(self) -> None:
        if any(self._cells):
            self._sink.add("\t".join(self._cells) + "\n")
        self._cells.clear()

    def _cell(self, kind: int, body: memoryview, style: int, next_at: int) -> str | None:
        if kind == _LABEL_SHARED:
            index = struct.unpack_from("<I", body, 6)[0]
            return self._book.strings[index] if index < len(self._book.strings) else ""
        if kind in (_LABEL, _RICH_STRING):
            run = _Run(self._book.bytes, body, next_at, self._sink)
            run.skip(6)
            return self._book.text(run, run.number(2))
        if kind == _RK:
            return self._book.shown(_rk(struct.unpack_from("<I", body, 6)[0]), style)
        if kind == _BOOLEAN_OR_ERROR:
            value, is_error = struct.unpack_from("<BB", body, 6)
            return _boolean_or_error(value, is_error=bool(is_error))
        if kind == _FORMULA and bytes(body[12:14]) == b"\xff\xff":
            return _boolean_or_error(body[8], is_error=body[6] == 2) if body[6] in (1, 2) else None
        return self._book.shown(struct.unpack_from("<d", body, 6)[0], style)


_CELLS: Final = frozenset(
    {_LABEL_SHARED, _LABEL, _RICH_STRING, _NUMBER, _RK, _FORMULA, _BOOLEAN_OR_ERROR}
)


def _rk(value: int) -> float:
    """Unpack a number of 30 bits: whole or the upper half of a float, perhaps of hundredths."""
    if value & 0x02:
        number = float((value >> 2) - (1 << 30 if value & 0x80000000 else 0))
    else:
        number = struct.unpack("<d", struct.pack("<Q", (value & 0xFFFFFFFC) << 32))[0]
    return number / 100 if value & 0x01 else number


def _boolean_or_error(value: int, *, is_error: bool) -> str:
    if is_error:
        return _ERRORS.get(value, "#N/A")
    return "TRUE" if value else "FALSE"
