"""What services are handed: the open database, the store of bytes, the links, the clock.

Made in `app.py` (or by the command line) and closed there; nobody else makes or closes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from agentsight.server.attachments.links import Links
from agentsight.server.blobs import BlobStore
from agentsight.server.db import Database
from agentsight.server.settings import Settings

Clock = Callable[[], int]
"""Gives the time in µs since 1970 UTC."""


def wall_clock() -> int:
    """Return the time in µs since 1970 UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Parts:
    """The joined parts of one server process."""

    settings: Settings
    db: Database
    blobs: BlobStore
    links: Links
    clock: Clock = wall_clock
