"""What a store of bytes promises: the interface, and the shape of keys.

Nothing here knows of conversations or attachments. Every store answers to the same suite of
promises (`tests/server/blobs/test_promises.py`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias

from agentsight.server.ids import AgentId

HEAD_BYTES: Final = 8192
"""How many first bytes a writer keeps for telling the type by content."""
MARKER_KEY: Final = "agentsight-instance"
"""The object that holds the uid of the instance whose bytes these are."""

Chunk: TypeAlias = bytes | memoryview
"""Bytes on their way. Writers keep what they are given for a while: never change it afterwards."""

_UID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Every segment starts with a letter or digit, so no key holds `.`, `..`, an empty segment or a
# hidden file, and none needs quoting in a URL.
_KEY: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}(?:/[a-z0-9][a-z0-9._-]{0,127}){0,7}")


def blob_key(agent_id: AgentId, blob_uid: str) -> str:
    """Build the one key of a blob: `blobs/<agent>/<two>/<blob uid>`.

    `<two>` is the uid's end: a UUIDv7 begins with its time, so its first characters would put all
    of a year's blobs into one folder.

    Raises:
        ValueError: The id or the uid is not one that we made.
    """
    if agent_id < 1 or _UID.fullmatch(blob_uid) is None:
        raise ValueError(f"not a blob of ours: agent {agent_id!r}, uid {blob_uid!r}")
    return f"blobs/{agent_id}/{blob_uid[-2:]}/{blob_uid}"


def derived_key(agent_id: AgentId, uid: str) -> str:
    """Build the one key of what was made of a blob: `derived/<agent>/<two>/<uid>`.

    Raises:
        ValueError: The id or the uid is not one that we made.
    """
    return "derived" + blob_key(agent_id, uid).removeprefix("blobs")


def is_key(text: str) -> bool:
    """Say whether `text` has the shape of a key."""
    return _KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return `key` if it has the shape of a key; no other text reaches a file system or bucket.

    Raises:
        ValueError: It has not.
    """
    if not is_key(key):
        raise ValueError(f"not an object key: {key!r}")
    return key


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What is known of bytes that are durable now.

    `sha256` is lower-case hex; `head` the first `HEAD_BYTES` bytes at most.
    """

    size_bytes: int
    sha256: str
    head: bytes


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One object of a listing. Bytes still being written are never listed."""

    key: str
    size_bytes: int
    modified_at_us: int


class BlobWriter(Protocol):
    """One object on its way in: an async context manager, aborted on exit without `finish`.

    Promises: bytes are hashed as they come and never held whole; nobody sees the object before
    `finish` returns; after an abort or a crash nothing can be read under the key.
    """

    @property
    def size_bytes(self) -> int:
        """How many bytes were taken so far."""
        ...

    async def write(self, chunk: Chunk) -> None:
        """Take the next bytes; they are kept by reference until they are written."""
        ...

    async def finish(self) -> StoredObject:
        """Make the object durable and visible.

        Raises:
            ObjectExists: The key is taken; the other object is untouched.
            StorageFull: No room.
            StorageUnavailable: Anything else went wrong.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Hasher(Protocol):
    """A running hash, as `hashlib` makes them."""

    def update(self, data: Chunk, /) -> None:
        """Take the next bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of what was taken, in lower-case hex."""
        ...


class PartsWriter(Protocol):
    """One object on its way in over several visits: an async context manager.

    Promises: what `offset` counts is durable and survives a crash; bytes beyond it may be lost and
    are sent again; nobody sees the object before `finish`; leaving the context without `finish`
    pauses (it never abandons). One writer at a time holds an object: its caller's lease sees to it.
    """

    @property
    def offset(self) -> int:
        """How many bytes are durable: where the next visit goes on."""
        ...

    @property
    def state(self) -> str:
        """What `resume_parts` needs to go on from `offset`: short text, kept in a row."""
        ...

    async def write(self, chunk: Chunk) -> None:
        """Take the next bytes; they are kept by reference until they are written."""
        ...

    async def sync(self) -> None:
        """Make durable what can be at little cost, and go on; for slow senders, every second."""
        ...

    async def pause(self) -> None:
        """Make durable what can be (a store may keep whole parts only) and settle `offset`."""
        ...

    async def finish(self) -> None:
        """Make the whole object durable and visible.

        Raises:
            ObjectExists: The key is taken; the other object is untouched.
            StorageFull: No room.
            StorageUnavailable: Anything else went wrong; `finish` may be tried again.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobStream(Protocol):
    """Bytes on their way out: an async iterator of chunks and an async context manager.

    Leaving the context at any point stops reading and frees what is held.
    """

    @property
    def size_bytes(self) -> int:
        """The size of the whole object, whatever range is read."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class BlobStore(Protocol):
    """Keys and bytes. Objects are written once, never changed, and read until they are deleted.

    Every method may raise `StorageUnavailable`, and `ValueError` for what is not a key.
    """

    async def create(self, key: str) -> BlobWriter:
        """Begin an object: `async with await store.create(key) as writer: ...`."""
        ...

    async def resume_parts(
        self, key: str, state: str, *, hasher: Hasher | None = None
    ) -> PartsWriter:
        """Begin (`state` is empty) or go on with an object that comes over several visits.

        Args:
            key: The object's key, the same at every visit.
            state: The last `PartsWriter.state`, or "" at the first visit.
            hasher: Is updated with every byte taken, in the store's threads, in order.

        Raises:
            ObjectMissing: What was there of it is gone (swept, or lost): begin again.
        """
        ...

    async def abandon_parts(self, key: str, state: str) -> None:
        """Remove what is there of an unfinished object. A missing one is not an error."""
        ...

    async def presigned_url(
        self, key: str, *, expires_s: int, headers: Mapping[str, str]
    ) -> str | None:
        """Make a short-lived address at which the store itself hands out the object.

        Args:
            expires_s: How long it works.
            headers: The answer's `Content-Type`, `Content-Disposition` and `Cache-Control`.

        Returns:
            The address; None where the store has no door of its own (a local directory).
        """
        ...

    async def read(self, key: str, start: int = 0, end: int | None = None) -> BlobStream:
        """Open the bytes `[start, end)`; an `end` past the object's end, or None, means its end.

        Example:
            >>> async with await store.read(key) as chunks:
            ...     async for chunk in chunks:
            ...         await send(chunk)

        Raises:
            ObjectMissing: Nothing is stored under `key`. Said here, before the first chunk.
        """
        ...

    async def read_whole(self, key: str, *, max_bytes: int) -> bytes:
        """Read a small object at once.

        Raises:
            ObjectMissing: Nothing is stored under `key`.
            ValueError: It is larger than `max_bytes`.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove an object for good. A missing one is not an error."""
        ...

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None where there is none."""
        ...

    def list_objects(self, prefix: str) -> AsyncIterator[ListedObject]:
        """List the objects under a folder, in no promised order.

        `prefix` is empty (all objects) or ends with `/`.
        """
        ...

    async def check(self) -> None:
        """Prove that bytes can be written and removed.

        Raises:
            StorageFull: No room.
            StorageUnavailable: They cannot.
        """
        ...

    async def read_marker(self) -> str | None:
        """Return the uid of the instance that the store belongs to; None for a fresh one."""
        ...

    async def write_marker(self, instance_uid: str) -> None:
        """Make the store this instance's. The same uid again changes nothing.

        Raises:
            StrangerStore: It already belongs to another instance.
        """
        ...

    async def sweep(self, *, older_than_s: int, besides: Collection[str] = ()) -> int:
        """Remove what crashes left of objects half written; return how many.

        Args:
            older_than_s: Longer than any pause within an upload.
            besides: Keys of objects that somebody will go on with all the same.
        """
        ...

    async def count_leftovers(
        self, *, older_than_s: int, besides: Collection[str] = ()
    ) -> tuple[int, int]:
        """Return what `sweep` would remove: how many files, and how many bytes they have."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return the file that holds an object where a web server could send it; else None."""
        ...

    async def close(self) -> None:
        """Free threads and connections. Called by whoever made the store."""
        ...
