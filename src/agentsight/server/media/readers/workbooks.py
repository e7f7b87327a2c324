"""Excel workbooks (ECMA-376, part 1, chapter 18): every sheet by name, cells as they are shown.

Formulas give the value that was saved with them; numbers that are dates are written as dates.
"""

from __future__ import annotations

import zipfile
from typing import Final

from agentsight.server.media.readers.cells import (
    DATE_FORMATS,
    EPOCH,
    EPOCH_1904,
    is_date_format,
    shown_date,
)
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.office import Attributes, numbered, parse, related
from agentsight.server.media.readers.texts import TextSink

_MAX_SHARED_CHARS: Final = 32 * 1024 * 1024


def read(archive: zipfile.ZipFile, sink: TextSink) -> None:
    """Put all sheets into the sink, a line a row, tabs between cells.

    Raises:
        SinkFull: When there is enough.
    """
    book = _Book(archive, sink)
    failure: NotReadable | None = None
    is_read = False
    for name, member in book.sheets:
        sink.add(f"{name}\n")
        try:
            sheet = _Sheet(book, sink)
            is_read |= parse(
                archive, member, sink, start=sheet.start, end=sheet.end, text=sheet.characters
            )
        except NotReadable as exc:  # the other sheets may be whole
            failure = failure or exc
        sink.add("\n")
    if failure and not is_read:
        raise failure


class _Book:
    """What the sheets share: their names, strings, formats, and the day that counts as 0."""

    def __init__(self, archive: zipfile.ZipFile, sink: TextSink) -> None:
        self.sheets: list[tuple[str, str]] = []
        self.strings: list[str] = []
        self.date_styles: set[int] = set()
        self.epoch = EPOCH
        self._read_sheets(archive, sink)
        self._read_strings(archive, sink)
        self._read_styles(archive, sink)

    def _read_sheets(self, archive: zipfile.ZipFile, sink: TextSink) -> None:
        main = "xl/workbook.xml"
        relations = related(archive, main, sink)

        def start(tag: str, attributes: Attributes) -> None:
            if tag == "sheet":
                kind, member = relations.get(attributes.get("id", ""), ("", ""))
                if kind == "worksheet":
                    self.sheets.append((attributes.get("name", ""), member))
            elif tag == "workbookPr" and attributes.get("date1904") in ("1", "true"):
                self.epoch = EPOCH_1904

        parse(archive, main, sink, start=start)
        if not self.sheets:
            names = numbered(archive, "xl/worksheets", "sheet")
            self.sheets = [(f"Sheet {n}", member) for n, member in enumerate(names, 1)]

    def _read_strings(self, archive: zipfile.ZipFile, sink: TextSink) -> None:
        pieces: list[str] = []
        is_text = is_phonetic = False
        n_chars = 0

        def start(tag: str, _attributes: Attributes) -> None:
            nonlocal is_text, is_phonetic
            is_text = tag == "t" and not is_phonetic
            is_phonetic = is_phonetic or tag == "rPh"  # how to pronounce it, not what it says
            if tag == "si":
                pieces.clear()

        def end(tag: str) -> None:
            nonlocal is_text, is_phonetic, n_chars
            is_text = False
            is_phonetic = is_phonetic and tag != "rPh"
            if tag == "si":
                value = "".join(pieces)
                n_chars += len(value)
                if n_chars > _MAX_SHARED_CHARS:
                    raise NotReadable("it holds more text than is read")
                self.strings.append(value)

        def characters(text: str) -> None:
            if is_text:
                pieces.append(text)

        member = "xl/sharedStrings.xml"
        parse(archive, member, sink, start=start, end=end, text=characters)

    def _read_styles(self, archive: zipfile.ZipFile, sink: TextSink) -> None:
        date_formats = set(DATE_FORMATS)
        is_cells = False
        n_styles = 0

        def start(tag: str, attributes: Attributes) -> None:
            nonlocal is_cells, n_styles
            number = attributes.get("numFmtId", "0")
            format_id = int(number) if number.isdecimal() else 0
            if tag == "numFmt":
                if is_date_format(attributes.get("formatCode", "")):
                    date_formats.add(format_id)
            elif tag == "cellXfs":
                is_cells = True
            elif tag == "xf" and is_cells:
                if format_id in date_formats:
                    self.date_styles.add(n_styles)
                n_styles += 1

        def end(tag: str) -> None:
            nonlocal is_cells
            is_cells = is_cells and tag != "cellXfs"

        parse(archive, "xl/styles.xml", sink, start=start, end=end)


class _Sheet:
    """Walks one sheet's cells."""

    def __init__(self, book: _Book, sink: TextSink) -> None:
        self._book = book
        self._sink = sink
        self._kind = "n"
        self._style = -1
        self._is_value = False
        self._value: list[str] = []
        self._row: list[str] = []

    def start(self, tag: str, attributes: Attributes) -> None:
        if tag == "c":
            self._kind = attributes.get("t", "n")
            style = attributes.get("s", "")
            self._style = int(style) if style.isdecimal() else -1
            self._value.clear()
        elif tag in ("v", "t"):
            self._is_value = True
        elif tag == "row":
            self._row.clear()
        self._sink.tick()

    def end(self, tag: str) -> None:
        if tag in ("v", "t"):
            self._is_value = False
        elif tag == "c":
            self._row.append(self._shown())
        elif tag == "row" and any(self._row):
            self._sink.add("\t".join(self._row) + "\n")

    def characters(self, text: str) -> None:
        if self._is_value:
            self._value.append(text)

    def _shown(self) -> str:
        value = "".join(self._value)
        if self._kind == "s":
            index = int(value) if value.isdecimal() else -1
            return self._book.strings[index] if 0 <= index < len(self._book.strings) else ""
        if self._kind == "b":
            return {"1": "TRUE", "0": "FALSE"}.get(value, value)
        if self._kind == "n" and self._style in self._book.date_styles:
            return self._date(value)
        return value

    def _date(self, value: str) -> str:
        try:
            serial = float(value)
        except ValueError:
            return value
        return shown_date(serial, self._book.epoch) or value
