"""A tracker's items on disk, so that they survive a crash of the process.

One file a tracker, `<name>.jsonl`, appended to and locked while its process lives; the files of its
items are copied beside it as `<name>.<key>.bin`. Each line is handed to the operating system before
the track call returns and is not synced: what was tracked survives the end of the process, however
sudden, but the last seconds may be lost with the machine. The next tracker with the same directory,
key and endpoint takes over what no living process holds.

A directory that is full or gone never stops tracking: it is logged and items stay in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

from agentsight._contract import MIB
from agentsight._files import File, PathSource
from agentsight._spool import MAX_BYTES, MAX_ITEMS, Item
from agentsight.logging import say

_REWRITE_FROM_BYTES: Final = 16 * MIB
"""Below this size the lines of delivered items may stay in the file."""


class Room(NamedTuple):
    """What may still be taken over."""

    n_items: int
    n_bytes: int

    def n_fitting(self, items: Sequence[Item]) -> int:
        """Return how many of these items, from the first, find room."""
        left = self.n_bytes
        for n, item in enumerate(items):
            if n >= self.n_items or left <= 0:
                return n
            left -= item.held_bytes()
        return len(items)


class Journal:
    """The journal of one tracker. `close()` it; what was not delivered stays on disk."""

    def __init__(self, directory: str, name: str, descriptor: int, owner: dict[str, str]) -> None:
        self._directory = directory
        self._name = name
        self._descriptor = descriptor
        self._owner = owner
        self._line_by_key: dict[str, tuple[int, int]] = {}
        self._size = 0
        self._is_torn = False
        self._append(owner)

    @classmethod
    def open(cls, directory: str, api_key: str, endpoint: str) -> Journal | None:
        """Begin a journal; `None`, logged, where the directory cannot be used."""
        owner = {
            "key_sha256": hashlib.sha256(api_key.lower().encode()).hexdigest(),
            "endpoint": endpoint.rstrip("/"),
        }
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            name = f"{os.getpid()}-{uuid.uuid4().hex}"
            path = os.path.join(directory, name + ".jsonl")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            _lock(descriptor, wait=True)  # one that recovers may be looking into it just now
            return cls(directory, name, descriptor, owner)
        except (OSError, ImportError) as error:
            say("ERROR", "the spool directory cannot be used", directory=directory, reason=error)
            return None

    def put(self, item: Item) -> Item:
        """Write an item and its files; return it, reading from the copies."""
        try:
            files = tuple(self._copy(file) for file in item.files)
            stored = item._replace(files=files)
            line = {
                "kind": item.kind,
                "conversation_id": item.conversation_id,
                "item_key": item.item_key,
                "timestamp": item.timestamp,
                "body": item.body.decode(),
                "mode": item.mode,
                "files": [[file.item_key, file.filename, file.mime_type] for file in files],
            }
            self._append_item(line)
        except (OSError, ValueError) as error:
            say("ERROR", "an item is kept in memory only", reason=error)
            for file in item.files:
                with contextlib.suppress(OSError):
                    os.unlink(self._path_of_copy(file.item_key))
            return item
        for file in item.files:
            file.source.close()
        return stored

    def forget(self, item_keys: Sequence[str]) -> None:
        """Note that items are done."""
        known = [key for key in item_keys if self._line_by_key.pop(key, None) is not None]
        if not known:
            return
        with _logging_errors(
            "the journal cannot be written; items may be sent again, which is harmless"
        ):
            self._append({"done": known})
            if not self._line_by_key:
                os.ftruncate(self._descriptor, 0)
                self._size = 0
                self._is_torn = False
                self._append(self._owner)
            elif self._size > _REWRITE_FROM_BYTES and self._live_bytes() < self._size // 4:
                self._rewrite()

    def adopt(self, item_key: str, conversation_id: str) -> None:
        """Note which conversation an item belongs to after all."""
        if item_key in self._line_by_key:
            with _logging_errors("the journal cannot be written"):
                self._append({"adopt": [item_key, conversation_id]})

    def has(self, item_key: str) -> bool:
        """Say whether an item is on disk and not done."""
        return item_key in self._line_by_key

    def recover(self, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> list[Item]:
        """Take over the items that dead processes left with the same key and endpoint.

        Args:
            max_items: how many at most; what is beyond stays where it is, and is logged.
            max_bytes: of memory; soft by one item.
        """
        items: list[Item] = []
        n_left = 0
        with _logging_errors("the spool directory cannot be read"):
            names = [name for name in os.listdir(self._directory) if name.endswith(".jsonl")]
            paths = [os.path.join(self._directory, name) for name in names]
            for path in sorted(paths, key=lambda path: (_modified_at(path), path)):
                if path != self._path(".jsonl"):
                    room = Room(max_items - len(items), max_bytes - _n_bytes(items))
                    found, n_beyond = self._recover_from(path, room)
                    items += found
                    n_left += n_beyond
        if items:
            say("WARNING", "items of an earlier process are sent now", items=len(items))
        if n_left:
            say("WARNING", "items of an earlier process stay on disk for later", items=n_left)
        return items

    def _recover_from(self, path: str, room: Room) -> tuple[list[Item], int]:
        try:
            return self._take_over(path, room)
        except FileNotFoundError:
            return [], 0  # another process was faster
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            say("ERROR", "a journal cannot be taken over and stays", file=path, reason=repr(error))
            return [], 0

    def close(self) -> None:
        """Let go of the journal; remove it where nothing is left in it."""
        if self._descriptor < 0:
            return
        if not self._line_by_key:
            with contextlib.suppress(OSError):
                os.unlink(self._path(".jsonl"))
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptor only: after a fork the lock and the file are the parent's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.abandon()

    def _path(self, ending: str) -> str:
        return os.path.join(self._directory, self._name + ending)

    def _append(self, value: object) -> int:
        """Write a line and return its length."""
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        if self._is_torn:  # what is torn is skipped when read, and must not take this line with it
            line = b"\n" + line
        n_written = os.write(self._descriptor, line)
        self._size += n_written
        self._is_torn = n_written < len(line)
        if self._is_torn:  # the disk is full
            raise OSError(f"only {n_written} of {len(line)} bytes were written")
        return n_written

    def _append_item(self, line: dict[str, Any]) -> None:
        start = self._size
        self._line_by_key[line["item_key"]] = (start, self._append({"put": line}))

    def _path_of_copy(self, key: str) -> str:
        return self._path(f".{key}.bin")

    def _copy(self, file: File) -> File:
        path = self._path_of_copy(file.item_key)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
            copy.writelines(file.source.chunks())
        return file._replace(source=PathSource(path, is_ours=True))

    def _live_bytes(self) -> int:
        return sum(n_bytes for _, n_bytes in self._line_by_key.values())

    def _rewrite(self) -> None:
        """Keep only what is not done. The old file stays until the new one is complete."""
        lines = [
            (key, os.pread(self._descriptor, n_bytes, start))
            for key, (start, n_bytes) in self._line_by_key.items()
        ]
        adopted = [line for line in self._lines(self._descriptor) if "adopt" in line]
        fresh = self._path(".new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        _lock(descriptor)
        old, self._descriptor = self._descriptor, descriptor
        self._size = 0
        self._is_torn = False
        self._append(self._owner)
        for key, line in lines:
            os.write(descriptor, line)
            self._line_by_key[key] = (self._size, len(line))
            self._size += len(line)
        for line in adopted:
            if line["adopt"][0] in self._line_by_key:
                self._append(line)
        os.replace(fresh, self._path(".jsonl"))
        os.close(old)

    def _take_over(self, path: str, room: Room) -> tuple[list[Item], int]:
        """Return the items of a dead process's journal that there is room for, and how many more.

        First their lines are written here, all or none; then the other journal ends or notes what
        it gave away; their files are moved last. Wherever that is cut off, each item is in one of
        the two, and its files are found by their keys.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            if not _lock(descriptor) or not _is_still(path, descriptor):
                return [], 0  # its process lives, or another one has just taken it over
            lines = list(self._lines(descriptor))
            if lines[:1] != [self._owner]:
                if len(lines) > 1:
                    say("WARNING", "a journal belongs to another key or endpoint", file=path)
                return [], 0
            live = [line for line in _live(lines) if not self.has(line["item_key"])]
            items = [_item(line) for line in live]
            taken = items[: room.n_fitting(items)]
            n_left = len(items) - len(taken)
            before = self._size, self._is_torn
            try:
                for line in live[: len(taken)]:
                    self._append_item(line)
                if n_left:
                    _note_moved(descriptor, taken)
            except BaseException:
                self._take_back(taken, *before)
                raise
            if not n_left:
                os.unlink(path)
            taken = self._with_files(taken)
            if not n_left:
                in_use = {file.item_key for item in taken for file in item.files}
                self._remove_leftovers(os.path.basename(path), in_use | _files_moved(lines))
            return taken, n_left
        finally:
            os.close(descriptor)

    def _take_back(self, items: Sequence[Item], size: int, is_torn: bool) -> None:
        """Forget the lines that were appended last, of which some are perhaps not written."""
        for item in items:
            self._line_by_key.pop(item.item_key, None)
        os.ftruncate(self._descriptor, size)
        self._size, self._is_torn = size, is_torn

    def _with_files(self, items: Sequence[Item]) -> list[Item]:
        """Give the items' files names of ours, wherever a take-over that was cut off left them."""
        name_by_key = {
            name.split(".")[-2]: name
            for name in os.listdir(self._directory)
            if name.endswith(".bin")
        }
        return [
            item._replace(
                files=tuple(
                    self._moved(file, name_by_key.get(file.item_key)) for file in item.files
                )
            )
            for item in items
        ]

    def _moved(self, file: File, name: str | None) -> File:
        path = self._path_of_copy(file.item_key)
        if name is not None:  # else its sending says so
            old_path = os.path.join(self._directory, name)
            try:
                os.replace(old_path, path)
            except OSError:
                path = old_path
        return file._replace(source=PathSource(path, is_ours=True))

    def _remove_leftovers(self, journal: str, keys_in_use: set[str]) -> None:
        """Remove the copies of items that were done before their process died."""
        start = journal.removesuffix("jsonl")
        for leftover in os.listdir(self._directory):
            if leftover.startswith(start) and leftover.split(".")[-2] not in keys_in_use:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self._directory, leftover))

    @staticmethod
    def _lines(descriptor: int) -> Iterator[dict[str, Any]]:
        with open(os.dup(descriptor), "rb") as file:
            file.seek(0)
            for line in file:
                with contextlib.suppress(ValueError, RecursionError):  # torn by the crash
                    value: object = json.loads(line)
                    if isinstance(value, dict):
                        yield cast("dict[str, Any]", value)


def _live(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    line_by_key: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "put" in line:
            line_by_key[line["put"]["item_key"]] = line["put"]
        for key in (*line.get("done", ()), *line.get("moved", ())):
            line_by_key.pop(key, None)
        key, conversation_id = line.get("adopt", (None, None))
        if key in line_by_key:
            line_by_key[key]["conversation_id"] = conversation_id
    return list(line_by_key.values())


def _item(line: dict[str, Any]) -> Item:
    """Return the item of a line; its files are not there yet."""
    nowhere = PathSource("")
    return Item(
        line["kind"],
        line["conversation_id"],
        line["item_key"],
        line["timestamp"],
        line["body"].encode(),
        tuple(
            File(key, filename, mime_type, nowhere) for key, filename, mime_type in line["files"]
        ),
        line["mode"],
    )


def _note_moved(descriptor: int, items: Sequence[Item]) -> None:
    """Note in a dead process's journal which items it gave away."""
    line = b"\n%b\n" % json.dumps({"moved": [item.item_key for item in items]}).encode()
    if os.write(descriptor, line) < len(line):
        raise OSError("the disk is full")


def _files_moved(lines: Sequence[dict[str, Any]]) -> set[str]:
    """Return the keys of files whose items a journal has given away; another one names them."""
    moved = {key for line in lines for key in line.get("moved", ())}
    puts = [line["put"] for line in lines if "put" in line]
    return {file[0] for put in puts if put["item_key"] in moved for file in put["files"]}


def _n_bytes(items: Sequence[Item]) -> int:
    return sum(item.held_bytes() for item in items)


def _modified_at(path: str) -> float:
    try:
        return os.path.getmtime(path)
    except FileNotFoundError:
        return 0.0


def _is_still(path: str, descriptor: int) -> bool:
    """Say whether a path names the open file, which may have been taken over meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock a file for as long as it is open; False where another holds it."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _logging_errors(event: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        say("ERROR", event, reason=error)
