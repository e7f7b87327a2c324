"""Bytes into an object store, in parts that wait on the disk and not in memory.

S3 takes a large object in parts of at least 5 MiB (AWS S3 User Guide, "Amazon S3 multipart upload
limits"), and some stores want all but the last of one size (Cloudflare R2). A part is collected in
an unlinked file, which a crash takes along, and sent from there: one part is sent while the next is
collected, so a writer holds a few hundred kilobytes of memory and two parts of disk.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import secrets
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from agentsight.server.blobs.errors import ObjectExists, StorageFull, StorageUnavailable
from agentsight.server.blobs.local_files import NO_ROOM
from agentsight.server.blobs.model import Chunk
from agentsight.server.blobs.s3_bucket import S3Bucket
from agentsight.server.blobs.s3_errors import Taken, Unreached, UploadGone

log = logging.getLogger("agentsight.server")
T = TypeVar("T")

PART_BYTES: Final = 8 * 1024 * 1024
MAX_PARTS: Final = 10_000
"""AWS S3 User Guide, "Amazon S3 multipart upload limits"."""
MAX_OBJECT_BYTES: Final = PART_BYTES * MAX_PARTS
_BATCH_BYTES: Final = 512 * 1024
"""One visit to a thread writes and hashes this much; two batches at most are held by one writer."""
_BATCH_CHUNKS: Final = 512


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all writers of one store share.

    Args:
        slots: How many parts and small objects may be on their way at once.
        spool_dir: Where parts wait; None: the system's directory for temporary files.
    """

    bucket: S3Bucket
    pool: ThreadPoolExecutor
    slots: asyncio.Semaphore
    spool_dir: Path | None


@dataclass(slots=True, eq=False)
class Spool:
    """The bytes of one part: few of them in memory, more of them in a file without a name."""

    n_bytes: int = 0
    chunks: list[Chunk] = field(default_factory=list[Chunk])
    file: IO[bytes] | None = None
    md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))

    @property
    def content_md5(self) -> str:
        return base64.b64encode(self.md5.digest()).decode("ascii")

    def body(self) -> bytes | IO[bytes]:
        """Return what to send, from its start."""
        if self.file is None:
            return b"".join(self.chunks)
        self.file.seek(0)
        return self.file

    def open(self, directory: Path | None) -> IO[bytes]:
        """Return the file, in a thread; made when it is first needed."""
        if self.file is None:
            self.file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives with the part
        return self.file

    def close(self) -> None:
        """Let the bytes go."""
        self.chunks.clear()
        file, self.file = self.file, None
        if file is not None:
            with contextlib.suppress(OSError):  # a flush to a full disk
                file.close()

    def __del__(self) -> None:
        if self.file is not None:
            warnings.warn("unclosed part of an upload", ResourceWarning, stacklevel=2)
            self.close()


class S3Upload:
    """One object on its way in: what both kinds of writers have in common.

    Args:
        token: A random name, stored with the object: by it a repeated request recognises what its
            first try has stored, whose answer was lost.
        upload_id: Of the multipart upload; empty: it is begun with the first full part.
        etags: Of the parts that the store has.
        observe: Called in a thread with every byte taken, in order.
    """

    def __init__(
        self,
        shop: Workshop,
        key: str,
        observe: Callable[[Chunk], None],
        *,
        token: str = "",
        upload_id: str = "",
        etags: list[str] | None = None,
    ) -> None:
        self._shop = shop
        self._key = key
        self._observe = observe
        self.token = token or secrets.token_hex(8)
        self.upload_id = upload_id
        self.etags = etags or []
        self.current = Spool()
        self._batch: list[Chunk] = []
        self._batch_bytes = 0
        self._jobs: list[Future[None]] = []
        self._outgoing: Spool | None = None
        self._sending: asyncio.Task[None] | None = None
        self._publishing: asyncio.Task[None] | None = None

    # --- Collecting -------------------------------------------------------------------------------

    async def write(self, chunk: Chunk) -> None:
        """Take bytes; waits while two parts are full, or two batches are under way."""
        view = memoryview(chunk)
        while view:
            piece = view[: PART_BYTES - self.current.n_bytes]
            view = view[len(piece) :]
            self._batch.append(piece)
            self._batch_bytes += len(piece)
            self.current.n_bytes += len(piece)
            if self.current.n_bytes == PART_BYTES:
                await self._close_part()
            elif self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_CHUNKS:
                await self.settle()
                self._submit(to_file=True)

    def preload(self, tail: bytes) -> None:
        """Begin the current part with bytes that were taken in an earlier visit; in a thread."""
        with _disk_errors():
            self.current.open(self._shop.spool_dir).write(tail)
        self.current.md5.update(tail)
        self.current.n_bytes = len(tail)

    def _submit(self, *, to_file: bool) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        spool, submit = self.current, self._shop.pool.submit
        # Side by side: all let other threads run, and together take the time of the slowest.
        self._jobs = [
            submit(partial(self._keep, spool, batch, to_file=to_file)),
            submit(_each, spool.md5.update, batch),
            submit(_each, self._observe, batch),
        ]

    def _keep(self, spool: Spool, batch: list[Chunk], *, to_file: bool) -> None:
        spool.chunks += batch
        if to_file:
            with _disk_errors():
                file = spool.open(self._shop.spool_dir)
                file.writelines(spool.chunks)
                file.flush()
            spool.chunks = []

    async def settle(self) -> None:
        """Wait for the batch under way. Jobs are not cancelled with us, and may be waited for anew:
        none may be left out, or the part would have a hole.
        """
        while self._jobs:
            await asyncio.shield(asyncio.wrap_future(self._jobs[0]))
            self._jobs.pop(0)

    async def _take_rest(self) -> None:
        """Write and hash what no batch has taken yet; a small object stays in memory."""
        await self.settle()
        if self._batch:
            self._submit(to_file=self.current.file is not None)
            await self.settle()

    # --- Sending ----------------------------------------------------------------------------------

    async def _close_part(self) -> None:
        """Hand the full part over and begin the next one."""
        await self.settle()
        self._submit(to_file=True)
        await self.settle()
        await self.sent()
        if len(self.etags) >= MAX_PARTS:
            raise StorageFull(f"A file in the object store has {MAX_OBJECT_BYTES} bytes at most.")
        self._outgoing, self.current = self.current, Spool()
        self._start_sending()

    def _start_sending(self) -> None:
        assert self._outgoing is not None
        self._sending = asyncio.create_task(self._send(self._outgoing))

    async def _send(self, part: Spool) -> None:
        async with self._shop.slots:
            if not self.upload_id:
                self.upload_id = await self._shop.bucket.begin(self._key, token=self.token)
            body = part.body()
            assert not isinstance(body, bytes)
            etag = await self._shop.bucket.put_part(
                self._key,
                self.upload_id,
                len(self.etags) + 1,
                body,
                n_bytes=part.n_bytes,
                md5=part.content_md5,
            )
        self.etags.append(etag)
        self._outgoing = None
        part.close()

    async def sent(self) -> None:
        """Wait until the part on its way is stored; one that failed before is sent again.

        Raises:
            StorageUnavailable: It was not; it is kept, and sent again the next time.
        """
        if self._outgoing is not None and self._sending is None:
            self._start_sending()
        if self._sending is not None:
            sending = self._sending
            try:
                await asyncio.shield(sending)
            except UploadGone as error:
                raise StorageUnavailable(f"The upload of {self._key} is gone.") from error
            finally:
                if sending.done():
                    self._sending = None

    async def publish(self) -> None:
        """Make the object visible, in one request or by joining its parts.

        Raises:
            ObjectExists: The key is taken by somebody else.
        """
        await self._take_rest()
        await self.sent()
        if self.etags and self.current.n_bytes:
            self._outgoing, self.current = self.current, Spool()
            await self._in_pool(partial(self._keep, self._outgoing, [], to_file=True))
            await self.sent()
        self._publishing = asyncio.create_task(self._publish())
        await asyncio.shield(self._publishing)

    async def _publish(self) -> None:
        bucket, key = self._shop.bucket, self._key
        try:
            if self.etags:
                await bucket.complete(key, self.upload_id, self.etags)
            else:
                async with self._shop.slots:
                    part = self.current
                    await bucket.put(key, part.body(), md5=part.content_md5, token=self.token)
        except (Taken, UploadGone) as error:
            await self._require_ours(error)
        self.current.close()

    async def _require_ours(self, error: Exception) -> None:
        """Find out whose object stands there after a refusal: perhaps our own first try's."""
        found = await self._shop.bucket.head(self._key)
        if found is not None and found.token == self.token:
            return
        if found is not None:
            raise ObjectExists(self._key) from error
        raise StorageUnavailable(f"The upload of {self._key} is gone.") from error

    # --- Leaving ----------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop sending and let the files go. What the store has, it keeps."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        jobs, self._jobs = self._jobs, []
        await asyncio.gather(*map(asyncio.wrap_future, jobs), return_exceptions=True)
        self._batch.clear()
        for part in (self.current, self._outgoing):
            if part is not None:
                part.close()
        self._outgoing = None

    async def discard(self, reason: BaseException | None) -> None:
        """Stop, and remove what the store has, the object too if it became visible meanwhile.

        Args:
            reason: What ended the writing, if anything did.
        """
        publishing = self._publishing
        if publishing is not None:
            await asyncio.gather(publishing, return_exceptions=True)
        await self.stop()
        if isinstance(reason, Unreached):
            return  # what the store has, if anything, is found by a sweep or by fsck
        bucket, key = self._shop.bucket, self._key
        try:
            if publishing is not None:
                found = await bucket.head(key)
                if found is not None and found.token == self.token:
                    await bucket.delete(key)
            if self.upload_id:
                await bucket.abort(key, self.upload_id)
        except StorageUnavailable as error:
            log.warning("an unfinished upload was left to be swept: %s: %s", key, error)

    async def _in_pool(self, work: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.wrap_future(self._shop.pool.submit(work)))

    async def tail(self) -> bytes:
        """Return what is collected of the current part."""
        await self._take_rest()
        return await self._in_pool(self._read_tail)

    def _read_tail(self) -> bytes:
        body = self.current.body()
        if isinstance(body, bytes):
            return body
        with _disk_errors():
            tail = body.read()
            body.seek(0, 2)  # the next batch is appended
        return tail


async def run_whole(work: Awaitable[None]) -> None:
    """Run to the end even if the caller is cancelled again while it waits."""
    await asyncio.shield(asyncio.ensure_future(work))


def _each(take: Callable[[Chunk], Any], batch: list[Chunk]) -> None:
    for chunk in batch:
        take(chunk)


@contextlib.contextmanager
def _disk_errors() -> Generator[None]:
    """Wrap what goes wrong with the files in which parts wait."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("The disk on which uploads wait is full.") from error
        raise StorageUnavailable(
            f"Uploads cannot wait on our disk: {error.strerror or type(error).__name__}."
        ) from error
