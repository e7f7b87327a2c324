"""What the local store promises beyond the interface: syncs, crashes, disks away or full."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentsight.server.blobs import (
    LocalBlobStore,
    StorageFull,
    StorageUnavailable,
    blob_key,
)
from agentsight.server.ids import AgentId, new_uid

pytestmark = pytest.mark.anyio

INSTANCE = "0190a0b0-0000-7000-8000-000000000001"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Name the store's directory."""
    return tmp_path / "files"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[LocalBlobStore]:
    """Give a marked store."""
    made = LocalBlobStore(root)
    await made.write_marker(INSTANCE)
    yield made
    await made.close()


def new_key() -> str:
    """Make a key that nobody has."""
    return blob_key(AgentId(3), new_uid(1_700_000_000_000_000))


async def put(store: LocalBlobStore, key: str, data: bytes) -> None:
    """Store bytes."""
    async with await store.create(key) as writer:
        await writer.write(data)
        await writer.finish()


def n_open_files() -> int:
    """Count this process's descriptors."""
    return len(os.listdir("/proc/self/fd"))


def forget(things: list[Any]) -> None:
    """Drop the last references to things."""
    things.clear()
    gc.collect()


class Syncs:
    """Records what was synced and linked below a directory, in order, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.events: list[tuple[str, str]] = []
        fsync, link = os.fsync, os.link

        def recorded_fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.startswith(str(root)):
                self.events.append(("sync", path))
            fsync(descriptor)

        def recorded_link(source: str, target: str) -> None:
            if target.startswith(str(root)):
                self.events.append(("link", target))
            link(source, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "link", recorded_link)


async def test_bytes_then_name_then_folder_are_synced(
    store: LocalBlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are on the disk before the name is, and the name before anyone hears of it."""
    syncs = Syncs(monkeypatch, root)
    key = new_key()
    await put(store, key, b"x")
    path = store.local_path(key)
    kinds = [(kind, Path(where)) for kind, where in syncs.events]
    assert kinds[0][0] == "sync"
    assert kinds[0][1].parent == root / "tmp"
    assert kinds[1:4] == [
        ("sync", root),
        ("sync", root / "blobs"),
        ("sync", root / "blobs" / "3"),
    ]
    assert kinds[4:] == [("link", path), ("sync", path.parent)]


async def test_folders_made_by_others_are_synced_too(
    store: LocalBlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may not have synced the folder that it just made."""
    key = new_key()
    store.local_path(key).parent.mkdir(parents=True)
    syncs = Syncs(monkeypatch, root)
    await put(store, key, b"x")
    assert ("sync", str(root / "blobs" / "3")) in syncs.events


async def test_a_deletion_is_synced(
    store: LocalBlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted does not come back after a crash."""
    key = new_key()
    await put(store, key, b"x")
    syncs = Syncs(monkeypatch, root)
    await store.delete(key)
    assert syncs.events == [("sync", str(store.local_path(key).parent))]


async def test_benchmarks_may_leave_out_the_syncs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`durable=False` syncs nothing and stores the same."""
    store = LocalBlobStore(root, durable=False)
    await store.write_marker(INSTANCE)
    syncs = Syncs(monkeypatch, root)
    key = new_key()
    await put(store, key, b"x")
    assert [kind for kind, _ in syncs.events] == ["link"]
    assert await store.read_whole(key, max_bytes=1) == b"x"
    await store.close()


CRASH = """
import asyncio, os, sys
from pathlib import Path
from typing import Any
from agentsight.server.blobs import LocalBlobStore

async def main() -> None:
    store = LocalBlobStore(Path(sys.argv[1]))
    os_name, n_calls = sys.argv[3], int(sys.argv[4])
    real = getattr(os, os_name)
    def dying(*args, **kwargs):
        nonlocal n_calls
        n_calls -= 1
        if n_calls < 0:
            os._exit(9)
        return real(*args, **kwargs)
    setattr(os, os_name, dying)
    async with await store.create(sys.argv[2]) as writer:
        for _ in range(40):
            await writer.write(b"q" * 100_000)
        await writer.finish()
    print("stored")

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "n_calls"),
    [
        ("writev", 0),
        ("writev", 2),
        ("fsync", 0),
        ("mkdir", 0),
        ("mkdir", 2),
        ("link", 0),
        ("unlink", 0),
        ("fsync", 1),
        ("fsync", 4),
    ],
)
async def test_a_crash_leaves_all_or_nothing(
    store: LocalBlobStore, root: Path, call: str, n_calls: int
) -> None:
    """A process that dies at any call leaves a whole object or none, and the rest can be swept."""
    key = new_key()
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CRASH, str(root), key, call, str(n_calls)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (died.returncode, died.stdout) == (9, ""), died.stderr
    assert await store.size(key) in (None, 4_000_000)
    assert len(os.listdir(root / "tmp")) <= 1
    assert await store.sweep(older_than_s=3600) == 0
    assert await store.count_leftovers(older_than_s=3600) == (0, 0)
    for path in (root / "tmp").iterdir():
        os.utime(path, (0, 0))
        found = await store.count_leftovers(older_than_s=3600)
        assert found == (1, path.stat().st_size)
        assert await store.sweep(older_than_s=3600) == 1
    assert os.listdir(root / "tmp") == []


async def test_a_disk_that_is_not_mounted_is_not_an_empty_store(tmp_path: Path) -> None:
    """Without its directory the store is unavailable, for every question, and makes nothing."""
    store = LocalBlobStore(tmp_path / "away")
    key = new_key()
    for ask in (store.read(key), store.size(key), store.delete(key), store.check()):
        with pytest.raises(StorageUnavailable) as caught:
            await ask
        assert caught.value.status == 503
    with pytest.raises(StorageUnavailable):
        await put(store, key, b"x")
    with pytest.raises(StorageUnavailable):
        await store.read_marker()
    with pytest.raises(StorageUnavailable):
        _ = [item async for item in store.list_objects("")]
    assert not (tmp_path / "away").exists()
    await store.close()


@pytest.mark.parametrize("call", ["writev", "fsync", "link", "open"])
async def test_a_full_disk_is_told_as_such(
    store: LocalBlobStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """No room, wherever it is noticed, is 503 and leaves nothing behind."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    key = new_key()
    n_files = n_open_files()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageFull) as caught:
            await put(store, key, b"x" * (3 << 20))
    assert caught.value.status == 503
    assert await store.size(key) is None
    assert not (root / "tmp").exists() or os.listdir(root / "tmp") == []
    assert n_open_files() == n_files


async def test_a_write_that_stops_short_is_continued(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may take fewer bytes than it was given."""
    real = os.writev

    def short(descriptor: int, chunks: list[bytes]) -> int:
        return real(descriptor, [bytes(chunks[0])[:1000]])

    monkeypatch.setattr(os, "writev", short)
    key = new_key()
    data = os.urandom(300_000)
    async with await store.create(key) as writer:
        for start in range(0, len(data), 50_000):
            await writer.write(data[start : start + 50_000])
        await writer.finish()
    assert await store.read_whole(key, max_bytes=len(data)) == data


async def test_a_link_in_an_objects_place_is_not_followed(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    """Nobody reads another file through the store, and a folder or a pipe is not an object."""
    (tmp_path / "secret").write_text("secret")
    key = new_key()
    path = store.local_path(key)
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(StorageUnavailable):
        await store.read(key)
    assert await store.size(key) is None
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StorageUnavailable, match="not a file"):
        await store.read(key)
    assert [item async for item in store.list_objects("blobs/")] == []


async def test_a_file_that_shrinks_under_a_reader_is_an_error(store: LocalBlobStore) -> None:
    """A reader gets all bytes or an error, never a quiet end."""
    key = new_key()
    await put(store, key, b"x" * (5 << 20))
    async with await store.read(key) as chunks:
        await anext(aiter(chunks))
        os.truncate(store.local_path(key), 100)
        with pytest.raises(StorageUnavailable, match="shorter"):
            _ = [chunk async for chunk in chunks]


async def test_folders_that_vanish_are_made_again(store: LocalBlobStore, root: Path) -> None:
    """What the store remembers of its folders may be wrong, and then it looks again."""
    key = new_key()
    await put(store, key, b"x")
    await store.delete(key)
    store.local_path(key).parent.rmdir()
    (root / "tmp").rmdir()
    await put(store, key, b"y")
    assert await store.read_whole(key, max_bytes=1) == b"y"


async def test_no_descriptor_is_left_open(store: LocalBlobStore) -> None:
    """Finished, aborted, cancelled and half-read: every file is closed."""
    key = new_key()
    await put(store, key, b"x" * (6 << 20))
    before = n_open_files()
    for n_turns in range(10):
        task = asyncio.create_task(store.read_whole(key, max_bytes=1 << 30))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with await store.read(key) as chunks:
        await anext(aiter(chunks))
    async with await store.create(new_key()) as writer:
        await writer.write(b"y" * (3 << 20))
    # Threads close what they were using when they are done with it.
    await asyncio.gather(*(store.size(key) for _ in range(64)))
    await store.close()
    assert n_open_files() == before


async def test_a_forgotten_stream_warns(root: Path) -> None:
    """Whoever forgets to close a stream is told, and the file is closed all the same."""
    store = LocalBlobStore(root, n_threads=1)
    await store.write_marker(INSTANCE)
    key = new_key()
    await put(store, key, b"x" * (6 << 20))
    before = n_open_files()
    streams = [await store.read(key)]
    await store.size(key)  # the one thread has let go of the stream
    with pytest.warns(ResourceWarning, match="unclosed stream"):
        forget(streams)
    assert n_open_files() == before
    await store.close()


async def test_a_forgotten_writer_warns(root: Path) -> None:
    """Whoever forgets to leave a writer is told, and nothing stays."""
    store = LocalBlobStore(root, n_threads=1)
    await store.write_marker(INSTANCE)
    writers = [await store.create(new_key())]
    await writers[0].write(b"x" * (2 << 20))
    await store.check()  # the one thread has written the batch and let go of the writer
    with pytest.warns(ResourceWarning, match="unfinished writer"):
        forget(writers)
    assert os.listdir(root / "tmp") == []
    await store.close()


async def test_files_are_not_for_the_world(store: LocalBlobStore) -> None:
    """Other users of the machine cannot read what was stored."""
    key = new_key()
    await put(store, key, b"x")
    assert store.local_path(key).stat().st_mode & 0o007 == 0
    assert store.local_path(key).parent.stat().st_mode & 0o007 == 0
