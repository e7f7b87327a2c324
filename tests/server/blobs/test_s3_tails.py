"""What a short visit to a large object costs in an object store: what it brings, no more."""

from __future__ import annotations

import asyncio
import os
import re
import time
import tracemalloc
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.blobs import ObjectMissing, StorageUnavailable
from agentsight.server.blobs.s3 import S3BlobStore
from agentsight.server.blobs.s3_bucket import Listed
from agentsight.server.blobs.s3_spool import Slots
from agentsight.server.blobs.s3_tails import bytes_of, count_kept, new_name
from agentsight.server.blobs.s3_writers import S3PartsWriter
from tests.server.blobs.stores import s3_store
from tests.server.blobs.test_parts import bring_all, visit
from tests.server.blobs.test_promises import get, new_key
from tests.support.meddler import meddling_with
from tests.support.seaweed import Seaweed

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
MIB = 1 << 20
LARGE = 7 * MIB


@pytest.fixture
async def store(seaweed: Seaweed, tmp_path: Path) -> AsyncIterator[S3BlobStore]:
    """Give a store in a folder of its own."""
    made = s3_store(seaweed, spool_dir=tmp_path)
    yield made
    await made.close()


async def test_a_byte_behind_a_large_tail_costs_a_byte(seaweed: Seaweed, tmp_path: Path) -> None:
    """A visit neither fetches nor sends what earlier ones have brought."""
    async with meddling_with(seaweed.endpoint) as meddler:
        store = s3_store(seaweed, spool_dir=tmp_path, AWS_ENDPOINT_URL=meddler.endpoint)
        n_sent: list[int] = []
        read: list[str] = []

        def look(head: str) -> None:
            length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
            n_sent.append(int(length[1]) if head.startswith("PUT") and length else 0)
            if head.startswith("GET") and f"-{LARGE}-" in head.partition("\r\n")[0]:
                read.append(head)

        key, data = new_key(), os.urandom(LARGE)
        offset, state = await visit(store, key, "", data)
        meddler.answer = look  # answers nothing itself
        for n in range(10):
            data += b"x"
            offset, state = await visit(store, key, state, b"x")
            assert offset == LARGE + n + 1
        assert sum(n_sent) < 100
        assert read == []
        await bring_all(store, key, data, state, offset)
        assert len(read) == 1
        assert await get(store, key) == data
        await store.close()


async def test_tails_pass_through_files_and_not_through_memory(store: S3BlobStore) -> None:
    """Many who go on behind large tails, and many who end there, hold a few batches each."""
    data, n_uploads = os.urandom(LARGE), 12
    keys = [new_key() for _ in range(n_uploads)]
    stands = await asyncio.gather(*(visit(store, key, "", data) for key in keys))
    tracemalloc.start()
    try:
        stands = await asyncio.gather(
            *(visit(store, key, state, b"x") for key, (_, state) in zip(keys, stands, strict=True))
        )
        rest = [
            store.resume_parts(key, state) for key, (_, state) in zip(keys, stands, strict=True)
        ]
        for writer in await asyncio.gather(*rest):
            async with writer:
                await writer.finish()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n_uploads * MIB
    assert await get(store, keys[-1]) == data + b"x"


@pytest.mark.parametrize("sizes", [[1] * 40, [3 * MIB] * 6, [5 * MIB, 4 * MIB, 9 * MIB, 1, 1]])
async def test_visits_of_any_size_make_one_object(store: S3BlobStore, sizes: list[int]) -> None:
    """However bytes are cut into visits, nothing is lost between them, and the order is kept."""
    key, data, offset, state = new_key(), os.urandom(sum(sizes)), 0, ""
    for size in sizes:
        offset, state = await visit(store, key, state, data[offset : offset + size])
    assert offset == len(data)
    await bring_all(store, key, data, state, offset)
    assert await get(store, key) == data
    assert [item.key async for item in store._bucket.list(f"tmp/{key}/")] == []


async def test_a_visit_that_nobody_noted_changes_nothing(store: S3BlobStore) -> None:
    """Tails that were stored anew stay until the state that names the new one is kept."""
    key, data = new_key(), os.urandom(4000)
    _, state = await visit(store, key, "", data[:1000])
    await visit(store, key, state, b"lost" * 500)
    offset, state = await visit(store, key, state, data[1000:])
    assert offset == len(data)
    await bring_all(store, key, data, state, offset)
    assert await get(store, key) == data


async def test_writing_goes_on_behind_a_pause(store: S3BlobStore) -> None:
    """A pause within a visit stores what has come, and the visit goes on."""
    key, data = new_key(), os.urandom(9 * MIB)
    async with await store.resume_parts(key, "") as writer:
        for start in range(0, len(data), 3 * MIB):
            await writer.write(data[start : start + 3 * MIB])
            await writer.pause()
            assert writer.offset == start + 3 * MIB
        await writer.finish()
    assert await get(store, key) == data


async def test_a_tail_that_is_lost_ends_the_upload(store: S3BlobStore) -> None:
    """The next visit is told to begin again; one that is under way says that the store failed."""
    key = new_key()
    _, state = await visit(store, key, "", b"x" * 1000)
    async with await store.resume_parts(key, state) as writer:
        async for tail in store._bucket.list(f"tmp/{key}/"):
            await store._bucket.delete(tail.key)
        with pytest.raises(StorageUnavailable):
            await writer.finish()
    with pytest.raises(ObjectMissing):
        await store.resume_parts(key, state)


async def test_a_long_visit_stores_a_tail_now_and_then(
    store: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends slowly for hours loses minutes, and is not swept away meanwhile."""
    key = new_key()
    async with await store.resume_parts(key, "") as writer:
        assert isinstance(writer, S3PartsWriter)
        await writer.write(b"x" * 1000)
        await writer.sync()
        assert writer.offset == 0
        monkeypatch.setattr(writer, "_now_s", lambda: writer._tailed_s + 601)
        await writer.sync()
        assert writer.offset == 1000


async def test_old_tails_of_an_upload_under_way_are_not_swept(
    store: S3BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload is as old as its last tail: those before are not older than it."""
    now_us = time.time_ns() // 1000
    ages_s = {"tmp/blobs/1/aa/a/0-9-a": 9000, "tmp/blobs/1/aa/a/0-1-b": 10, "tmp/b/0-9-c": 9000}

    async def listed(prefix: str) -> AsyncIterator[Listed]:
        for key, age_s in ages_s.items():
            if key.startswith(prefix):
                yield Listed(key, 9, now_us - age_s * 1_000_000)

    monkeypatch.setattr(store._bucket, "list", listed)
    assert await store._leftovers(older_than_s=3600) == ([], [("tmp/b/0-9-c", 9)])


# --- Rules ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=200))
def test_a_part_has_few_tails_and_a_byte_is_stored_few_times(sizes: list[int]) -> None:
    """Whatever visits bring: nothing is lost, each tail is twice the next, the cost is bound."""
    tails: list[str] = []
    n_stored = 0
    for size in sizes:
        n_kept = count_kept(tails, size)
        joined = bytes_of(tails[n_kept:]) + size
        tails = [*tails[:n_kept], new_name(0, joined)]
        n_stored += joined
    lengths = [bytes_of([name]) for name in tails]
    assert sum(lengths) == sum(sizes)
    assert all(one >= 2 * other for one, other in pairwise(lengths))
    assert n_stored <= 40 * sum(sizes)


async def test_an_agent_takes_its_share_of_the_line_and_no_more() -> None:
    """Others are served while one agent's many uploads wait for each other."""
    slots, order, may_end = Slots(4, 2), list[str](), asyncio.Event()

    async def work(key: str) -> None:
        async with slots.turn(key):
            order.append(key)
            await may_end.wait()

    tasks = [asyncio.create_task(work(f"blobs/1/aa/{n}")) for n in range(10)]
    await asyncio.sleep(0)
    other = asyncio.create_task(work("blobs/2/aa/x"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert order == ["blobs/1/aa/0", "blobs/1/aa/1", "blobs/2/aa/x"]
    may_end.set()
    await asyncio.gather(other, *tasks)
    assert len(order) == 11
