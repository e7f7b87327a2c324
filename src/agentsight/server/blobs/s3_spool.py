"""Where a part of an object waits on its way to an object store, and for its turn.

S3 takes a large object in parts of at least 5 MiB (AWS S3 User Guide, "Amazon S3 multipart upload
limits"), and some stores want all but the last of one size (Cloudflare R2). A part is collected in
an unlinked file, which a crash takes along, and sent from there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from weakref import WeakValueDictionary

from agentsight.server.blobs.errors import StorageFull, StorageUnavailable
from agentsight.server.blobs.local_files import NO_ROOM
from agentsight.server.blobs.model import Chunk
from agentsight.server.blobs.s3_bucket import S3Bucket

T = TypeVar("T")

_COPY_BYTES: Final = 256 * 1024


class Slots:
    """Turns at the line to the store: so many at once, and fewer of one agent's.

    An agent with hundreds of uploads under way queues behind itself, and not before all others.

    Args:
        n_slots: How many parts, tails and small objects may be on their way at once.
        n_each: How many of them may be one agent's.
    """

    def __init__(self, n_slots: int, n_each: int) -> None:
        self._all = asyncio.Semaphore(n_slots)
        self._n_each = n_each
        # Kept by those who wait or hold, and by nobody else.
        self._by_owner: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncGenerator[None]:
        """Wait for a turn; `key` says by its second segment whose it is (see `blob_key`)."""
        owner = key.split("/")[1] if "/" in key else key
        own = self._by_owner.get(owner)
        if own is None:
            own = self._by_owner[owner] = asyncio.Semaphore(self._n_each)
        async with own, self._all:
            yield


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all writers of one store share.

    Args:
        spool_dir: Where parts wait; None: the system's directory for temporary files.
    """

    bucket: S3Bucket
    pool: ThreadPoolExecutor
    slots: Slots
    spool_dir: Path | None

    async def run(self, work: Callable[[], T]) -> T:
        """Work in a thread; come back when it is done, also when we are cancelled meanwhile."""
        job = asyncio.wrap_future(self.pool.submit(work))
        try:
            return await asyncio.shield(job)
        finally:
            if not job.done():
                await asyncio.wait([job])


@dataclass(slots=True, eq=False)
class Spool:
    """The bytes of one part: few of them in memory, more of them in a file without a name.

    `tails` are the objects that hold what earlier visits brought of it: its bytes before these.
    """

    tails: list[str] = field(default_factory=list[str])
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

    def append(self, directory: Path | None, chunk: Chunk) -> None:
        """Write and hash bytes, in a thread."""
        with disk_errors():
            self.open(directory).write(chunk)
        self.md5.update(chunk)
        self.n_bytes += len(chunk)

    def append_all(self, directory: Path | None, other: Spool) -> None:
        """Write and hash another's bytes, in a thread; the other keeps them."""
        body = other.body()
        if isinstance(body, bytes):
            self.append(directory, body)
            return
        with disk_errors():
            while chunk := body.read(_COPY_BYTES):
                self.append(directory, chunk)

    def flush(self) -> None:
        """Let whoever reads the file see all of it, in a thread."""
        with disk_errors():
            if self.file is not None:
                self.file.flush()

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


@contextlib.contextmanager
def disk_errors() -> Generator[None]:
    """Wrap what goes wrong with the files in which parts wait."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("The disk on which uploads wait is full.") from error
        raise StorageUnavailable(
            f"Uploads cannot wait on our disk: {error.strerror or type(error).__name__}."
        ) from error
