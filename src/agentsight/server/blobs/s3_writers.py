"""The two ways into an object store: in one visit, or over several (see `s3_parts`)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
import warnings
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from agentsight.server.blobs.errors import ObjectMissing, StorageFull, StorageUnavailable
from agentsight.server.blobs.model import HEAD_BYTES, Chunk, Hasher, StoredObject
from agentsight.server.blobs.s3_errors import UploadGone
from agentsight.server.blobs.s3_parts import PART_BYTES, S3Upload, Workshop, run_whole

log = logging.getLogger("agentsight.server")

TAILS: Final = "tmp/"
"""Where the bytes of paused uploads wait that do not fill a part. Never listed as objects."""


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
        tail: The name, below `TAILS` and the key, of the object with the bytes after the last part.
        tail_bytes: How many they are.
        old_tail: The tail before, which may go as soon as this state is known to be kept.
    """

    token: str
    upload_id: str = ""
    etags: list[str] = []
    tail: str = ""
    tail_bytes: int = 0
    old_tail: str = ""


class S3PartsWriter:
    """One object on its way in over several visits. See `PartsWriter`.

    What does not fill a part is kept as an object of its own (the tail) when a visit ends, and read
    back into the next one: a client that sends a megabyte a visit gets on, and no part but the last
    is shorter than the others. Each tail has its own name, because the state that names the one
    before may still be what the caller's row says.
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
        )
        self._has_history = bool(paused.tail or paused.upload_id)
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
        if durable.tail:
            tail = await self._read_tail(durable)
            await asyncio.to_thread(self._upload.preload, tail)
        if durable.old_tail:
            await bucket.delete(self._tail_key(durable.old_tail))
            durable.old_tail = ""

    async def _read_tail(self, durable: Paused) -> bytes:
        opened = await self._shop.bucket.open(self._tail_key(durable.tail))
        if opened.size_bytes != durable.tail_bytes:
            opened.body.close()
            raise ObjectMissing(self._key)
        return await self._shop.bucket.read_body(opened, self._key)

    @property
    def offset(self) -> int:
        """How many bytes are durable."""
        self._note_parts()
        return len(self._durable.etags) * PART_BYTES + self._durable.tail_bytes

    @property
    def state(self) -> str:
        """What `resume_parts` needs to go on from `offset`."""
        self._note_parts()
        return msgspec.json.encode(self._durable).decode("utf-8")

    def _note_parts(self) -> None:
        """Count the parts that were stored since; the first of them holds the tail."""
        durable, etags = self._durable, self._upload.etags
        if len(etags) > len(durable.etags):
            # The tail itself stays until the next state is kept: a crash may fall back on it.
            self._durable = Paused(
                durable.token,
                self._upload.upload_id,
                list(etags),
                old_tail=durable.tail or durable.old_tail,
            )

    async def write(self, chunk: Chunk) -> None:
        """Take the next bytes."""
        if self._is_broken or self._is_complete:
            raise RuntimeError(f"the writer of {self._key} takes no more")
        self._is_broken = True  # until we know better: a wait that is cut short leaves a hole
        await self._upload.write(chunk)
        self._is_broken = False

    async def sync(self) -> None:
        """Do nothing: parts are stored as they fill, and a tail a second would be dear."""

    async def pause(self) -> None:
        """Store what is left as the tail, after the parts that are under way."""
        if self._is_complete or self._is_broken:
            return
        await self._upload.sent()
        self._note_parts()
        n_bytes = self._upload.current.n_bytes
        if n_bytes == self._durable.tail_bytes:
            return
        tail, durable = await self._upload.tail(), self._durable
        name = f"{len(durable.etags)}-{n_bytes}-{secrets.token_hex(4)}"
        md5 = base64.b64encode(hashlib.md5(tail, usedforsecurity=False).digest()).decode("ascii")
        self._has_history = True
        await self._shop.bucket.put(self._tail_key(name), tail, md5=md5, token="", replace=True)
        old = durable.tail or durable.old_tail
        self._durable = Paused(
            durable.token, durable.upload_id, durable.etags, name, n_bytes, old_tail=old
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

    def _tail_key(self, name: str) -> str:
        return f"{TAILS}{self._key}/{name}"

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
    async for tail in shop.bucket.list(f"{TAILS}{key}/"):
        await shop.bucket.delete(tail.key)
