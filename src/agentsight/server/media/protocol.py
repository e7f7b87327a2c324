"""What the server asks of the examining process, and what that answers: one frame each.

A frame is its length in four bytes and that much JSON.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from agentsight.server.media.model import Examined, Made

LENGTH_BYTES: Final = 4
READY: Final = bytes(LENGTH_BYTES)
"""An empty frame: the process has confined itself and waits for its first job."""
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""More than any text that is asked for; who announces more has lost its mind and is ended."""


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question about one file."""

    task: Literal["examine", "thumbnail", "playback"]
    path: str
    mime_type: str
    timeout_s: float
    filename: str = ""
    max_text_chars: int = 0
    max_edge: int = 0
    out: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one job.

    Attributes:
        examined: For `examine`.
        made: For the others; None: could not be made.
        note: Why something could not be made. Nothing of the file's content.
        missing: A library that is not installed and was needed.
        is_last: The process ends itself after this answer, because it ran out of memory.
    """

    examined: Examined | None = None
    made: Made | None = None
    note: str | None = None
    missing: str | None = None
    is_last: bool = False


def frame(message: Job | Reply) -> bytes:
    """Encode a message with its length before it."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body
