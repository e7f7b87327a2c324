"""A blob as a file on this machine, for as long as the examining process looks at it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import IO, Final

from agentsight.server.blobs import (
    Chunk,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
    StoredObject,
)
from agentsight.server.parts import Parts

_STEP_BYTES: Final = 1024 * 1024


async def local_file(parts: Parts, object_key: str, size_bytes: int, folder: Path) -> Path:
    """Return a file with an object's bytes: a local store's own, which is only read, or a copy.

    Raises:
        ObjectMissing: They are not there, or not whole.
        StorageUnavailable: The store is away.
        StorageFull: There is no room for a copy.
    """
    own = parts.blobs.local_path(object_key)
    if own is not None:
        if await parts.blobs.size(object_key) != size_bytes:
            raise ObjectMissing(object_key)
        return own
    copy = folder / "source"
    async with await parts.blobs.read(object_key, 0, size_bytes) as chunks:
        if chunks.size_bytes != size_bytes:
            raise ObjectMissing(object_key)
        with _made(copy) as file:
            async for chunk in chunks:
                await asyncio.to_thread(_write, file, chunk)
    return copy


def _made(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise StorageFull(f"no room for a copy to look at: {error.strerror}") from error


def _write(file: IO[bytes], chunk: Chunk) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise StorageFull(f"no room for a copy to look at: {error.strerror}") from error


async def store_file(parts: Parts, object_key: str, path: Path) -> StoredObject:
    """Put a file into the store, in steps.

    Raises:
        StorageUnavailable: The store, or the file, cannot be read or written.
        StorageFull: No room.
    """
    try:
        file = path.open("rb")  # a file that was written a moment ago
    except OSError as error:
        raise StorageUnavailable(f"what was made cannot be read: {error.strerror}") from error
    with file:
        async with await parts.blobs.create(object_key) as writer:
            while chunk := await asyncio.to_thread(file.read, _STEP_BYTES):
                await writer.write(chunk)
            return await writer.finish()
