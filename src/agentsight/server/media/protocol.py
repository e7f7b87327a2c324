"""What the server asks of the examining process, and what that answers.

A question is a frame: its length in four bytes and that much JSON. An answer comes in pieces, each
with its length before it, and an empty one after the last; then a frame says how its worker ended.
"""

from __future__ import annotations

import signal
from typing import Final, Literal

import msgspec

from agentsight.server.media.model import Examined, Made

LENGTH_BYTES: Final = 4
READY: Final = bytes(LENGTH_BYTES)
"""An empty frame: the process has confined itself and waits for its first job."""
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
"""More than any text that is asked for; who announces more has lost its mind and is ended."""


Task = Literal["examine", "thumbnail", "playback"]


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question about one file."""

    task: Task
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
    """

    examined: Examined | None = None
    made: Made | None = None
    note: str | None = None
    missing: str | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What of a job must be known before it is begun; names are not even decoded."""

    task: Task
    mime_type: str


class Ended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a worker ended, told by who started it.

    Attributes:
        died: Why, when it was not done: there is no answer then, or a part of one.
        peak_bytes: The most memory it had; 0: there was no worker.
    """

    died: str | None = None
    peak_bytes: int = 0


def frame(message: Job | Ended) -> bytes:
    """Encode a message with its length before it."""
    body = msgspec.json.encode(message)
    return of_length(body) + body


def of_length(body: bytes) -> bytes:
    """Return what stands before a body in a pipe."""
    return len(body).to_bytes(LENGTH_BYTES, "big")


def describe_exit(code: int) -> str:
    """Say how a process ended, by its exit code; negative: minus the signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:  # one of the real-time signals
        return f"ended by signal {-code}"
