"""What only SQLite does: the writer's groups, locks of other processes, a full file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agentsight.server.db import (
    DatabaseFull,
    DatabaseMissing,
    DatabaseUnavailable,
    DatabaseUrl,
    DatabaseUrlError,
    QueryError,
    Tx,
    UnitSuspended,
    open_database,
    sql,
)
from agentsight.server.db.sqlite import SqliteDatabase
from agentsight.server.db.sqlite_connection import refuse_network_filesystem
from tests.server.db.test_promises import COUNT, ENDLESS, PUT, names, put

pytestmark = pytest.mark.anyio


@pytest.fixture
def dialect() -> str:
    """Run these on SQLite only."""
    return "sqlite"


@pytest.fixture
def path(database_url: str) -> Path:
    """Name the file."""
    return Path(database_url.removeprefix("sqlite:///"))


@pytest.fixture
async def impatient(anyio_backend: str, path: Path) -> AsyncIterator[SqliteDatabase]:
    """Open a database that waits only briefly for the locks of others."""
    async with await SqliteDatabase.open(path, busy_timeout_s=0.05) as db:
        yield db


@pytest.fixture
def stranger(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as another program would."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    yield connection
    connection.close()


# --- Units are driven by hand ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["write", "read", "slow"])
async def test_a_unit_that_waits_for_anything_else_is_refused(db: SqliteDatabase, how: str) -> None:
    """The error names the unit and its line, and nothing of it is stored."""

    async def sleepy_unit(tx: Tx) -> None:
        if how == "write":
            await tx.execute(PUT, "a", "", 1)
        await asyncio.sleep(0)

    work = db.write(sleepy_unit) if how == "write" else db.read(sleepy_unit, slow=how == "slow")
    with pytest.raises(UnitSuspended, match=r"sleepy_unit \(line \d+ of .*test_sqlite.py\)"):
        await work
    assert await db.read(names) == []


async def test_short_reads_stay_on_the_event_loop(db: SqliteDatabase) -> None:
    """A thread costs more than a short query; units and slow reads have their own threads."""

    async def where(tx: Tx) -> threading.Thread:
        return threading.current_thread()

    assert await db.read(where) is threading.current_thread()
    assert await db.read(where, snapshot=True) is threading.current_thread()
    assert await db.read(where, slow=True) is not threading.current_thread()
    assert await db.write(where) is not threading.current_thread()


async def test_waiting_units_share_one_commit(db: SqliteDatabase, path: Path) -> None:
    """Units that wait together are committed together: the log grows by few commits, not many."""
    n_units = 100
    release = threading.Event()

    async def hold_the_writer(tx: Tx) -> None:
        assert release.wait(10)

    first = asyncio.ensure_future(db.write(hold_the_writer))
    rest = [asyncio.ensure_future(db.write(put(f"{n}"))) for n in range(n_units)]
    await asyncio.sleep(0)
    before = _n_commits(path)
    release.set()
    await asyncio.gather(first, *rest)
    assert 0 < _n_commits(path) - before <= 5


def _n_commits(path: Path) -> int:
    """Count the commit frames of the write-ahead log (sqlite.org/fileformat2.html, 4.1)."""
    log = Path(f"{path}-wal")
    data = log.read_bytes() if log.exists() else b""
    if len(data) < 32:
        return 0
    size = int.from_bytes(data[8:12])
    frames = range(32, len(data) - 23, size + 24)
    salt = data[16:24]
    return sum(
        data[at + 4 : at + 8] != b"\0" * 4 and data[at + 8 : at + 16] == salt for at in frames
    )


async def test_a_database_belongs_to_its_loop(db: SqliteDatabase) -> None:
    """Using it from another event loop is refused, not half working."""
    caught: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(_read(db))
        except RuntimeError as exc:
            caught.append(exc)

    await asyncio.to_thread(elsewhere)
    assert "event loop" in str(caught[0])


async def _read(db: SqliteDatabase) -> None:
    await db.read(names)


# --- Other processes ------------------------------------------------------------------------------


async def test_a_lock_of_another_process_is_waited_for(
    db: SqliteDatabase, stranger: sqlite3.Connection
) -> None:
    """The writer's thread waits; the event loop goes on, and reads are not held up."""
    stranger.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(db.write(put("a")))
    assert await db.read(names) == []
    assert await db.read(names, slow=True) == []
    assert not waiting.done()
    stranger.execute("ROLLBACK")
    assert await waiting == 1


async def test_a_lock_that_is_held_too_long_is_told(
    impatient: SqliteDatabase, stranger: sqlite3.Connection
) -> None:
    """All who waited hear "unavailable" at once, and the next one may succeed."""
    stranger.execute("BEGIN IMMEDIATE")
    outcomes = await asyncio.gather(
        *(impatient.write(put(f"{n}")) for n in range(20)), return_exceptions=True
    )
    stranger.execute("ROLLBACK")
    assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailable}
    assert len({id(outcome) for outcome in outcomes}) == 20
    assert "locked" in str(outcomes[0])
    assert await impatient.read(names) == []
    assert await impatient.write(put("a")) == 1


async def test_a_short_read_that_meets_a_lock_moves_to_a_thread(
    db: SqliteDatabase, tmp_path: Path
) -> None:
    """The event loop never waits for a lock: the query runs again where waiting is allowed."""
    # A reader of our own file is never blocked in WAL mode; one of an attached file can be.
    other = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
    other.execute("CREATE TABLE things (id integer)")
    other.execute("BEGIN EXCLUSIVE")
    attach = sql("SELECT 1", sqlite=f"ATTACH '{tmp_path}/other.db' AS other")
    threads: list[threading.Thread] = []

    async def count(tx: Tx) -> int:
        threads.append(threading.current_thread())
        await tx.execute(attach)
        return await tx.value(sql("SELECT 2", sqlite="SELECT count(*) FROM other.things"))

    work = asyncio.ensure_future(db.read(count))
    await asyncio.sleep(0)
    assert not work.done()
    other.execute("ROLLBACK")
    assert await work == 0
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()
    other.close()


# --- A full file ----------------------------------------------------------------------------------


async def test_a_full_file_refuses_and_goes_on(db: SqliteDatabase) -> None:
    """What was answered is there, what was refused is not, and smaller writes still work."""
    n_pages = await db.read(lambda tx: tx.value(sql("SELECT 1", sqlite="PRAGMA page_count")))
    limit = sql("SELECT 2", sqlite=f"PRAGMA max_page_count = {n_pages + 20}")
    await db.write(lambda tx: tx.value(limit))
    units = [put(f"{n:02}", "x" * 12_000) for n in range(20)]
    outcomes = await asyncio.gather(*map(db.write, units), return_exceptions=True)
    stored = [f"{n:02}" for n, outcome in enumerate(outcomes) if outcome == 1]
    refused = [outcome for outcome in outcomes if outcome != 1]
    assert 0 < len(stored) < 20
    assert {type(outcome) for outcome in refused} == {DatabaseFull}
    assert await db.read(names) == stored
    await db.write(lambda tx: tx.execute(sql("DELETE FROM instance_values")))
    assert await db.write(put("small")) == 1


async def test_one_units_fault_that_undoes_all_costs_the_others_nothing(
    db: SqliteDatabase,
) -> None:
    """If SQLite undoes a whole group because of one unit, the others run again and are stored."""
    release = threading.Event()
    runs: list[str] = []

    async def hold_the_writer(tx: Tx) -> None:
        assert release.wait(10)

    async def undo_all(tx: Tx) -> None:
        runs.append("undo all")
        # Stands for the I/O errors after which SQLite rolls back by itself.
        await tx.execute(sql("ROLLBACK"))
        raise ValueError("lost")

    first = asyncio.ensure_future(db.write(hold_the_writer))
    work = [asyncio.ensure_future(db.write(unit)) for unit in (put("a"), undo_all, put("b"))]
    await asyncio.sleep(0)
    release.set()
    outcomes = await asyncio.gather(first, *work, return_exceptions=True)
    assert [outcomes[0], outcomes[1], outcomes[3]] == [None, 1, 1]
    assert isinstance(outcomes[2], ValueError)
    assert await db.read(names) == ["a", "b"]
    assert len(runs) == 2


async def test_a_commit_that_fails_fails_the_whole_group(db: SqliteDatabase) -> None:
    """Nobody hears "stored" before the commit has succeeded."""
    release = threading.Event()

    async def hold_the_writer(tx: Tx) -> None:
        # A reference that is only checked at the commit, and does not hold then.
        await tx.execute(sql("SELECT 1", sqlite="PRAGMA defer_foreign_keys = ON"))
        await tx.execute(
            sql(
                "INSERT INTO clients (uid, organisation_id, slug, name, created_at, updated_at)"
                " VALUES ('u', 99, 's', 'n', 1, 1)"
            )
        )
        assert release.wait(10)

    units = [hold_the_writer, put("a"), put("b")]
    work = [asyncio.ensure_future(db.write(unit)) for unit in units]
    await asyncio.sleep(0)
    release.set()
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailable}
    assert await db.read(names) == []
    assert await db.write(put("c")) == 1


# --- Opening and closing --------------------------------------------------------------------------


async def test_closing_leaves_one_file(database_url: str, path: Path) -> None:
    """The write-ahead log is folded in, so that the file alone is the whole database."""
    async with await open_database(database_url) as db:
        await db.write(put("a"))
        assert len(os.listdir(path.parent)) > 1
    assert os.listdir(path.parent) == [path.name]


async def test_closing_interrupts_slow_reads(database_url: str) -> None:
    """An endless query does not hold up the end."""
    db = await open_database(database_url)
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def endless(tx: Tx) -> None:
        loop.call_soon_threadsafe(started.set)
        await tx.value(ENDLESS)

    task = asyncio.ensure_future(db.read(endless, slow=True))
    await started.wait()
    await db.close()
    with pytest.raises(DatabaseUnavailable, match="interrupted"):
        await task


async def test_every_connection_has_the_settings_it_needs(db: SqliteDatabase) -> None:
    """Durable, referential, and read-only where it reads."""

    async def look(tx: Tx) -> list[object]:
        wanted = ("journal_mode", "synchronous", "foreign_keys", "query_only", "temp_store")
        return [await tx.value(sql(f"SELECT '{p}'", sqlite=f"PRAGMA {p}")) for p in wanted]

    assert await db.write(look) == ["wal", 2, 1, 0, 2]
    for slow in (False, True):
        journal, _, _, query_only, temp_store = await db.read(look, slow=slow)
        assert (journal, query_only, temp_store) == ("wal", 1, 2)


async def test_case_is_folded_as_python_does(db: SqliteDatabase) -> None:
    """SQLite alone folds ASCII only."""
    fold = sql("SELECT 1", sqlite="SELECT fold('STRASSE ẞ Σ'), fold(NULL), fold(7)")
    assert await db.read(lambda tx: tx.row(fold)) == ("strasse ss σ", None, 7)


async def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    """Opening never makes a database unless told to."""
    with pytest.raises(DatabaseMissing, match="agentsight serve"):
        await open_database(f"sqlite:///{tmp_path}/no.db")
    assert os.listdir(tmp_path) == []
    async with await open_database(f"sqlite:///{tmp_path}/?#% é.db", create=True) as db:
        assert await db.read(lambda tx: tx.value(sql("SELECT 1"))) == 1
    assert os.listdir(tmp_path) == ["?#% é.db"]


async def test_counting_an_empty_table_is_zero(db: SqliteDatabase) -> None:
    """And a wrong table is our fault, not the user's."""
    assert await db.read(lambda tx: tx.value(COUNT)) == 0
    with pytest.raises(QueryError, match="no such table"):
        await db.write(lambda tx: tx.execute(sql("DELETE FROM nowhere")))


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /srv/a\\040b rw shared:2 - nfs4 server:/export rw
31 30 0:41 / /srv/a\\040b/local rw - tmpfs tmpfs rw
32 22 0:42 / /mnt rw - fuse.sshfs me@host: rw
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [("/srv/a b/x.db", "nfs4"), ("/mnt/deep/x.db", "sshfs"), ("/srv/a b/local/x.db", None),
     ("/home/x.db", None), ("/mnt2/x.db", None)],
)  # fmt: skip
async def test_a_network_file_system_is_refused(
    tmp_path: Path, place: str, kind: str | None
) -> None:
    """SQLite's locks and shared memory do not work there; the error says where and what to do."""
    (tmp_path / "mounts").write_text(MOUNTS)
    if kind is None:
        refuse_network_filesystem(Path(place), tmp_path / "mounts")
        return
    with pytest.raises(DatabaseUrlError, match=rf"{kind}.*local disk"):
        refuse_network_filesystem(Path(place), tmp_path / "mounts")


@pytest.mark.parametrize(
    "text",
    ["sqlite://x.db", "sqlite:///", "sqlite:////data/", "sqlite:///:memory:", "x.db",
     "mysql://host/name", "postgresql+asyncpg://host/name", "postgresql://host",
     "postgresql://host:port/name", ""],
)  # fmt: skip
async def test_addresses_that_make_no_sense_are_refused(text: str) -> None:
    """The error shows how an address looks."""
    with pytest.raises(DatabaseUrlError, match=r"postgresql://|name a file"):
        DatabaseUrl.parse(text)
