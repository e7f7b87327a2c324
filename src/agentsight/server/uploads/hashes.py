"""Running hashes of uploads between two visits, so that most bytes are hashed once, as they come.

A hash lives in the process that took the bytes. Where the next visit comes to another process, or
after a crash, there is none, and the finished bytes are read back once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any, Final

from agentsight.server.blobs import HEAD_BYTES, Chunk

_MAX_KEPT: Final = 1024
"""Uploads between two visits; a hash and its copies take a kilobyte, the head up to eight more."""
_COPY_BYTES: Final = 8 * 1024 * 1024
"""A store may keep whole parts of this size only: a copy stands at each of their ends."""
_N_COPIES: Final = 4


class RunningHash:
    """SHA-256 of what came so far, from the first byte on, and the first bytes themselves.

    `update` runs in the store's threads, one at a time; the rest while no thread does.
    """

    def __init__(self) -> None:
        self.n_bytes: int = 0
        self.head = b""
        self._sha256 = hashlib.sha256()
        self._copies: dict[int, Any] = {}

    def update(self, data: Chunk, /) -> None:
        """Take the next bytes."""
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(data[: HEAD_BYTES - len(self.head)])
        view = memoryview(data)
        while len(view) >= (room := _COPY_BYTES - self.n_bytes % _COPY_BYTES):
            self._sha256.update(view[:room])
            self.n_bytes += room
            view = view[room:]
            self._copies[self.n_bytes] = self._sha256.copy()
            if len(self._copies) > _N_COPIES:
                del self._copies[min(self._copies)]
        self._sha256.update(view)
        self.n_bytes += len(view)

    def hexdigest(self) -> str:
        """Return the hash of what was taken."""
        return self._sha256.hexdigest()

    def back_to(self, offset: int) -> bool:
        """Forget what came after `offset`; False when that place is not known any more."""
        if offset != self.n_bytes:
            copy = self._copies.get(offset)
            if copy is None or offset < len(self.head):
                return False
            self._sha256 = copy.copy()
            self.n_bytes = offset
        return True


class HashKeeper:
    """The running hashes of one process's unfinished uploads, the last used ones."""

    def __init__(self, max_kept: int = _MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._by_uid: OrderedDict[str, RunningHash] = OrderedDict()

    def take(self, uid: str, offset: int) -> RunningHash | None:
        """Hand out the hash of an upload that stands at `offset`: new at 0, else the one kept."""
        kept = self._by_uid.pop(uid, None)
        if offset == 0:
            return RunningHash()
        return kept if kept is not None and kept.n_bytes == offset else None

    def keep(self, uid: str, running: RunningHash) -> None:
        """Keep a hash for the next visit."""
        self._by_uid[uid] = running
        while len(self._by_uid) > self._max_kept:
            self._by_uid.popitem(last=False)

    def drop(self, uid: str) -> None:
        """Forget an upload that has ended."""
        self._by_uid.pop(uid, None)
