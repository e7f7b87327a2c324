"""What is learned of a file and made of it, and what can go wrong. Values only."""

from __future__ import annotations

from typing import Final

import msgspec

PREVIEW_MIME_TYPE: Final = "image/webp"
MAX_PIXELS: Final = 100_000_000
"""Pictures with more are not decoded: 100 million pixels take 400 MB in memory."""
MAX_SECONDS: Final = 3 * 3600
"""Longer recordings get no derived copy."""
MAX_OUTPUT_BYTES: Final = 256 * 1024 * 1024
"""What the examining process may write into one file (3 hours at 96 kbit/s are 130 MB)."""


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a file told. None where a fact is unknown or means nothing.

    Attributes:
        mime_type: The type by the whole file, where its first bytes may not have told it.
        width: Pixels, after the orientation that the file asks for.
        height: Likewise.
        pages: Pages of a document, slides, sheets of a workbook.
        seconds: How long sound or a video plays.
        text: What can be searched and shown as a text preview; None when there is none.
        is_text_cut: Whether `text` ends before the file's text does.
        has_preview: Whether a preview can be made: `kinds.can_preview` says of what kind.
        has_playback: Whether a derived copy can be made, of the type that `kinds.can_play` says.
        note: For the log: why something is missing. Holds nothing of the file's content.
    """

    mime_type: str | None = None
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    seconds: float | None = None
    text: str | None = None
    is_text_cut: bool = False
    has_preview: bool = False
    has_playback: bool = False
    note: str | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was made: a picture with width and height, or a recording with seconds."""

    mime_type: str
    size_bytes: int
    width: int | None = None
    height: int | None = None
    seconds: float | None = None


class ExaminerDied(Exception):
    """The examining process was ended by its limits, or crashed on this file.

    The examiner is usable again at once; the same file will most likely end it again.
    """

    def __init__(self, mime_type: str, size_bytes: int, reason: str) -> None:
        super().__init__(f"{mime_type} of {size_bytes} bytes: {reason}")
        self.mime_type = mime_type
        self.size_bytes = size_bytes
        self.reason = reason
