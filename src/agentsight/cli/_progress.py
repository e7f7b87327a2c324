"""A line that shows how far a transfer is, on a terminal; nothing where there is none."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from typing import Self

_REDRAW_S: Final = 0.1
_BAR_CHARS: Final = 20
_MIN_NAME_COLUMNS: Final = 8


class Bar:
    """Draws on standard error, if that is a terminal. Safe for threads; use it in a `with`."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._is_shown = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = clock
        self._lock = threading.Lock()
        self._began_at = clock()
        self._drawn_at = float("-inf")
        self._first_done: int | None = None
        self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._clear()

    def update(self, n_done: int, n_all: int | None, name: str) -> None:
        """Show how many bytes are done, of how many if that is known, and what moves."""
        if not self._is_shown:
            return
        with self._lock:
            now = self._clock()
            if self._first_done is None or n_done < self._first_done:
                self._first_done, self._began_at = n_done, now
            if now - self._drawn_at < _REDRAW_S and n_done != n_all:
                return
            self._drawn_at = now
            rate = (n_done - self._first_done) / max(now - self._began_at, 0.001)
            self._clear()
            self._text = _line(n_done, n_all, rate, name, shutil.get_terminal_size().columns)
            self._stream.write(self._text)
            self._stream.flush()

    def say(self, text: str, stream: TextIO | None = None) -> None:
        """Print a line above the bar, on standard output or where it is said."""
        with self._lock:
            self._clear()
            print(text, file=sys.stdout if stream is None else stream, flush=True)

    def _clear(self) -> None:
        if self._text:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._text = ""


def _line(n_done: int, n_all: int | None, rate: float, name: str, columns: int) -> str:
    if n_all is None:
        parts = [shown_size(n_done), f"{shown_size(int(rate))}/s"]
    else:
        share = min(n_done / n_all, 1.0) if n_all else 1.0
        n_full = int(share * _BAR_CHARS)
        bar = f"[{'#' * n_full}{'.' * (_BAR_CHARS - n_full)}]"
        parts = [bar, f"{share:4.0%}", f"{shown_size(n_done)} of {shown_size(n_all)}"]
        parts.append(f"{shown_size(int(rate))}/s")
    text = "  ".join(parts)
    left = columns - 1 - len(text) - 2
    return (
        f"{text}  {_cut(shown(name), left)}" if left >= _MIN_NAME_COLUMNS else text[: columns - 1]
    )


def shown(text: str) -> str:
    """Return a text that others wrote as it may be printed: what steers a terminal is replaced."""
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cs", "Cf") else c for c in text)


def shown_size(n_bytes: int) -> str:
    """Return a number of bytes for people."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    value = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def _cut(text: str, columns: int) -> str:
    """Cut a text to a width; letters of East Asia are two columns wide."""
    width = 0
    for index, character in enumerate(text):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > columns:
            return text[: max(index - 1, 0)] + "…"
    return text
