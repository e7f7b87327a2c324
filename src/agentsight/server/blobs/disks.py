"""How much room is left on the disks that must never be quite full.

A database that cannot commit loses messages; so files, which are large, are refused while there is
still room for texts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from agentsight.server.blobs.errors import StorageFull

_LOOK_AGAIN_S: Final = 1.0
_LOOK_AGAIN_BYTES: Final = 8 * 1024 * 1024
"""A fast disk takes in a second more than the room that is kept."""


class Disks:
    """Looks at the disks of some directories: every second, and every 8 MB that come meanwhile.

    Args:
        directories: Where a SQLite database and a local store lie. None means that nothing is ever
            refused.
        min_free_bytes: Room that must be left to others than the superuser.
        setting: What the limit is called, for whoever is refused.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        directories: Sequence[Path] = (),
        *,
        min_free_bytes: int = 0,
        setting: str = "min_free_disk_bytes",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directories = directories
        self._min_free_bytes = min_free_bytes
        self._setting = setting
        self._monotonic = monotonic
        self._next_look = float("-inf")
        self._free_bytes: int | None = None
        self._unseen_bytes = 0
        """What has come since the last look."""

    def free_bytes(self) -> int | None:
        """Return the room on the fullest disk; None where there is none to look at."""
        now = self._monotonic()
        if now >= self._next_look or self._unseen_bytes >= _LOOK_AGAIN_BYTES:
            self._next_look = now + _LOOK_AGAIN_S
            self._unseen_bytes = 0
            found = [free for path in self._directories if (free := _free_bytes(path)) is not None]
            self._free_bytes = min(found, default=None)
        return self._free_bytes

    def require_room(self, n_bytes: int = 0, *, n_written: int = 0) -> None:
        """Refuse a file that may not fit.

        Args:
            n_bytes: How many bytes are known to come.
            n_written: How many have come since this was asked last, and are being written.

        Raises:
            StorageFull: Less than the minimum would be left.
        """
        if not self._directories:
            return
        self._unseen_bytes += n_written
        free = self.free_bytes()
        if free is not None:
            free -= self._unseen_bytes
        if free is not None and free - n_bytes < self._min_free_bytes:
            raise StorageFull(
                f"The disk is nearly full: {free} bytes are free, and {self._setting} keeps"
                f" {self._min_free_bytes} of them from files; nothing was stored."
            )


def _free_bytes(directory: Path) -> int | None:
    """Return what others than the superuser may still write; a missing disk is no full one."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
