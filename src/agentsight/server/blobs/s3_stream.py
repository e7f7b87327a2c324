"""Bytes of one object on their way out of an object store, resumed where a connection broke."""

from __future__ import annotations

import logging
import warnings
from types import TracebackType
from typing import Any, Final, Self

from agentsight.server.blobs.errors import ObjectMissing, StorageUnavailable
from agentsight.server.blobs.s3_bucket import Opened, S3Bucket
from agentsight.server.blobs.s3_errors import OutOfRange, Taken, s3_errors

log = logging.getLogger("agentsight.server")

READ_BYTES: Final = 256 * 1024
_MAX_BREAKS: Final = 3
"""In a row, without a byte between them. Stores hang up on who reads slowly, and a browser that
holds a paused video does."""


class S3Stream:
    """Bytes of one object on their way out. See `BlobStream`."""

    def __init__(self, bucket: S3Bucket, key: str, start: int, end: int | None) -> None:
        self._body: Any = None
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"not a range: [{start}, {end})")
        self._bucket = bucket
        self._key = key
        self._position = start
        self._end = end
        self._size_bytes = 0
        self._etag = ""
        self._is_closed = False

    async def open(self) -> None:
        """Send the request; raises `ObjectMissing` where there is nothing."""
        if self._end == self._position:
            await self._open_nothing()
            return
        try:
            opened = await self._bucket.open(self._key, self._position, self._end)
        except OutOfRange:
            await self._open_nothing()
            return
        self._size_bytes, self._etag = opened.size_bytes, opened.etag
        self._take(opened)

    async def _open_nothing(self) -> None:
        found = await self._bucket.head(self._key)
        if found is None:
            raise ObjectMissing(self._key)
        self._size_bytes = found.size_bytes
        self._end = self._position

    def _take(self, opened: Opened) -> None:
        self._body, self._end = opened.body, opened.end

    @property
    def size_bytes(self) -> int:
        """The size of the whole object."""
        return self._size_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        assert self._end is not None
        if self._is_closed or self._position >= self._end:
            self.close()
            raise StopAsyncIteration
        n_breaks = 0
        while True:
            chunk = await self._read()
            if chunk:
                self._position += len(chunk)
                return chunk
            n_breaks += 1
            if n_breaks > _MAX_BREAKS:
                raise StorageUnavailable(f"The object store broke off while {self._key} was read.")
            await self._reopen()

    async def _read(self) -> bytes:
        """Read what is there; nothing means that the connection broke."""
        try:
            with s3_errors(self._key):
                return await self._body.read(READ_BYTES)
        except StorageUnavailable as error:
            log.info("reading of %s goes on anew: %s", self._key, error)
            return b""

    async def _reopen(self) -> None:
        self._drop()
        try:
            opened = await self._bucket.open(self._key, self._position, self._end, etag=self._etag)
        except (ObjectMissing, OutOfRange, Taken) as error:
            raise StorageUnavailable(f"{self._key} went away while it was read.") from error
        self._take(opened)

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
        """Stop reading; a connection with bytes still in it is closed."""
        self._is_closed = True
        self._drop()

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def __del__(self) -> None:
        if self._body is not None:
            warnings.warn(f"unclosed stream of {self._key}", ResourceWarning, stacklevel=2)
            self._drop()
