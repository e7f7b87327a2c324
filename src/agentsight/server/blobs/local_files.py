"""Files below one directory, for the local store: paths, names, syncs, and what can go wrong.

Everything here blocks; it runs in the store's threads. Keys become paths in `LocalFiles.path_of`
and nowhere else.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from agentsight.server.blobs.errors import (
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
)
from agentsight.server.blobs.model import ListedObject, check_key, is_key

_TMP: Final = "tmp"
_MAX_KNOWN_FOLDERS: Final = 100_000
_FOLDER_MODE: Final = 0o750
_FILE_MODE: Final = 0o640
"""The group may read: a web server that sends files itself (X-Accel-Redirect) is another user."""
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Never a link, and never a wait for the other end of a pipe that someone put in an object's place.
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_RESUME_FLAGS: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CREATE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def storage_errors(key: str) -> Generator[None]:
    """Wrap what the operating system says into the store's own errors."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in NO_ROOM:
            raise StorageFull("The file store is full; nothing was stored.") from error
        raise StorageUnavailable(f"The file store failed at {key}: {reason}.") from error


class LocalFiles:
    """The directory of one local store. `durable=False` leaves out every sync."""

    def __init__(self, root: str, *, durable: bool) -> None:
        self.root = root
        self._durable = durable
        self._known_folders: set[str] = set()

    def path_of(self, key: str) -> str:
        """Build the path of a key: the only place where keys become paths."""
        return f"{self.root}/{check_key(key)}"

    def make_root(self) -> None:
        """Make the directory itself, if it is not there."""
        with storage_errors(self.root):
            os.makedirs(self.root, _FOLDER_MODE, exist_ok=True)
            self._sync_folder(os.path.dirname(self.root))

    def open_temporary(self) -> tuple[int, str]:
        """Open a new file in `tmp/`; return its descriptor and path."""
        path = f"{self.root}/{_TMP}/{secrets.token_hex(16)}"
        try:
            return os.open(path, _CREATE_FLAGS, _FILE_MODE), path
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(f"{self.root}/{_TMP}", _FOLDER_MODE)
            return os.open(path, _CREATE_FLAGS, _FILE_MODE), path

    def open_parts(self, key: str, offset: int, *, is_first: bool) -> tuple[int, str]:
        """Open an object's unfinished file, cut to `offset`; return its descriptor and path.

        The file is locked until its descriptor is closed: one writer at a time, whatever its
        callers believe, and a process that dies lets go of it.

        Args:
            key: The object's key.
            offset: How many bytes are known to be durable. What stands behind them was never
                promised to anybody.
            is_first: Whether a file may be made; what is there is begun anew.

        Raises:
            ObjectBusy: Somebody else is writing it.
            ObjectMissing: There is no such file, it is shorter than what was promised, or it
                has got its name already.
        """
        path = self._parts_path(key)
        with storage_errors(key):
            while True:
                descriptor = self._open_to_resume(path, key, may_create=is_first)
                try:
                    if not self._lock(descriptor, key):
                        continue  # it was removed before we had it
                    found = os.fstat(descriptor)
                    if found.st_nlink > 1:  # a crash between the two steps of `publish`
                        os.unlink(path)
                        if is_first:
                            continue
                        raise ObjectMissing(key)
                    if found.st_size < offset:
                        raise ObjectMissing(key)
                    os.ftruncate(descriptor, offset)
                    os.lseek(descriptor, offset, os.SEEK_SET)
                    if is_first:
                        self._sync_folder(os.path.dirname(path))
                    descriptor, kept = -1, descriptor
                    return kept, path
                finally:
                    if descriptor >= 0:
                        os.close(descriptor)

    def discard_parts(self, key: str) -> None:
        """Remove an object's unfinished file; a missing one is not an error.

        Raises:
            ObjectBusy: Somebody is writing it.
        """
        path = self._parts_path(key)
        with storage_errors(key):
            try:
                descriptor = os.open(path, _RESUME_FLAGS)
            except FileNotFoundError:
                return
            try:
                if self._lock(descriptor, key):
                    os.unlink(path)
            finally:
                os.close(descriptor)

    def sync(self, descriptor: int) -> None:
        """Make a file's bytes durable."""
        if self._durable:
            os.fdatasync(descriptor)

    def _parts_path(self, key: str) -> str:
        """Build the path of an object's unfinished file: the same at every visit."""
        name = hashlib.sha256(check_key(key).encode()).hexdigest()[:32]
        return f"{self.root}/{_TMP}/parts-{name}"

    def _open_to_resume(self, path: str, key: str, *, may_create: bool) -> int:
        if not may_create:
            try:
                return os.open(path, _RESUME_FLAGS)
            except FileNotFoundError as error:
                self._require_root()
                raise ObjectMissing(key) from error
        flags = _RESUME_FLAGS | os.O_CREAT
        try:
            return os.open(path, flags, _FILE_MODE)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(f"{self.root}/{_TMP}", _FOLDER_MODE)
            return os.open(path, flags, _FILE_MODE)

    def _lock(self, descriptor: int, key: str) -> bool:
        """Lock a file that was opened by its name; False when it has lost that name meanwhile."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ObjectBusy(key) from error
        return os.fstat(descriptor).st_nlink > 0

    def publish(self, descriptor: int, temporary: str, key: str) -> None:
        """Sync a finished file and give it its name, durably.

        Raises:
            ObjectExists: The name is taken.
        """
        if self._durable:
            os.fsync(descriptor)
        final = self.path_of(key)
        folder = os.path.dirname(final)
        try:
            self._make_folders(folder)
            try:
                os.link(temporary, final)
            except FileNotFoundError:  # someone removed a folder that we had made
                self._known_folders.clear()
                self._make_folders(folder)
                os.link(temporary, final)
        except FileExistsError as error:
            raise ObjectExists(key) from error
        os.unlink(temporary)
        self._sync_folder(folder)

    def open_object(self, key: str) -> tuple[int, int]:
        """Open an object for reading; return its descriptor and size.

        Raises:
            ObjectMissing: There is none.
        """
        with storage_errors(key):
            try:
                descriptor = os.open(self.path_of(key), _READ_FLAGS)
            except (FileNotFoundError, NotADirectoryError) as error:
                self._require_root()
                raise ObjectMissing(key) from error
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                os.close(descriptor)
                raise StorageUnavailable(f"What is stored as {key} is not a file.")
            return descriptor, found.st_size

    def size_of(self, key: str) -> int | None:
        """Return an object's size; None where there is none."""
        with storage_errors(key):
            try:
                found = os.lstat(self.path_of(key))
            except (FileNotFoundError, NotADirectoryError):
                self._require_root()
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def delete(self, key: str) -> None:
        """Remove an object, durably; a missing one is not an error."""
        path = self.path_of(key)
        with storage_errors(key):
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                self._require_root()
                return
            self._sync_folder(os.path.dirname(path))

    def discard(self, path: str) -> None:
        """Remove a file that nobody will miss; what cannot be removed is left for `sweep`."""
        with suppress(OSError):
            os.unlink(path)

    def probe(self) -> None:
        """Write and remove a few bytes."""
        with storage_errors("a probe"):
            descriptor, path = self.open_temporary()
            try:
                os.write(descriptor, b"agentsight")
            finally:
                os.close(descriptor)
                self.discard(path)

    def sweep(self, older_than_s: int, besides: Collection[str] = ()) -> int:
        """Remove files in `tmp/` that nobody wrote to for so long, besides those of some unfinished
        objects; return how many."""
        n_removed = 0
        with storage_errors(_TMP):
            for path, _ in self._leftovers(older_than_s, besides):
                with suppress(FileNotFoundError):
                    os.unlink(path)
                    n_removed += 1
        return n_removed

    def count_leftovers(self, older_than_s: int, besides: Collection[str] = ()) -> tuple[int, int]:
        """Return how many files `sweep` would remove, and how many bytes they have."""
        with storage_errors(_TMP):
            sizes = [n_bytes for _, n_bytes in self._leftovers(older_than_s, besides)]
        return len(sizes), sum(sizes)

    def _leftovers(self, older_than_s: int, besides: Collection[str]) -> Iterator[tuple[str, int]]:
        """Find files in `tmp/` that nobody wrote to for so long: path and bytes of each."""
        oldest_s = time.time() - older_than_s
        kept = {os.path.basename(self._parts_path(key)) for key in besides}
        entries: list[os.DirEntry[str]] = []
        with suppress(FileNotFoundError):
            entries = list(os.scandir(f"{self.root}/{_TMP}"))
        for entry in entries:
            if entry.name in kept:
                continue
            with suppress(FileNotFoundError):  # its upload has ended meanwhile
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mtime < oldest_s:
                    yield entry.path, found.st_size

    def walk(self, folder: str) -> Iterator[ListedObject]:
        """List the objects below a folder (a key, or empty for all)."""
        with storage_errors(folder or "the root"):
            try:
                entries = list(os.scandir(f"{self.root}/{folder}" if folder else self.root))
            except (FileNotFoundError, NotADirectoryError):
                self._require_root()
                return
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if key == _TMP or not is_key(key):  # `lost+found` and other people's files
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self.walk(key)
            elif entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    yield ListedObject(key, found.st_size, found.st_mtime_ns // 1000)

    def _make_folders(self, folder: str) -> None:
        """Make every folder from the root down to `folder`, and sync each one's entry.

        Entries are synced whoever made them: another process may have made a folder a moment ago
        and not have synced it yet, and our object must not vanish with its folder.
        """
        missing: list[str] = []
        while folder != self.root and folder not in self._known_folders:
            missing.append(folder)
            folder = os.path.dirname(folder)
        if not missing:
            return
        if len(self._known_folders) > _MAX_KNOWN_FOLDERS:
            self._known_folders.clear()
        for path in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(path, _FOLDER_MODE)
            self._sync_folder(os.path.dirname(path))
        self._known_folders.update(missing)

    def _sync_folder(self, folder: str) -> None:
        if not self._durable:
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _require_root(self) -> None:
        """Tell a missing object from a missing disk: only the first is an answer."""
        if not os.path.isdir(self.root):
            raise FileNotFoundError(errno.ENOENT, "the store's directory is not there")
