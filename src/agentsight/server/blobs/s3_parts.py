"""Bytes into an object store, in parts that wait on the disk and not in memory.

One part is sent while the next is collected (see `s3_spool`), so a writer holds a few hundred
kilobytes of memory and two parts of disk.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from agentsight.server.blobs.errors import ObjectExists, StorageFull, StorageUnavailable
from agentsight.server.blobs.model import Chunk
from agentsight.server.blobs.s3_errors import Taken, Unreached, UploadGone
from agentsight.server.blobs.s3_spool import Spool, Workshop, disk_errors
from agentsight.server.blobs.s3_tails import bytes_of, count_kept, join, new_name, tail_key

log = logging.getLogger("agentsight.server")

PART_BYTES: Final = 8 * 1024 * 1024
MAX_PARTS: Final = 10_000
"""AWS S3 User Guide, "Amazon S3 multipart upload limits"."""
MAX_OBJECT_BYTES: Final = PART_BYTES * MAX_PARTS
_BATCH_BYTES: Final = 512 * 1024
"""One visit to a thread writes and hashes this much; two batches at most are held by one writer."""
_BATCH_CHUNKS: Final = 512


class S3Upload:
    """One object on its way in: what both kinds of writers have in common.

    Args:
        token: A random name, stored with the object: by it a repeated request recognises what its
            first try has stored, whose answer was lost.
        upload_id: Of the multipart upload; empty: it is begun with the first full part.
        etags: Of the parts that the store has.
        tails: What the store has of the part after them (see `s3_tails`).
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
        tails: list[str] | None = None,
    ) -> None:
        self._shop = shop
        self._key = key
        self._observe = observe
        self.token = token or secrets.token_hex(8)
        self.upload_id = upload_id
        self.etags = etags or []
        self.current = Spool(tails or [])
        self._room_bytes = PART_BYTES - bytes_of(self.current.tails)
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
            piece = view[: self._room_bytes - self.current.n_bytes]
            view = view[len(piece) :]
            self._batch.append(piece)
            self._batch_bytes += len(piece)
            self.current.n_bytes += len(piece)
            if self.current.n_bytes == self._room_bytes:
                await self._close_part()
            elif self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_CHUNKS:
                await self.settle()
                self._submit(to_file=True)

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
            with disk_errors():
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
        self._room_bytes = PART_BYTES
        self._start_sending()

    def _start_sending(self) -> None:
        assert self._outgoing is not None
        self._sending = asyncio.create_task(self._send(self._outgoing))

    async def _send(self, part: Spool) -> None:
        async with self._shop.slots.turn(self._key):
            if not self.upload_id:
                self.upload_id = await self._shop.bucket.begin(self._key, token=self.token)
            whole = await self._joined(part, part.tails)
            try:
                body = whole.body()
                assert not isinstance(body, bytes)
                etag = await self._shop.bucket.put_part(
                    self._key,
                    self.upload_id,
                    len(self.etags) + 1,
                    body,
                    n_bytes=whole.n_bytes,
                    md5=whole.content_md5,
                )
            finally:
                if whole is not part:
                    whole.close()
        self.etags.append(etag)
        self._outgoing = None
        part.close()

    async def _joined(self, part: Spool, tails: list[str]) -> Spool:
        """Return a part with some of its tails before it: itself, or another to be closed."""
        return await join(self._shop, self._key, tails, part) if tails else part

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
        if self.etags and (self.current.n_bytes or self.current.tails):
            self._outgoing, self.current = self.current, Spool()
            await self._shop.run(partial(self._keep, self._outgoing, [], to_file=True))
            await self.sent()
        self._publishing = asyncio.create_task(self._publish())
        await asyncio.shield(self._publishing)

    async def _publish(self) -> None:
        bucket, key = self._shop.bucket, self._key
        try:
            if self.etags:
                await bucket.complete(key, self.upload_id, self.etags)
            else:
                part = self.current
                async with self._shop.slots.turn(key):
                    whole = await self._joined(part, part.tails)
                    try:
                        md5, token = whole.content_md5, self.token
                        await bucket.put(key, whole.body(), md5=md5, token=token)
                    finally:
                        if whole is not part:
                            whole.close()
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

    async def put_tail(self) -> list[str]:
        """Store what was collected of the current part, and begin to collect what follows it.

        Returns:
            The tails that are needed no more once `current.tails` is known to be kept.
        """
        await self._take_rest()
        part = self.current
        n_kept = count_kept(part.tails, part.n_bytes)
        kept, replaced = part.tails[:n_kept], part.tails[n_kept:]
        name = new_name(len(self.etags), bytes_of(replaced) + part.n_bytes)
        async with self._shop.slots.turn(self._key):
            whole = await self._joined(part, replaced)
            try:
                key, md5 = tail_key(self._key, name), whole.content_md5
                await self._shop.bucket.put(key, whole.body(), md5=md5, token="", replace=True)
            finally:
                if whole is not part:
                    whole.close()
        self.current = Spool([*kept, name])
        self._room_bytes -= part.n_bytes
        part.close()
        return replaced


async def run_whole(work: Awaitable[None]) -> None:
    """Run to the end even if the caller is cancelled again while it waits."""
    await asyncio.shield(asyncio.ensure_future(work))


def _each(take: Callable[[Chunk], Any], batch: list[Chunk]) -> None:
    for chunk in batch:
        take(chunk)
