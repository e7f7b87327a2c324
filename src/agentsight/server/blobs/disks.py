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


class Disks:
    """Looks at the disks of some directories, at most once a second.

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

    def free_bytes(self) -> int | None:
        """Return the room on the fullest disk; None where there is none to look at."""
        now = self._monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_AGAIN_S
            found = [free for path in self._directories if (free := _free_bytes(path)) is not None]
            self._free_bytes = min(found, default=None)
        return self._free_bytes

    def require_room(self, n_bytes: int = 0) -> None:
        """Refuse a file that may not fit.

        Args:
            n_bytes: How many bytes are known to come.

        Raises:
            StorageFull: Less than the minimum would be left.
        """
        free = self.free_bytes() if self._directories else None
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
