"""Objects as files below one directory, durable before anyone hears "stored".

An object is written to `tmp/`, hashed on the way, synced, and linked to its name: `link` is atomic
and refuses a name that is taken, which `rename` would overwrite. The folders on its way are synced
too. A crash at any point leaves at most a file in `tmp/` (see `sweep`) or an object that no row
refers to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from agentsight.server.blobs.errors import ObjectExists, ObjectMissing, StrangerStore
from agentsight.server.blobs.local_files import LocalFiles
from agentsight.server.blobs.local_parts import LocalPartsWriter
from agentsight.server.blobs.local_streams import LocalStream, LocalWriter
from agentsight.server.blobs.model import MARKER_KEY, Hasher, ListedObject, check_key

_N_THREADS: Final = 16
"""Threads wait for the disk, not for the processor: enough that a slow sync does not stop reads."""
_LIST_BATCH: Final = 500


class LocalBlobStore:
    """A `BlobStore` in the directory `root`, on one machine, for any number of processes.

    The root is made by `write_marker` and by nothing else, so that a disk that is not mounted is an
    error and not a new, empty store.

    Args:
        root: The directory.
        durable: False leaves out every sync. For benchmarks only: a crash then loses bytes.
        n_threads: How many reads, writes and syncs may be under way at once.
    """

    def __init__(self, root: Path, *, durable: bool = True, n_threads: int = _N_THREADS) -> None:
        self._files = LocalFiles(str(root.absolute()), durable=durable)
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="blobs")

    async def create(self, key: str) -> LocalWriter:
        """Begin an object; the file is opened with its first bytes."""
        return LocalWriter(self._files, self._pool, check_key(key))

    async def resume_parts(
        self, key: str, state: str, *, hasher: Hasher | None = None
    ) -> LocalPartsWriter:
        """Begin, or go on with, one file in `tmp/`; `state` is how many of its bytes are durable.

        Raises:
            ObjectBusy: Another writer, of this process or another, has the file open.
            ObjectMissing: The file is gone, or shorter than was promised.
        """
        writer = LocalPartsWriter(self._files, self._pool, check_key(key), hasher)
        await writer.open(state)
        return writer

    async def abandon_parts(self, key: str, state: str) -> None:
        """Remove the file in `tmp/`.

        Raises:
            ObjectBusy: A writer has it open.
        """
        del state  # its name is made of the key
        await asyncio.wrap_future(self._pool.submit(self._files.discard_parts, check_key(key)))

    async def presigned_url(
        self, key: str, *, expires_s: int, headers: Mapping[str, str]
    ) -> str | None:
        """Return None: a directory has no door of its own."""
        del key, expires_s, headers
        return None

    async def read(self, key: str, start: int = 0, end: int | None = None) -> LocalStream:
        """Open `[start, end)` and read its first chunk, in one visit to a thread."""
        stream = LocalStream(self._files, self._pool, check_key(key), start, end)
        await stream.open()
        return stream

    async def read_whole(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object at once."""
        async with await self.read(key) as chunks:
            if chunks.size_bytes > max_bytes:
                raise ValueError(f"{key} has {chunks.size_bytes} bytes, more than {max_bytes}")
            return b"".join([chunk async for chunk in chunks])

    async def delete(self, key: str) -> None:
        """Remove an object; durable when this returns."""
        await asyncio.wrap_future(self._pool.submit(self._files.delete, check_key(key)))

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None where there is none."""
        return await asyncio.wrap_future(self._pool.submit(self._files.size_of, check_key(key)))

    async def list_objects(self, prefix: str) -> AsyncIterator[ListedObject]:
        """List the objects under a folder, a few hundred a visit to a thread."""
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"a prefix is empty or ends with '/': {prefix!r}")
        found = self._files.walk(check_key(prefix[:-1]) if prefix else "")

        def take() -> list[ListedObject]:
            return list(islice(found, _LIST_BATCH))

        while batch := await asyncio.wrap_future(self._pool.submit(take)):
            for item in batch:
                yield item

    async def check(self) -> None:
        """Write and remove a few bytes."""
        await asyncio.wrap_future(self._pool.submit(self._files.probe))

    async def read_marker(self) -> str | None:
        """Return the uid of the instance that the store belongs to; None for a fresh one."""
        with suppress(ObjectMissing):
            return (await self.read_whole(MARKER_KEY, max_bytes=256)).decode("ascii").strip()
        return None

    async def write_marker(self, instance_uid: str) -> None:
        """Make the directory, and make it this instance's."""
        await asyncio.wrap_future(self._pool.submit(self._files.make_root))
        with suppress(ObjectExists):
            async with await self.create(MARKER_KEY) as writer:
                await writer.write(f"{instance_uid}\n".encode("ascii"))
                await writer.finish()
        owner = await self.read_marker()
        if owner != instance_uid:
            raise StrangerStore(
                f"{self._files.root} holds the files of instance {owner}, not of {instance_uid}: "
                "point AGENTSIGHT_STORAGE_URL at this instance's own directory"
            )

    def local_path(self, key: str) -> Path:
        """Return the file that holds, or would hold, an object."""
        return Path(self._files.path_of(key))

    async def sweep(self, *, older_than_s: int, besides: Collection[str] = ()) -> int:
        """Remove what crashes left in `tmp/`; return how many files.

        `older_than_s` must be longer than any pause within an upload: every write touches its file.
        """
        return await asyncio.wrap_future(
            self._pool.submit(self._files.sweep, older_than_s, besides)
        )

    async def count_leftovers(
        self, *, older_than_s: int, besides: Collection[str] = ()
    ) -> tuple[int, int]:
        """Return how many files `sweep` would remove, and how many bytes they have."""
        return await asyncio.wrap_future(
            self._pool.submit(self._files.count_leftovers, older_than_s, besides)
        )

    async def close(self) -> None:
        """Wait for reads and writes under way and end the threads."""
        await asyncio.to_thread(self._pool.shutdown)
