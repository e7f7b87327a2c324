"""Room on our disk for copies that live as long as one look at a file, and go after a crash too.

Every process has a folder of its own and holds a lock on it while it lives. What a killed process
has left is removed by whichever process opens the same place next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Final

from agentsight.server.blobs.errors import StorageFull

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing of others removed
    fcntl = None

NAME: Final = "scratch"


class Scratch:
    """Gives folders. `close` removes what is left; made with `open_parts`, which closes it.

    Args:
        parent: A directory that is there; None takes the system's for temporary files, which often
            is memory.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._place = (
            parent / NAME
            if parent is not None
            else Path(tempfile.gettempdir()) / f"agentsight-{NAME}-{_user_id()}"
        )
        self._own: Path | None = None
        self._lock = -1

    @contextlib.asynccontextmanager
    async def folder(self) -> AsyncGenerator[Path]:
        """Give a folder of its own; it goes with all that is in it.

        Raises:
            StorageFull: There is no room for one.
        """
        # Made here and not in a thread: who is cancelled meanwhile could not remove it.
        try:
            folder = Path(tempfile.mkdtemp(dir=self._own or self._open()))
        except OSError as error:
            raise StorageFull(
                f"no room for a copy to look at: {error.strerror or error}"
            ) from error
        try:
            yield folder
        finally:
            # In a thread, as it may be half a gigabyte; it goes on when its caller is cancelled.
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    def sweep(self) -> int:
        """Remove what processes left that live no more; returns how many folders. Blocks."""
        n_removed = 0
        if fcntl is None or not self._place.is_dir() or self._place.stat().st_uid != _user_id():
            return n_removed
        with contextlib.suppress(OSError), _locked(self._place):
            for left in self._place.iterdir():
                with contextlib.suppress(OSError):
                    n_removed += _remove_if_left(left)
        return n_removed

    def close(self) -> None:
        """Remove this process's folder."""
        own, self._own = self._own, None
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open(self) -> Path:
        self._place.mkdir(mode=0o700, exist_ok=True)
        if self._place.stat().st_uid != _user_id():
            raise PermissionError(f"{self._place} belongs to another user")
        # Under the place's lock: a folder that is not locked yet looks like one that was left.
        with _locked(self._place):
            own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self._place))
            if fcntl is not None:
                self._lock = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._own = own
        return own


@contextlib.contextmanager
def _locked(directory: Path) -> Generator[None]:
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_if_left(folder: Path) -> bool:
    assert fcntl is not None
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False  # its process lives
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(descriptor)


def _user_id() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
