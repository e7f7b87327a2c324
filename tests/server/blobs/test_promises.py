"""What every store of bytes promises; one suite, run on each of them."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentsight.server.blobs import (
    HEAD_BYTES,
    BlobStore,
    ListedObject,
    ObjectExists,
    ObjectMissing,
    StrangerStore,
    blob_key,
)
from agentsight.server.ids import AgentId, new_uid
from tests.server.blobs.stores import INSTANCE, KINDS, open_kind

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    """Give each kind of store, marked and empty."""
    seaweed = None if request.param == "local" else request.getfixturevalue("seaweed")
    async with open_kind(request.param, tmp_path, seaweed) as made:
        yield made


def new_key(agent_id: int = 1) -> str:
    """Make a key that nobody has."""
    return blob_key(AgentId(agent_id), new_uid(1_700_000_000_000_000))


async def put(store: BlobStore, data: bytes, *, key: str | None = None, step: int = 65_536) -> str:
    """Store `data` in pieces and return its key."""
    key = key or new_key()
    async with await store.create(key) as writer:
        for start in range(0, len(data), step):
            await writer.write(memoryview(data)[start : start + step])
        await writer.finish()
    return key


async def get(store: BlobStore, key: str, start: int = 0, end: int | None = None) -> bytes:
    """Read a range."""
    async with await store.read(key, start, end) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def listed(store: BlobStore, prefix: str) -> list[ListedObject]:
    """List a folder in order of its keys."""
    return sorted([item async for item in store.list_objects(prefix)], key=lambda item: item.key)


@pytest.mark.parametrize(
    "size", [0, 1, HEAD_BYTES, HEAD_BYTES + 1, 1 << 20, (5 << 20) + 7, 8 << 20, (17 << 20) + 1]
)
async def test_what_was_written_comes_back_with_size_hash_and_head(
    store: BlobStore, size: int
) -> None:
    """Bytes of any size are read back exactly, and described truly."""
    data = os.urandom(size)
    key = new_key()
    async with await store.create(key) as writer:
        for start in range(0, size, 70_001):
            await writer.write(data[start : start + 70_001])
        assert writer.size_bytes == size
        stored = await writer.finish()
    assert (stored.size_bytes, stored.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert stored.head == data[:HEAD_BYTES]
    assert await get(store, key) == data
    assert await store.size(key) == size
    assert await store.read_whole(key, max_bytes=size) == data


@given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=40))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_how_the_bytes_are_cut_makes_no_difference(
    store: BlobStore, data: bytes, cuts: list[int]
) -> None:
    """Any pieces, empty ones too, give the same object."""
    edges = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    key = new_key()
    async with await store.create(key) as writer:
        for start, end in pairwise(edges):
            await writer.write(memoryview(data)[start:end])
        stored = await writer.finish()
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert await get(store, key) == data


async def test_thousands_of_tiny_pieces_are_stored(store: BlobStore) -> None:
    """A sender of single bytes is slow, not wrong."""
    data = os.urandom(3000)
    assert await get(store, await put(store, data, step=1)) == data


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 0),
        (0, 1),
        (10, 20),
        (2_499_999, None),
        (2_500_000, None),
        (9_999_999, None),
        (1_000_000, 2_200_000),
        (0, 99_999_999),
        (2_000_000, 99_999_999),
    ],
)
async def test_a_range_is_read_as_a_slice(store: BlobStore, start: int, end: int | None) -> None:
    """`[start, end)` means what a slice means, past the end too, and tells the whole size."""
    data = os.urandom(2_500_000)
    key = await put(store, data)
    assert await get(store, key, start, end) == data[start:end]
    async with await store.read(key, start, end) as chunks:
        assert chunks.size_bytes == len(data)


async def test_a_range_backwards_is_refused(store: BlobStore) -> None:
    """A range that ends before it starts, or starts before the start, is the caller's fault."""
    key = await put(store, b"abc")
    for start, end in [(2, 1), (-1, 2)]:
        with pytest.raises(ValueError, match="range"):
            await store.read(key, start, end)


async def test_nothing_is_seen_before_finish(store: BlobStore) -> None:
    """An object under way cannot be read, sized or listed."""
    key = new_key()
    async with await store.create(key) as writer:
        await writer.write(b"x" * (3 << 20))
        assert await store.size(key) is None
        assert await listed(store, "blobs/") == []
        with pytest.raises(ObjectMissing):
            await store.read(key)
        await writer.finish()
    assert await store.size(key) == 3 << 20


async def test_leaving_without_finish_leaves_nothing(store: BlobStore) -> None:
    """A writer that is left early, or by an error, takes its bytes with it."""

    async def fail(key: str) -> None:
        async with await store.create(key) as writer:
            await writer.write(b"x" * (3 << 20))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail(new_key())
    async with await store.create(new_key()) as writer:
        await writer.write(b"y")
    assert await listed(store, "blobs/") == []


async def test_a_cancelled_writer_leaves_nothing(store: BlobStore) -> None:
    """Cancelling at any of the first awaits of a write leaves no object."""
    for n_turns in range(12):
        key = new_key()
        task = asyncio.create_task(put(store, b"z" * (4 << 20), key=key))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if task.cancelled():
            assert await store.size(key) is None
        else:
            await store.delete(key)
    assert await listed(store, "blobs/") == []


async def test_a_writer_is_used_once(store: BlobStore) -> None:
    """After finish, neither bytes nor a second finish are taken."""
    async with await store.create(new_key()) as writer:
        await writer.write(b"a")
        await writer.finish()
        with pytest.raises(RuntimeError, match="finished"):
            await writer.write(b"b")
        with pytest.raises(RuntimeError, match="finished"):
            await writer.finish()


async def test_objects_are_never_overwritten(store: BlobStore) -> None:
    """A second object under a key is refused, and the first is untouched."""
    key = await put(store, b"first")
    with pytest.raises(ObjectExists):
        await put(store, b"second", key=key)
    assert await get(store, key) == b"first"


async def test_of_two_writers_of_one_key_one_wins(store: BlobStore) -> None:
    """However they race, one object is whole and the other writer is told."""
    key = new_key()
    results = await asyncio.gather(
        *(put(store, bytes([n]) * 100_000, key=key) for n in range(8)), return_exceptions=True
    )
    winners = [n for n, result in enumerate(results) if result == key]
    assert len(winners) == 1
    assert sum(isinstance(result, ObjectExists) for result in results) == 7
    assert await get(store, key) == bytes(winners) * 100_000


async def test_a_missing_object_is_told_before_the_first_chunk(store: BlobStore) -> None:
    """Reading what is not there fails at once; asking its size is an ordinary question."""
    with pytest.raises(ObjectMissing):
        await store.read(new_key())
    with pytest.raises(ObjectMissing):
        await store.read_whole(new_key(), max_bytes=10)
    assert await store.size(new_key()) is None


async def test_deleting_a_missing_object_is_not_an_error(store: BlobStore) -> None:
    """Deleting twice, or what never was, changes nothing."""
    key = await put(store, b"gone soon")
    await store.delete(key)
    await store.delete(key)
    await store.delete(new_key(77))
    assert await store.size(key) is None


async def test_a_key_can_be_read_while_it_is_deleted(store: BlobStore) -> None:
    """A reader that has begun ends with the right bytes or an error, never with fewer."""
    data = os.urandom(4 << 20)
    key = await put(store, data)
    async with await store.read(key) as chunks:
        first = await anext(aiter(chunks))
        await store.delete(key)
        rest = b"".join([chunk async for chunk in chunks])
    assert first + rest == data


async def test_a_reader_may_leave_early(store: BlobStore) -> None:
    """Leaving in the middle ends the iteration and frees the object for deletion."""
    key = await put(store, os.urandom(4 << 20))
    async with await store.read(key) as chunks:
        await anext(aiter(chunks))
    assert [chunk async for chunk in chunks] == []
    await store.delete(key)


async def test_a_small_read_has_a_limit(store: BlobStore) -> None:
    """`read_whole` never holds more than the caller allows."""
    key = await put(store, b"12345")
    with pytest.raises(ValueError, match="more than 4"):
        await store.read_whole(key, max_bytes=4)


async def test_a_folder_lists_its_objects_only(store: BlobStore) -> None:
    """A prefix is a folder: agent 1 is not agent 11."""
    keys = sorted(
        [await put(store, b"a" * n, key=new_key(agent)) for n, agent in enumerate([1, 1, 11])]
    )
    assert [item.key for item in await listed(store, "blobs/")] == keys
    assert {item.key for item in await listed(store, "blobs/11/")} == {
        key for key in keys if key.startswith("blobs/11/")
    }
    assert sorted(item.size_bytes for item in await listed(store, "blobs/1/")) == [0, 1]
    assert all(item.modified_at_us > 0 for item in await listed(store, "blobs/"))
    assert await listed(store, "blobs/404/") == []
    with pytest.raises(ValueError, match="prefix"):
        await listed(store, "blobs/1")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "/a",
        ".hidden",
        "a/.b",
        "A",
        "a\0b",
        "a b",
        "a\n",
        "é",
        "a\\b",
        "a/b/c/d/e/f/g/h/i",
        "x" * 129,
    ],
)
async def test_what_is_not_a_key_is_refused(store: BlobStore, key: str) -> None:
    """No text but a key reaches the store, whatever is asked of it."""
    with pytest.raises(ValueError, match="not an object key"):
        await store.create(key)
    for ask in (store.read, store.delete, store.size):
        with pytest.raises(ValueError, match="not an object key"):
            await ask(key)
    with pytest.raises(ValueError, match="not an object key"):
        store.local_path(key)


async def test_the_marker_says_whose_bytes_these_are(store: BlobStore) -> None:
    """Marking again is no change; marking for another instance is refused."""
    assert await store.read_marker() == INSTANCE
    await store.write_marker(INSTANCE)
    with pytest.raises(StrangerStore, match=INSTANCE):
        await store.write_marker("0190a0b0-0000-7000-8000-000000000002")
    assert await store.read_marker() == INSTANCE


async def test_the_check_leaves_nothing_behind(store: BlobStore) -> None:
    """Proving that the store works changes nothing in it."""
    before = await listed(store, "")
    await store.check()
    assert await listed(store, "") == before


async def test_many_objects_at_once(store: BlobStore) -> None:
    """Concurrent writers and readers do not mix their bytes."""
    contents = [os.urandom(50_000 + n) for n in range(40)]
    keys = await asyncio.gather(*(put(store, data) for data in contents))
    assert await asyncio.gather(*(get(store, key) for key in keys)) == contents
