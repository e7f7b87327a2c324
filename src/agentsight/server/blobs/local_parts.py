"""One file of the local store that comes over several visits, each going on where the last ended.

Every few megabytes are synced, and only synced bytes count: a crash loses what came after them, the
next visit cuts it off, and it is sent again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from agentsight.server.blobs.errors import ObjectExists, StorageFull, StorageUnavailable
from agentsight.server.blobs.local_files import LocalFiles, storage_errors
from agentsight.server.blobs.local_streams import BatchedFile, write_all
from agentsight.server.blobs.model import Chunk, Hasher

_BATCH_BYTES: Final = 512 * 1024
"""Uploads are many at a time: with two batches each, 64 of them hold 64 MiB."""
_SYNC_BYTES: Final = 8 * 1024 * 1024
"""What a crash costs at most, and what one sync waits for."""


class LocalPartsWriter(BatchedFile):
    """One visit to an unfinished file. See `PartsWriter`; made by `LocalBlobStore.resume_parts`."""

    def __init__(
        self, files: LocalFiles, pool: ThreadPoolExecutor, key: str, hasher: Hasher | None
    ) -> None:
        super().__init__(pool, key, batch_bytes=_BATCH_BYTES)
        self._files = files
        self._hasher = hasher
        # Below: touched in threads only, under the lock (`_offset` is read outside).
        self._lock = threading.Lock()
        self._descriptor = -1
        self._path = ""
        self._written = 0
        self._offset = 0
        self._is_closed = False

    async def open(self, state: str) -> None:
        """Open the file at the offset that `state` says; called once, before anything else."""
        job = self._pool.submit(self._open, int(state or 0), is_first=not state)
        try:
            await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            self._pool.submit(self._close)
            raise
        self._size_bytes = self._offset

    @property
    def offset(self) -> int:
        """How many bytes are durable."""
        return self._offset

    @property
    def state(self) -> str:
        """The offset, as text."""
        return str(self._offset)

    async def sync(self) -> None:
        """Write and sync what was taken: a file can, however little it is."""
        await self.pause()

    async def pause(self) -> None:
        """Write and sync what was taken."""
        self._require_open()
        batch = self._take_batch()
        await self._settle()
        self._state = "busy"
        await asyncio.wrap_future(self._pool.submit(self._store, batch))
        self._state = "open"

    async def finish(self) -> None:
        """Write what is left, sync, and give the file its name."""
        await self.pause()
        self._state = "busy"
        try:
            await asyncio.wrap_future(self._pool.submit(self._publish))
        except (ObjectExists, StorageFull, StorageUnavailable):
            self._state = "open"
            raise
        self._state = "finished"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._state == "open":
                await self.pause()
        finally:
            self._state = "finished" if self._state == "finished" else "given up"
            self._batch.clear()
            # Runs even if we are cancelled again while we wait for it.
            await asyncio.shield(asyncio.wrap_future(self._pool.submit(self._close)))

    def __del__(self) -> None:
        if self._descriptor >= 0:
            warnings.warn(f"unclosed writer of {self._key}", ResourceWarning, stacklevel=2)
            self._close()

    # --- in threads -------------------------------------------------------------------------------

    def _open(self, offset: int, *, is_first: bool) -> None:
        with self._lock:
            if self._is_closed:
                raise StorageUnavailable(f"The writing of {self._key} was given up.")
            self._descriptor, self._path = self._files.open_parts(
                self._key, offset, is_first=is_first
            )
            self._written = self._offset = offset

    def _append(self, batch: list[Chunk]) -> None:
        with self._lock, storage_errors(self._key):
            self._write(batch)
            if self._written - self._offset >= _SYNC_BYTES:
                self._sync()

    def _store(self, batch: list[Chunk]) -> None:
        with self._lock, storage_errors(self._key):
            self._write(batch)
            self._sync()
        self._hash(batch)

    def _publish(self) -> None:
        with self._lock, storage_errors(self._key):
            self._require_descriptor()
            self._files.publish(self._descriptor, self._path, self._key)
        self._close()

    def _write(self, batch: list[Chunk]) -> None:
        self._require_descriptor()
        if batch:
            write_all(self._descriptor, batch)
            self._written += sum(map(len, batch))

    def _sync(self) -> None:
        if self._written > self._offset:
            self._files.sync(self._descriptor)
            self._offset = self._written

    def _hash(self, batch: list[Chunk]) -> None:
        if self._hasher is not None:
            for chunk in batch:
                self._hasher.update(chunk)

    def _require_descriptor(self) -> None:
        if self._descriptor < 0:
            raise StorageUnavailable(f"The writing of {self._key} was given up.")

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._descriptor >= 0:
                descriptor, self._descriptor = self._descriptor, -1
                os.close(descriptor)
