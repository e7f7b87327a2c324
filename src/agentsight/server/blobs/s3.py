"""Objects in a bucket of any S3-compatible store, private to this server.

Every object is written once, under a key of ours, and is visible when its last request has
succeeded: S3 shows neither half of a request nor an upload that was not completed. A crash leaves
at most an unfinished multipart upload or a tail (see `sweep`), or an object that no row refers to.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from agentsight.server.blobs.errors import ObjectMissing, StrangerStore
from agentsight.server.blobs.model import MARKER_KEY, Hasher, ListedObject, check_key, is_key
from agentsight.server.blobs.s3_bucket import S3Bucket
from agentsight.server.blobs.s3_errors import Taken, UploadGone
from agentsight.server.blobs.s3_spool import Slots, Workshop
from agentsight.server.blobs.s3_stream import S3Stream
from agentsight.server.blobs.s3_tails import TAILS
from agentsight.server.blobs.s3_writers import Paused, S3PartsWriter, S3Writer, remove_rest

_N_THREADS: Final = 16
_N_SLOTS: Final = 16
"""Parts on their way at once. More do not fill the line better, and each holds a connection and its
buffers."""
_N_SLOTS_EACH: Final = 8
"""Of one agent's: half of the line is left to the others."""


class S3BlobStore:
    """A `BlobStore` in a bucket, for any number of processes and hosts.

    Args:
        bucket: Where; `close` closes it.
        spool_dir: Where parts wait until they are sent, in files without names, at most 16 MiB a
            file under way and, while tails are joined to a part, 8 MiB for each slot; None: the
            system's directory for temporary files.
    """

    def __init__(self, bucket: S3Bucket, *, spool_dir: Path | None = None) -> None:
        self._bucket = bucket
        self._pool = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="blobs")
        self._shop = Workshop(bucket, self._pool, Slots(_N_SLOTS, _N_SLOTS_EACH), spool_dir)

    async def create(self, key: str) -> S3Writer:
        """Begin an object; nothing is asked of the store before its first part is full."""
        return S3Writer(self._shop, check_key(key))

    async def resume_parts(
        self, key: str, state: str, *, hasher: Hasher | None = None
    ) -> S3PartsWriter:
        """Begin or go on with an object that comes over several visits."""
        check_key(key)
        paused = msgspec.json.decode(state, type=Paused) if state else Paused(secrets.token_hex(8))
        writer = S3PartsWriter(self._shop, key, paused, hasher)
        await writer.open()
        return writer

    async def abandon_parts(self, key: str, state: str) -> None:
        """Remove what is there of an unfinished object, whichever visit left it."""
        del state  # a crash may have left more than the last state knows
        await remove_rest(self._shop, check_key(key))

    async def presigned_url(
        self, key: str, *, expires_s: int, headers: Mapping[str, str]
    ) -> str | None:
        """Make a short-lived address at which the store itself hands out the object."""
        return await self._bucket.presign(check_key(key), expires_s=expires_s, headers=headers)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> S3Stream:
        """Open `[start, end)`; the store is asked for these bytes and no others."""
        stream = S3Stream(self._bucket, check_key(key), start, end)
        await stream.open()
        return stream

    async def read_whole(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object at once."""
        async with await self.read(key) as chunks:
            if chunks.size_bytes > max_bytes:
                raise ValueError(f"{key} has {chunks.size_bytes} bytes, more than {max_bytes}")
            return b"".join([chunk async for chunk in chunks])

    async def delete(self, key: str) -> None:
        """Remove an object, and its versions in a bucket that keeps them."""
        await self._bucket.delete(check_key(key))

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None where there is none."""
        found = await self._bucket.head(check_key(key))
        return None if found is None else found.size_bytes

    async def list_objects(self, prefix: str) -> AsyncIterator[ListedObject]:
        """List the objects under a folder, a thousand a request."""
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a prefix is empty or ends with '/': {prefix!r}")
        if prefix:
            check_key(prefix[:-1])
        async for item in self._bucket.list(prefix):
            if is_key(item.key) and not item.key.startswith(TAILS):
                yield ListedObject(item.key, item.size_bytes, item.modified_at_us)

    async def check(self) -> None:
        """Write and remove a few bytes."""
        key = f"{TAILS}check-{secrets.token_hex(8)}"
        await self._put_small(key, b"agentsight", replace=True)
        await self._bucket.delete(key)

    async def _put_small(self, key: str, data: bytes, *, replace: bool = False) -> None:
        md5 = b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode("ascii")
        await self._bucket.put(key, data, md5=md5, token="", replace=replace)

    async def read_marker(self) -> str | None:
        """Return the uid of the instance that the store belongs to; None for a fresh one."""
        try:
            return (await self.read_whole(MARKER_KEY, max_bytes=256)).decode("ascii").strip()
        except ObjectMissing:
            return None

    async def write_marker(self, instance_uid: str) -> None:
        """Make the bucket (or our folder in it) this instance's."""
        with suppress(Taken):
            await self._put_small(MARKER_KEY, f"{instance_uid}\n".encode("ascii"))
        owner = await self.read_marker()
        if owner != instance_uid:
            raise StrangerStore(
                f"the bucket holds the files of instance {owner}, not of {instance_uid}: point"
                " AGENTSIGHT_STORAGE_URL at a bucket or prefix of this instance's own"
            )

    async def sweep(self, *, older_than_s: int, besides: Collection[str] = ()) -> int:
        """Remove multipart uploads and tails that nobody wrote to for so long; return how many."""
        uploads, tails = await self._leftovers(older_than_s, besides)
        for key, upload_id, _ in uploads:
            await self._bucket.abort(key, upload_id)
        for key, _ in tails:
            await self._bucket.delete(key)
        return len(uploads) + len(tails)

    async def count_leftovers(
        self, *, older_than_s: int, besides: Collection[str] = ()
    ) -> tuple[int, int]:
        """Return how many uploads and tails `sweep` would remove, and how many bytes they have."""
        uploads, tails = await self._leftovers(older_than_s, besides)
        n_bytes = sum(size for *_, size in uploads) + sum(size for *_, size in tails)
        return len(uploads) + len(tails), n_bytes

    async def _leftovers(
        self, older_than_s: int, besides: Collection[str] = ()
    ) -> tuple[list[tuple[str, str, int]], list[tuple[str, int]]]:
        """Find old uploads (key, id, bytes) and old tails (key, bytes).

        An upload is as old as its last part, or as the last tail of its object if that is younger;
        so are all tails of an object.
        """
        oldest_us = (time.time_ns() // 1000) - older_than_s * 1_000_000
        tails: list[tuple[str, int]] = []
        resting = set(besides)
        async for item in self._bucket.list(TAILS):
            if item.modified_at_us >= oldest_us:
                resting.add(_object_of(item.key))
            else:
                tails.append((item.key, item.size_bytes))
        tails = [(key, size) for key, size in tails if _object_of(key) not in resting]
        uploads: list[tuple[str, str, int]] = []
        for upload in await self._bucket.list_uploads():
            if upload.begun_at_us >= oldest_us or upload.key in resting:
                continue
            try:
                parts = await self._bucket.list_parts(upload.key, upload.upload_id)
            except (UploadGone, ObjectMissing):  # it has ended meanwhile
                continue
            if all(part.modified_at_us < oldest_us for part in parts):
                n_bytes = sum(part.size_bytes for part in parts)
                uploads.append((upload.key, upload.upload_id, n_bytes))
        return uploads, tails

    def local_path(self, key: str) -> Path | None:
        """Return None: there is no file of ours."""
        check_key(key)
        return None

    async def close(self) -> None:
        """Close connections and end the threads."""
        await self._bucket.close()
        await asyncio.to_thread(self._pool.shutdown)


def _object_of(tail_key: str) -> str:
    return tail_key.removeprefix(TAILS).rpartition("/")[0]
