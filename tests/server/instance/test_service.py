"""Database and store belong together, or the start is refused."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentsight.server.blobs import LocalBlobStore, StrangerStore
from agentsight.server.db import Database, Tx, open_database
from agentsight.server.ids import new_uid
from agentsight.server.instance import store
from agentsight.server.instance.service import STORE_KEY, check_instance, join_instance
from tests.server.agents.world import NOW_US

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give an empty directory for files."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
async def blobs(anyio_backend: str, root: Path) -> AsyncIterator[LocalBlobStore]:
    """Open a store in it."""
    opened = LocalBlobStore(root)
    yield opened
    await opened.close()


async def test_the_first_start_marks_the_store(db: Database, blobs: LocalBlobStore) -> None:
    """The uid stands on both sides, and later starts find it."""
    uid = await join_instance(db, blobs, now_us=NOW_US)
    assert await blobs.read_marker() == uid
    assert await join_instance(db, blobs, now_us=NOW_US + 1) == uid
    assert await check_instance(db, blobs) == uid


async def test_starts_side_by_side_agree(db: Database, blobs: LocalBlobStore) -> None:
    """Eight at once on an empty database and store end up with one uid."""
    uids = await asyncio.gather(*(join_instance(db, blobs, now_us=NOW_US + n) for n in range(8)))
    assert len(set(uids)) == 1


async def test_a_new_database_on_an_old_store_is_refused(
    db: Database, blobs: LocalBlobStore
) -> None:
    """Another instance's files are not adopted, and the database stays without a uid."""
    await blobs.write_marker("01a2b3c4-0000-7000-8000-000000000000")
    for _ in range(2):
        with pytest.raises(StrangerStore, match="this database is a new one"):
            await join_instance(db, blobs, now_us=NOW_US)


async def test_an_empty_store_under_an_old_database_is_refused(
    db: Database, blobs: LocalBlobStore, tmp_path: Path
) -> None:
    """A wrong directory, an emptied bucket or a second host: nothing is marked, nothing served."""
    await join_instance(db, blobs, now_us=NOW_US)
    (tmp_path / "other").mkdir()
    other = LocalBlobStore(tmp_path / "other")
    with pytest.raises(StrangerStore, match="another store"):
        await join_instance(db, other, now_us=NOW_US)
    with pytest.raises(StrangerStore, match="lost its marker"):
        await check_instance(db, other)
    assert await other.read_marker() is None
    await other.close()


async def test_two_stores_under_one_database_are_noticed_at_once(
    db: Database, blobs: LocalBlobStore, tmp_path: Path
) -> None:
    """Two hosts that start together with a directory each: at most one of them serves."""
    (tmp_path / "host-b").mkdir()
    host_b = LocalBlobStore(tmp_path / "host-b")
    answers = await asyncio.gather(
        join_instance(db, blobs, now_us=NOW_US),
        join_instance(db, host_b, now_us=NOW_US),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, StrangerStore) for answer in answers) == 1
    await host_b.close()


async def test_a_moved_store_is_recognised(
    db: Database, blobs: LocalBlobStore, root: Path, tmp_path: Path
) -> None:
    """All files copied elsewhere, the two markers with them, are the same store."""
    uid = await join_instance(db, blobs, now_us=NOW_US)
    await asyncio.to_thread(root.rename, tmp_path / "moved")
    moved = LocalBlobStore(tmp_path / "moved")
    assert await join_instance(db, moved, now_us=NOW_US) == uid
    await moved.close()


@pytest.mark.parametrize("n_steps", [1, 2, 3])
async def test_a_start_that_was_killed_is_finished_by_the_next(
    db: Database, blobs: LocalBlobStore, n_steps: int
) -> None:
    """Uid in the database; marker in the store; the store's uid in it: the next start goes on."""
    uid = new_uid(NOW_US)

    async def claim(tx: Tx) -> None:
        await store.claim_value(tx, store.INSTANCE_UID, uid, NOW_US)

    await db.write(claim)
    if n_steps > 1:
        await blobs.write_marker(uid)
    if n_steps > 2:
        async with await blobs.create(STORE_KEY) as writer:
            await writer.write(new_uid(NOW_US).encode())
            await writer.finish()
    assert await join_instance(db, blobs, now_us=NOW_US + 1) == uid
    assert await join_instance(db, blobs, now_us=NOW_US + 2) == uid
    assert await blobs.size(STORE_KEY) == 36


async def test_another_database_of_the_same_age_is_refused(
    db: Database, blobs: LocalBlobStore, tmp_path: Path, sqlite_template: Path
) -> None:
    """Both have a uid, and the uids differ."""
    await join_instance(db, blobs, now_us=NOW_US)
    copy = shutil.copy(sqlite_template, tmp_path / "other.db")
    (tmp_path / "other").mkdir()
    other = LocalBlobStore(tmp_path / "other")
    async with await open_database(f"sqlite:///{copy}") as other_db:
        await join_instance(other_db, other, now_us=NOW_US)
        with pytest.raises(StrangerStore):
            await join_instance(other_db, blobs, now_us=NOW_US)
        with pytest.raises(StrangerStore, match="this database is instance"):
            await check_instance(other_db, blobs)
    await other.close()


async def test_a_database_that_was_never_served_says_so(
    db: Database, blobs: LocalBlobStore
) -> None:
    """`/readyz` on a fresh database tells how to begin."""
    with pytest.raises(StrangerStore, match="agentsight serve"):
        await check_instance(db, blobs)
