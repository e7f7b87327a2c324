"""The two ways into an object store: in one visit, or over several (see `s3_parts`)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import warnings
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from agentsight.server.blobs.errors import ObjectMissing, StorageFull, StorageUnavailable
from agentsight.server.blobs.model import HEAD_BYTES, Chunk, Hasher, StoredObject
from agentsight.server.blobs.s3_errors import UploadGone
from agentsight.server.blobs.s3_parts import PART_BYTES, S3Upload, run_whole
from agentsight.server.blobs.s3_spool import Workshop
from agentsight.server.blobs.s3_tails import are_there, bytes_of, tail_key

log = logging.getLogger("agentsight.server")

_TAIL_EVERY_S: Final = 600
"""So often a visit that lasts stores a tail: far more often than leftovers are swept."""


class S3Writer:
    """One object on its way in. See `BlobWriter`."""

    def __init__(self, shop: Workshop, key: str) -> None:
        self._key = key
        self._upload = S3Upload(shop, key, self._observe)
        self._size_bytes = 0
        self._state: Literal["open", "busy", "finished", "given up"] = "open"
        # Below: touched in threads only, by one job at a time.
        self._sha256 = hashlib.sha256()
        self._head = b""

    @property
    def size_bytes(self) -> int:
        """How many bytes were taken so far."""
        return self._size_bytes

    async def write(self, chunk: Chunk) -> None:
        """Take the next bytes; waits while two parts are full."""
        self._begin()
        self._size_bytes += len(chunk)
        await self._upload.write(chunk)
        self._state = "open"

    async def finish(self) -> StoredObject:
        """Send what is left and make the object visible."""
        self._begin()
        await self._upload.publish()
        self._state = "finished"
        return StoredObject(self._size_bytes, self._sha256.hexdigest(), self._head)

    def _begin(self) -> None:
        """Be busy: a wait that fails or is cut short leaves the writer unusable."""
        if self._state != "open":
            raise RuntimeError(f"the writer of {self._key} is {self._state}")
        self._state = "busy"

    def _observe(self, chunk: Chunk) -> None:
        if len(self._head) < HEAD_BYTES:
            self._head += bytes(chunk[: HEAD_BYTES - len(self._head)])
        self._sha256.update(chunk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._state != "finished":
            self._state = "given up"
            await run_whole(self._upload.discard(error))

    def __del__(self) -> None:
        if self._state in ("open", "busy") and self._size_bytes:
            warnings.warn(f"unfinished writer of {self._key}", ResourceWarning, stacklevel=2)


class Paused(msgspec.Struct, array_like=True, omit_defaults=True):
    """What is durable of an unfinished object: `PartsWriter.state`, as JSON.

    Args:
        token: See `S3Upload`.
        upload_id: Empty before the first full part.
        etags: Of the parts, each of `PART_BYTES`.
        tails: The objects with the bytes after the last part, in order (see `s3_tails`).
        old_tails: Those before, which may go as soon as this state is known to be kept.
    """

    token: str
    upload_id: str = ""
    etags: list[str] = []
    tails: list[str] = []
    old_tails: list[str] = []


class S3PartsWriter:
    """One object on its way in over several visits. See `PartsWriter`.

    What does not fill a part is kept in objects of its own (tails) when a visit ends, and joined
    when the part is full: a client that sends a megabyte a visit, or a byte, gets on, and no part
    but the last is shorter than the others.
    """

    def __init__(self, shop: Workshop, key: str, paused: Paused, hasher: Hasher | None) -> None:
        self._shop = shop
        self._key = key
        self._hasher = hasher
        self._durable = paused
        self._upload = S3Upload(
            shop,
            key,
            self._observe,
            token=paused.token,
            upload_id=paused.upload_id,
            etags=list(paused.etags),
            tails=list(paused.tails),
        )
        self._now_s = asyncio.get_running_loop().time
        self._tailed_s = self._now_s()
        self._has_history = bool(paused.tails or paused.upload_id)
        self._is_complete = False
        self._is_broken = False

    async def open(self) -> None:
        """Find what earlier visits left.

        Raises:
            ObjectMissing: It is gone.
        """
        bucket, durable = self._shop.bucket, self._durable
        if durable.upload_id:
            try:
                await bucket.list_parts(self._key, durable.upload_id)
            except (UploadGone, ObjectMissing) as error:
                found = await bucket.head(self._key)
                if found is None or found.token != durable.token:
                    raise ObjectMissing(self._key) from error
                self._is_complete = True  # `finish` was done, and nobody heard of it
                return
        if durable.tails and not await are_there(self._shop, self._key, durable.tails):
            raise ObjectMissing(self._key)
        old, durable.old_tails = durable.old_tails, []
        for name in old:
            await bucket.delete(tail_key(self._key, name))

    @property
    def offset(self) -> int:
        """How many bytes are durable."""
        self._note_parts()
        return len(self._durable.etags) * PART_BYTES + bytes_of(self._durable.tails)

    @property
    def state(self) -> str:
        """What `resume_parts` needs to go on from `offset`."""
        self._note_parts()
        return msgspec.json.encode(self._durable).decode("utf-8")

    def _note_parts(self) -> None:
        """Count the parts that were stored since; the first of them holds the tails."""
        durable, etags = self._durable, self._upload.etags
        if len(etags) > len(durable.etags):
            # The tails themselves stay until this state is kept: a crash may fall back on them.
            self._durable = Paused(
                durable.token,
                self._upload.upload_id,
                list(etags),
                old_tails=durable.old_tails + durable.tails,
            )

    async def write(self, chunk: Chunk) -> None:
        """Take the next bytes."""
        if self._is_broken or self._is_complete:
            raise RuntimeError(f"the writer of {self._key} takes no more")
        self._is_broken = True  # until we know better: a wait that is cut short leaves a hole
        await self._upload.write(chunk)
        self._is_broken = False

    async def sync(self) -> None:
        """Store a tail every few minutes; parts are stored as they fill, and a tail a second would
        be dear. It also shows the sweep that the upload is under way."""
        if self._now_s() - self._tailed_s >= _TAIL_EVERY_S:
            await self.pause()

    async def pause(self) -> None:
        """Store what is left as a tail, after the parts that are under way."""
        if self._is_complete or self._is_broken:
            return
        self._tailed_s = self._now_s()
        await self._upload.sent()
        self._note_parts()
        if not self._upload.current.n_bytes:
            return
        self._has_history = True
        replaced, durable = await self._upload.put_tail(), self._durable
        self._durable = Paused(
            durable.token,
            durable.upload_id,
            durable.etags,
            list(self._upload.current.tails),
            durable.old_tails + replaced,
        )

    async def finish(self) -> None:
        """Make the whole object visible; may be tried again after `StorageUnavailable`."""
        if self._is_broken:
            raise StorageUnavailable(f"The upload of {self._key} was cut short: go on with it.")
        if not self._is_complete:
            await self._upload.publish()
            self._is_complete = True
        if self._has_history:
            try:
                await remove_rest(self._shop, self._key)
            except StorageUnavailable as error:
                log.warning("the rest of an upload waits to be swept: %s: %s", self._key, error)

    def _observe(self, chunk: Chunk) -> None:
        if self._hasher is not None:
            self._hasher.update(chunk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await run_whole(self._leave())

    async def _leave(self) -> None:
        try:
            if not self._is_complete:
                await self.pause()
        except (StorageUnavailable, StorageFull) as error:
            log.warning("the end of a paused upload was lost: %s: %s", self._key, error)
        finally:
            await self._upload.stop()
            self._note_parts()


async def remove_rest(shop: Workshop, key: str) -> None:
    """Remove all that visits left of an object beside itself, whatever their states say.

    Raises:
        StorageUnavailable: Not all of it could be removed.
    """
    for upload in await shop.bucket.list_uploads(key):
        if upload.key == key:
            await shop.bucket.abort(key, upload.upload_id)
    async for tail in shop.bucket.list(tail_key(key, "")):
        await shop.bucket.delete(tail.key)
