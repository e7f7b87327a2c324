"""Bytes into and out of one file of the local store, by threads that outlive a cancelled caller.

A descriptor is closed only by code that knows no thread is using it: closing one under a running
read or write would hand its number to another file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Literal, Self

from agentsight.server.blobs.errors import StorageUnavailable
from agentsight.server.blobs.local_files import LocalFiles, storage_errors
from agentsight.server.blobs.model import HEAD_BYTES, Chunk, StoredObject

BATCH_BYTES: Final = 1024 * 1024
"""One visit to a thread writes and hashes this much; two batches at most are held by one writer."""
_BATCH_CHUNKS: Final = 512
"""Below the 1,024 buffers that `writev` takes at once (IOV_MAX on Linux)."""
READ_BYTES: Final = 256 * 1024
"""Three are held of a stream that nobody reads. Larger ones are no faster (docs/benchmarks.md)."""


def write_all(descriptor: int, chunks: list[Chunk]) -> None:
    """Write chunks where the file stands."""
    left = sum(map(len, chunks))
    written = os.writev(descriptor, chunks)
    if written == left:
        return
    rest = memoryview(b"".join(chunks))[written:]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class BatchedFile:
    """A file that takes chunks and lets threads write and hash them, a batch at a time.

    Two batches at most are held. Who derives from it says how a batch is written (`_append`) and
    hashed (`_hash`); both run in threads, one of each at a time, and in order.
    """

    def __init__(self, pool: ThreadPoolExecutor, key: str, *, batch_bytes: int) -> None:
        self._pool = pool
        self._key = key
        self._batch_bytes_wanted = batch_bytes
        self._batch: list[Chunk] = []
        self._batch_bytes = 0
        self._size_bytes = 0
        self._running: tuple[Future[None], ...] = ()
        self._state: Literal["open", "busy", "finished", "given up"] = "open"

    @property
    def size_bytes(self) -> int:
        """How many bytes were taken so far."""
        return self._size_bytes

    async def write(self, chunk: Chunk) -> None:
        """Take the next bytes; waits only while two batches are under way."""
        self._require_open()
        n_bytes = len(chunk)
        if n_bytes == 0:
            return
        self._batch.append(chunk)
        self._batch_bytes += n_bytes
        self._size_bytes += n_bytes
        if self._batch_bytes >= self._batch_bytes_wanted or len(self._batch) >= _BATCH_CHUNKS:
            batch = self._take_batch()
            await self._settle()
            # Side by side: both let other threads run, and together take the time of the slower.
            self._running = (
                self._pool.submit(self._append, batch),
                self._pool.submit(self._hash, batch),
            )

    def _require_open(self) -> None:
        if self._state != "open":
            raise RuntimeError(f"the writer of {self._key} is {self._state}")

    def _take_batch(self) -> list[Chunk]:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        return batch

    async def _settle(self) -> None:
        """Wait for the batch under way, and raise what it raised.

        A wait that is cut short leaves the writer unusable: its batch may or may not be written.
        """
        running, self._running = self._running, ()
        self._state = "busy"
        for job in running:
            await asyncio.wrap_future(job)
        self._state = "open"

    def _append(self, batch: list[Chunk]) -> None:
        raise NotImplementedError

    def _hash(self, batch: list[Chunk]) -> None:
        raise NotImplementedError


class LocalWriter(BatchedFile):
    """One file on its way in. See `BlobWriter`."""

    def __init__(self, files: LocalFiles, pool: ThreadPoolExecutor, key: str) -> None:
        super().__init__(pool, key, batch_bytes=BATCH_BYTES)
        self._files = files
        # Below: touched in threads only, by one hashing job at a time.
        self._sha256 = hashlib.sha256()
        self._head = b""
        # Below: touched in threads only, under the lock.
        self._lock = threading.Lock()
        self._descriptor = -1
        self._temporary = ""
        self._is_published = False
        self._is_discarded = False

    async def finish(self) -> StoredObject:
        """Write what is left, sync, and give the file its name."""
        self._require_open()
        await self._settle()
        self._state = "busy"
        job = self._pool.submit(self._complete, self._take_batch())
        stored = await asyncio.wrap_future(job)
        self._state = "finished"
        return stored

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._state == "finished":
            return
        self._state = "given up"
        self._batch.clear()
        # Runs even if we are cancelled again while we wait for it.
        await asyncio.shield(asyncio.wrap_future(self._pool.submit(self._discard)))

    def __del__(self) -> None:
        if self._descriptor >= 0:
            warnings.warn(f"unfinished writer of {self._key}", ResourceWarning, stacklevel=2)
            self._discard()

    # --- in threads -------------------------------------------------------------------------------

    def _append(self, batch: list[Chunk]) -> None:
        with self._lock, storage_errors(self._key):
            if not self._is_discarded:
                self._write(batch)

    def _complete(self, batch: list[Chunk]) -> StoredObject:
        with self._lock, storage_errors(self._key):
            if self._is_discarded:
                raise StorageUnavailable(f"The writing of {self._key} was given up.")
            self._hash(batch)
            self._write(batch)
            self._files.publish(self._descriptor, self._temporary, self._key)
            self._is_published = True
            self._close()
        return StoredObject(self._size_bytes, self._sha256.hexdigest(), self._head)

    def _write(self, batch: list[Chunk]) -> None:
        if self._descriptor < 0:
            self._descriptor, self._temporary = self._files.open_temporary()
        if batch:
            write_all(self._descriptor, batch)

    def _hash(self, batch: list[Chunk]) -> None:
        for chunk in batch:
            if len(self._head) < HEAD_BYTES:
                self._head += bytes(chunk[: HEAD_BYTES - len(self._head)])
            self._sha256.update(chunk)

    def _discard(self) -> None:
        with self._lock:
            self._is_discarded = True
            self._close()
            if self._is_published:  # given up while it was being published
                self._files.discard(self._files.path_of(self._key))
            elif self._temporary:
                self._files.discard(self._temporary)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class LocalStream:
    """Bytes of one file on their way out, one chunk read ahead. See `BlobStream`."""

    def __init__(
        self, files: LocalFiles, pool: ThreadPoolExecutor, key: str, start: int, end: int | None
    ) -> None:
        self._files = files
        self._pool = pool
        self._key = key
        self._position = start
        self._wanted_end = end
        self._end = 0
        self._size_bytes = 0
        self._descriptor = -1
        self._next: Future[bytes] | None = None
        self._is_closed = False
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"not a range: [{start}, {end})")

    async def open(self) -> None:
        """Open the file and read the first chunk."""
        self._next = self._pool.submit(self._open_and_read)
        try:
            await asyncio.wrap_future(self._next)
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """The size of the whole object."""
        return self._size_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._next is None or self._is_closed:
            raise StopAsyncIteration
        chunk = self._next.result() if self._next.done() else await asyncio.wrap_future(self._next)
        self._next = self._pool.submit(self._read) if self._descriptor >= 0 else None
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading; the descriptor is closed as soon as no thread reads from it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._next is None:
            self._close_descriptor()
        else:
            self._next.cancel()
            self._next.add_done_callback(lambda _: self._close_descriptor())

    def __del__(self) -> None:
        if self._descriptor >= 0 and not self._is_closed:
            warnings.warn(f"unclosed stream of {self._key}", ResourceWarning, stacklevel=2)
            self.close()

    # --- in threads -------------------------------------------------------------------------------

    def _open_and_read(self) -> bytes:
        self._descriptor, self._size_bytes = self._files.open_object(self._key)
        end = self._wanted_end
        self._end = self._size_bytes if end is None else min(end, self._size_bytes)
        return self._read()

    def _read(self) -> bytes:
        """Read the next chunk; the last one closes the file."""
        wanted = min(READ_BYTES, self._end - self._position)
        chunk = b""
        if wanted > 0:
            with storage_errors(self._key):
                chunk = os.pread(self._descriptor, wanted, self._position)
            if not chunk:
                raise StorageUnavailable(f"{self._key} became shorter while it was read.")
            self._position += len(chunk)
        if self._position >= self._end:
            self._close_descriptor()
        return chunk

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
