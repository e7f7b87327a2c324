"""Where readers put the text they find: bounded in length and in time, and mended."""

from __future__ import annotations

import re
import time
from typing import Final

_CHECK_EVERY: Final = 256
"""Pieces between two looks at the clock."""
# What PostgreSQL cannot hold (NUL), what shows as boxes (other controls, U+FFFE and U+FFFF, which
# pdfium gives for hyphens at the end of lines), what is not text (halves of surrogate pairs).
_UNWANTED: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_LINE_END: Final = re.compile(r"\r\n?")
# Looking back keeps a long run of spaces from being walked again from each of them.
_TRAILING: Final = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)
_GAPS: Final = re.compile(r"\n{3,}")


class SinkFull(Exception):
    """Nothing more is wanted: the reader stops where it is. Caught by who began."""


class TextSink:
    """Collects pieces of text up to a length and a moment.

    Args:
        max_chars: What is beyond is left out.
        end_at: On the monotonic clock; a reader that is not done by then is stopped.
    """

    def __init__(self, max_chars: int, end_at: float) -> None:
        self.max_chars = max_chars
        self.end_at = end_at
        self.is_cut = False
        self._pieces: list[str] = []
        self._n_chars = 0
        self._n_calls = 0

    def add(self, piece: str) -> None:
        """Take a piece.

        Raises:
            SinkFull: When there is no room or no time for more.
        """
        self._pieces.append(piece)
        self._n_chars += len(piece)
        if self._n_chars > self.max_chars:
            self.is_cut = True
            raise SinkFull
        self.tick()

    def tick(self) -> None:
        """Look at the clock now and then: called by readers that find nothing for long.

        Raises:
            SinkFull: When the time is over.
        """
        self._n_calls += 1
        if self._n_calls % _CHECK_EVERY == 0:
            self.check_time()

    def check_time(self) -> None:
        """Look at the clock: called after a step that may have taken long.

        Raises:
            SinkFull: When the time is over.
        """
        if time.monotonic() > self.end_at:
            self.is_cut = True
            raise SinkFull

    def text(self) -> str | None:
        """Return what was collected, mended; None when it is nothing but space."""
        text = _LINE_END.sub("\n", "".join(self._pieces)[: self.max_chars])
        if _SURROGATE.search(text):  # formats that write in UTF-16 give the halves one by one
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = _UNWANTED.sub("", text)
        text = _GAPS.sub("\n\n", _TRAILING.sub("", text)).strip()
        return text or None
