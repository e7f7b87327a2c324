"""RTF, the text of it: a walk over groups and control words (RTF Specification 1.9.1)."""

from __future__ import annotations

import re
from typing import Final

from agentsight.server.media.readers.texts import TextSink

_TOKEN: Final = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])"
    rb"|([{}])|([^\\{}\r\n]+)"
)
_MAX_DEPTH: Final = 500
# Groups that hold no text of the document.
_DESTINATIONS: Final = frozenset(
    {
        b"fonttbl",
        b"colortbl",
        b"stylesheet",
        b"info",
        b"pict",
        b"object",
        b"objdata",
        b"listtable",
        b"listoverridetable",
        b"rsidtbl",
        b"generator",
        b"themedata",
        b"colorschememapping",
        b"datastore",
        b"latentstyles",
        b"xmlnstbl",
        b"fldinst",
        b"filetbl",
    }
)
_WRITTEN: Final = {
    b"par": "\n",
    b"line": "\n",
    b"sect": "\n",
    b"page": "\n",
    b"row": "\n",
    b"cell": "\t",
    b"tab": "\t",
    b"emdash": "—",
    b"endash": "–",
    b"bullet": "•",
    b"lquote": "‘",
    b"rquote": "’",
    b"ldblquote": "“",
    b"rdblquote": "”",
}
_SYMBOLS: Final = {b"~": "\u00a0", b"_": "-", b"\n": "\n", b"\r": "\n"}


def read(data: bytes, sink: TextSink) -> None:
    """Put the text into the sink.

    Raises:
        SinkFull: When there is enough.
    """
    _Walk(sink).run(data)


class _Walk:
    def __init__(self, sink: TextSink) -> None:
        self._sink = sink
        self._codec = "cp1252"
        self._groups: list[tuple[bool, int]] = []
        self._is_hidden = False
        self._fallback_chars = 1
        """How many characters follow a `\\u` for those who cannot read it."""
        self._to_skip = 0
        self._bytes = bytearray()

    def run(self, data: bytes) -> None:
        for token in _TOKEN.finditer(data):
            self._sink.tick()
            word, number, code, symbol, brace, plain = token.groups()
            if code:
                self._add_bytes(bytes.fromhex(code.decode("ascii")))
            elif plain:
                self._add_bytes(plain)
            elif symbol is not None and symbol in b"\\{}":
                self._add_bytes(symbol)
            else:
                self._flush()
                if brace:
                    self._enter_or_leave(brace)
                elif word:
                    self._obey(word, int(number) if number else None)
                elif symbol == b"*":  # what only some programs know
                    self._is_hidden = True
                elif symbol is not None:
                    self._write(_SYMBOLS.get(symbol, ""))
        self._flush()

    def _add_bytes(self, some: bytes) -> None:
        if self._to_skip:
            n_skipped = min(self._to_skip, len(some))
            self._to_skip -= n_skipped
            some = some[n_skipped:]
        if not self._is_hidden:
            self._bytes += some

    def _flush(self) -> None:
        if self._bytes:
            self._sink.add(self._bytes.decode(self._codec, "replace"))
            self._bytes.clear()

    def _write(self, text: str) -> None:
        if text and not self._is_hidden:
            self._sink.add(text)

    def _enter_or_leave(self, brace: bytes) -> None:
        self._to_skip = 0
        if brace == b"{":
            if len(self._groups) < _MAX_DEPTH:
                self._groups.append((self._is_hidden, self._fallback_chars))
        elif self._groups:
            self._is_hidden, self._fallback_chars = self._groups.pop()

    def _obey(self, word: bytes, number: int | None) -> None:
        if word in _DESTINATIONS:
            self._is_hidden = True
        elif word == b"u" and number is not None:
            self._write(chr(number % 0x10000))
            self._to_skip = self._fallback_chars
        elif word == b"uc" and number is not None:
            self._fallback_chars = min(max(number, 0), 16)
        elif word == b"ansicpg" and number is not None:
            self._use_code_page(number)
        elif word == b"bin":
            self._is_hidden = True  # raw bytes follow; no text of ours stands behind them
        else:
            self._write(_WRITTEN.get(word, ""))

    def _use_code_page(self, number: int) -> None:
        try:
            b"".decode(f"cp{number}")
        except LookupError:
            return
        self._codec = f"cp{number}"
