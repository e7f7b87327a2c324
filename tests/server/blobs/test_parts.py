"""What every store promises of objects that come over several visits; one suite, run on each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentsight.server.blobs import (
    BlobStore,
    LocalBlobStore,
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
)
from agentsight.server.uploads.hashes import HashKeeper, RunningHash
from tests.server.blobs.stores import KINDS, open_kind
from tests.server.blobs.test_promises import get, listed, new_key

pytestmark = pytest.mark.anyio
MIB = 1 << 20


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    """Give each kind of store, marked and empty."""
    seaweed = None if request.param == "local" else request.getfixturevalue("seaweed")
    async with open_kind(request.param, tmp_path, seaweed) as made:
        yield made


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalBlobStore]:
    """Give a local store, whose files tests look at."""
    async with open_kind("local", tmp_path, None) as made:
        assert isinstance(made, LocalBlobStore)
        yield made


async def visit(
    store: BlobStore, key: str, state: str, data: bytes, hasher: RunningHash | None = None
) -> tuple[int, str]:
    """Bring bytes in one visit, and return where the next one goes on."""
    async with await store.resume_parts(key, state, hasher=hasher) as writer:
        for start in range(0, len(data), 70_001):
            await writer.write(memoryview(data)[start : start + 70_001])
        await writer.pause()
    return writer.offset, writer.state


async def bring_all(store: BlobStore, key: str, data: bytes, state: str = "", at: int = 0) -> None:
    """Bring the rest and finish."""
    async with await store.resume_parts(key, state) as writer:
        assert writer.offset == at
        await writer.write(data[at:])
        await writer.finish()


@pytest.mark.parametrize("size", [0, 1, 70_001, 9 * MIB + 5])
async def test_one_visit_brings_a_whole_object(store: BlobStore, size: int) -> None:
    """An object that comes in one go is read back exactly, and its hash was kept running."""
    data, key, running = os.urandom(size), new_key(), RunningHash()
    async with await store.resume_parts(key, "", hasher=running) as writer:
        await writer.write(data)
        await writer.finish()
    assert await get(store, key) == data
    assert running.hexdigest() == hashlib.sha256(data).hexdigest()
    assert (running.n_bytes, running.head) == (size, data[:8192])


async def test_visits_go_on_where_the_last_one_ended(store: BlobStore) -> None:
    """Bytes over several visits, each from the offset that is durable, make one object."""
    data, key = os.urandom(20 * MIB + 12_345), new_key()
    offset, state, n_visits = 0, "", 0
    running: RunningHash | None = RunningHash()
    while offset < 17 * MIB:
        offset_before = offset
        offset, state = await visit(store, key, state, data[offset : offset + 9 * MIB], running)
        assert offset > offset_before
        assert running is not None
        assert running.back_to(offset), "a hash is known at the end of every part"
        n_visits += 1
    assert n_visits > 1
    async with await store.resume_parts(key, state, hasher=running) as writer:
        assert writer.offset == offset
        await writer.write(data[offset:])
        await writer.finish()
    assert await get(store, key) == data
    assert running is not None
    assert running.hexdigest() == hashlib.sha256(data).hexdigest()


async def test_an_unfinished_object_is_seen_by_nobody(store: BlobStore) -> None:
    """Before `finish` there is nothing under the key, in no listing, and no size."""
    key = new_key()
    await visit(store, key, "", os.urandom(9 * MIB))
    assert await store.size(key) is None
    assert await listed(store, "blobs/") == []
    with pytest.raises(ObjectMissing):
        await store.read(key)


async def test_bytes_beyond_what_was_noted_are_sent_again(store: BlobStore) -> None:
    """After a crash the noted state counts; what had come after it is written anew."""
    data, key = os.urandom(19 * MIB), new_key()
    offset, state = await visit(store, key, "", data[: 8 * MIB])
    # This visit's end is never noted anywhere: as if the process had died.
    await visit(store, key, state, os.urandom(8 * MIB))
    await bring_all(store, key, data, state, offset)
    assert await get(store, key) == data


async def test_an_abandoned_object_is_gone_and_can_be_begun_again(store: BlobStore) -> None:
    """Abandoning removes what was there; doing it twice, or to nothing, is not an error."""
    data, key = os.urandom(9 * MIB), new_key()
    _, state = await visit(store, key, "", os.urandom(9 * MIB))
    for _ in range(2):
        await store.abandon_parts(key, state)
    await store.abandon_parts(new_key(), "")
    with pytest.raises(ObjectMissing):
        await visit(store, key, state, data)
    await bring_all(store, key, data)
    assert await get(store, key) == data


async def test_a_key_that_is_taken_is_refused(store: BlobStore) -> None:
    """Finishing never overwrites an object."""
    key = new_key()
    await bring_all(store, key, b"first")
    async with await store.resume_parts(key, "") as writer:
        await writer.write(b"second")
        with pytest.raises(ObjectExists):
            await writer.finish()
    assert await get(store, key) == b"first"


async def test_leaving_pauses(store: BlobStore) -> None:
    """Leaving the context without a word keeps what can be kept."""
    data, key = os.urandom(9 * MIB), new_key()
    async with await store.resume_parts(key, "") as writer:
        await writer.write(data)
    assert writer.offset >= 8 * MIB
    await bring_all(store, key, data, writer.state, writer.offset)
    assert await get(store, key) == data


async def test_what_is_synced_in_between_is_durable_and_hashed_once(store: BlobStore) -> None:
    """Slow senders' bytes are made durable while they are sent, where that costs little."""
    data, key, running = os.urandom(9 * MIB), new_key(), RunningHash()
    async with await store.resume_parts(key, "", hasher=running) as writer:
        for start in range(0, len(data), MIB):
            await writer.write(data[start : start + MIB])
            before = writer.offset
            await writer.sync()
            assert before <= writer.offset <= start + MIB
            if isinstance(store, LocalBlobStore):
                assert (writer.offset, writer.state) == (start + MIB, str(start + MIB))
        await writer.finish()
    assert await get(store, key) == data
    assert running.hexdigest() == hashlib.sha256(data).hexdigest()


# --- The local store ------------------------------------------------------------------------------


def unfinished(store: LocalBlobStore) -> list[Path]:
    """Return the files in `tmp/`."""
    return sorted((store.local_path("tmp")).glob("*"))


async def test_a_second_writer_of_a_file_is_refused(local: LocalBlobStore) -> None:
    """Whatever its caller's lease says, a file has one writer."""
    key = new_key()
    async with await local.resume_parts(key, "") as writer:
        await writer.write(b"abc")
        for state in ("", "0"):
            with pytest.raises(ObjectBusy):
                await local.resume_parts(key, state)
        with pytest.raises(ObjectBusy):
            await local.abandon_parts(key, "")
        await writer.finish()
    assert await get(local, key) == b"abc"


async def test_a_file_that_lost_bytes_is_begun_again(local: LocalBlobStore) -> None:
    """A file shorter than what was promised to be durable is not gone on with."""
    key = new_key()
    _, state = await visit(local, key, "", os.urandom(MIB))
    os.truncate(unfinished(local)[0], 1000)
    with pytest.raises(ObjectMissing):
        await local.resume_parts(key, state)


async def test_a_crash_between_name_and_row_leaves_the_object_untouched(
    local: LocalBlobStore,
) -> None:
    """A file that has its name already, and its old one still, is never cut or written again."""
    data, key = os.urandom(MIB), new_key()
    _, state = await visit(local, key, "", data)
    (partial,) = unfinished(local)
    final = local.local_path(key)
    final.parent.mkdir(parents=True)
    os.link(partial, final)
    with pytest.raises(ObjectMissing):
        await local.resume_parts(key, state)
    assert await get(local, key) == data
    assert unfinished(local) == []


async def test_the_sweep_knows_how_long_an_upload_may_pause(local: LocalBlobStore) -> None:
    """A file is removed when nobody has written to it for the stated time, and not before."""
    key = new_key()
    _, state = await visit(local, key, "", b"x" * 1000)
    (partial,) = unfinished(local)
    two_days_ago = partial.stat().st_mtime - 48 * 3600
    os.utime(partial, (two_days_ago, two_days_ago))
    assert await local.sweep(older_than_s=72 * 3600) == 0
    assert await local.sweep(older_than_s=24 * 3600) == 1
    with pytest.raises(ObjectMissing):
        await local.resume_parts(key, state)


async def test_a_directory_has_no_door_of_its_own(local: LocalBlobStore) -> None:
    """The local store makes no presigned links."""
    assert await local.presigned_url(new_key(), expires_s=60, headers={}) is None


# --- Running hashes -------------------------------------------------------------------------------


def test_a_hash_goes_back_to_the_end_of_a_part_only() -> None:
    """Between two ends of parts nothing is known, and an old end is forgotten."""
    data = os.urandom(8 * MIB)
    running = RunningHash()
    for _ in range(6):
        running.update(data)
    running.update(b"more")
    assert not running.back_to(48 * MIB + 1)
    assert not running.back_to(8 * MIB)
    assert running.back_to(40 * MIB)
    assert running.hexdigest() == hashlib.sha256(data * 5).hexdigest()


def test_few_hashes_are_kept_and_only_where_they_stand() -> None:
    """The keeper forgets the oldest, and hands out a hash for its own offset only."""
    keeper = HashKeeper(max_kept=2)
    for uid in "abc":
        running = RunningHash()
        running.update(b"12345")
        keeper.keep(uid, running)
    assert keeper.take("a", 5) is None
    assert keeper.take("b", 4) is None
    assert keeper.take("c", 5) is not None
    fresh = keeper.take("c", 0)
    assert fresh is not None
    assert fresh.n_bytes == 0
