"""What services are handed: the open database, the store of bytes, the links, the clock.

Made in `app.py` (or by the command line) and closed there; nobody else makes or closes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agentsight.server.attachments.links import Links
from agentsight.server.audits.trail import Trail
from agentsight.server.blobs import BlobStore, Disks, Scratch
from agentsight.server.db import Database
from agentsight.server.instance.ledger import NO_LEDGER_KEY, LedgerKey
from agentsight.server.media import Examiner
from agentsight.server.settings import Settings
from agentsight.server.shares import Shares

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
    audit: Trail = field(default_factory=Trail)
    disks: Disks = field(default_factory=Disks)
    scratch: Scratch = field(default_factory=Scratch)
    examining: Shares = field(default_factory=Shares)
    scanning: Shares = field(default_factory=Shares)
    copying: Shares = field(default_factory=Shares)
    ledger: LedgerKey = NO_LEDGER_KEY
    examiner: Examiner | None = None
    """Learns what files hold and makes previews; None where `examine` is off."""
