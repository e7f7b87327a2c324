"""What only PostgreSQL does: connections that get lost, transactions in each other's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asyncpg import exceptions as pg

from agentsight.server.db import (
    Database,
    DatabaseFull,
    DatabaseMissing,
    DatabaseUnavailable,
    Tx,
    open_database,
    sql,
)
from agentsight.server.db import postgresql as driver
from agentsight.server.db.postgresql import PostgresqlDatabase
from agentsight.server.db.postgresql_connection import translate
from agentsight.server.db.urls import DatabaseUrl
from tests.server.db.test_promises import LOCK, PUT, SET, names, put
from tests.support.postgres import PostgresServer, run_sql

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

END_MYSELF = sql("SELECT pg_terminate_backend(pg_backend_pid())")
MY_PID = sql("SELECT pg_backend_pid()")


@pytest.fixture
def dialect() -> str:
    """Run these on PostgreSQL only."""
    return "postgresql"


async def test_it_comes_back_when_the_server_does(
    db: Database, postgres_server: PostgresServer
) -> None:
    """Away means 503; afterwards the same open database works, for reads and for writes."""
    await asyncio.gather(*(db.write(put(f"{n}")) for n in range(8)))
    postgres_server.stop()
    try:
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            await db.write(put("away"))
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            await db.read(names)
    finally:
        postgres_server.start()
    assert await db.read(names) == [f"{n}" for n in range(8)]
    assert await db.write(put("back")) == 1


async def test_a_restart_between_two_requests_is_not_noticed(
    db: Database, postgres_server: PostgresServer
) -> None:
    """Connections that died in the pool are replaced before anyone hears of it."""
    await asyncio.gather(*(db.read(names) for _ in range(5)))
    postgres_server.stop()
    postgres_server.start()
    assert await db.read(names) == []
    postgres_server.stop()
    postgres_server.start()
    assert await db.write(put("a")) == 1


async def test_a_connection_lost_before_the_commit_is_tried_again(db: Database) -> None:
    """Without a commit nothing has happened: the unit runs once more, and is stored once."""
    runs: list[int] = []

    async def unit(tx: Tx) -> None:
        runs.append(1)
        await tx.execute(PUT, "a", "", 1)
        if len(runs) == 1:
            await tx.value(END_MYSELF)

    await db.write(unit)
    assert len(runs) == 2
    assert await db.read(names) == ["a"]


async def test_a_connection_lost_during_the_commit_is_not_tried_again(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whether it happened: the caller hears so, and sends the same item again."""
    runs: list[int] = []
    commit: Callable[[Any], Awaitable[None]] = driver.commit

    async def commit_and_lose_the_answer(connection: Any) -> None:
        class Lossy:
            async def execute(self, text: str) -> str:
                await connection.execute(text)
                raise ConnectionResetError("connection reset by peer")

        await commit(Lossy())

    async def unit(tx: Tx) -> None:
        runs.append(1)
        await tx.execute(PUT, "a", "", 1)

    monkeypatch.setattr(driver, "commit", commit_and_lose_the_answer)
    with pytest.raises(DatabaseUnavailable, match="may have happened"):
        await db.write(unit)
    assert len(runs) == 1
    assert await db.read(names) == ["a"]


async def test_a_unit_that_always_loses_its_connection_ends(db: Database) -> None:
    """Trying again has an end, and then it is 503."""
    runs: list[int] = []

    async def unit(tx: Tx) -> None:
        runs.append(1)
        await tx.value(END_MYSELF)

    with pytest.raises(DatabaseUnavailable):
        await db.write(unit)
    assert len(runs) == driver.MAX_TRIES


async def test_units_that_lock_crosswise_both_succeed(db: Database) -> None:
    """PostgreSQL ends one of two that deadlock, and we run it again."""
    await db.write(put("a", "0"))
    await db.write(put("b", "0"))
    barrier = asyncio.Barrier(2)
    runs: list[str] = []

    def crosswise(first: str, second: str) -> Callable[[Tx], Any]:
        async def unit(tx: Tx) -> None:
            runs.append(first)
            one = await tx.value(LOCK, first)
            if runs.count(first) == 1:
                await barrier.wait()  # a unit must not; this one stages the deadlock
            two = await tx.value(LOCK, second)
            await tx.execute(SET, first, str(int(one) + 1))
            await tx.execute(SET, second, str(int(two) + 1))

        return unit

    await asyncio.gather(db.write(crosswise("a", "b")), db.write(crosswise("b", "a")))
    values = await db.read(lambda tx: tx.rows(sql("SELECT value FROM instance_values")))
    assert values == [("2",), ("2",)]
    assert len(runs) == 3


async def test_a_cancelled_unit_leaves_no_transaction_behind(database_url: str) -> None:
    """Its locks are gone, and its connection is clean for the next one."""
    db = await PostgresqlDatabase.open(DatabaseUrl.parse(database_url), pool_size=1)
    started = asyncio.Event()

    async def unit(tx: Tx) -> None:
        await tx.execute(PUT, "a", "", 1)
        started.set()
        await tx.value(sql("SELECT pg_sleep(60)::text"))

    task = asyncio.create_task(db.write(unit))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.write(put("a")) == 1
    assert await db.read(names) == ["a"]
    await db.close()


async def test_connections_are_kept(db: Database) -> None:
    """One caller after the other gets the same connection: nothing is opened for a query."""
    pids = {await db.read(lambda tx: tx.value(MY_PID)) for _ in range(5)}
    pids |= {await db.write(lambda tx: tx.value(MY_PID)) for _ in range(5)}
    assert len(pids) == 1


async def test_more_callers_than_connections_take_turns(database_url: str) -> None:
    """Nobody is refused because the pool is small."""
    async with await PostgresqlDatabase.open(DatabaseUrl.parse(database_url), pool_size=2) as db:
        await asyncio.gather(*(db.write(put(f"{n:02}")) for n in range(40)))
        assert len(await db.read(names)) == 40


async def test_a_busy_pool_is_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a free connection has an end."""
    monkeypatch.setattr(driver, "ACQUIRE_TIMEOUT_S", 0.05)
    async with await PostgresqlDatabase.open(DatabaseUrl.parse(database_url), pool_size=1) as db:
        started, done = asyncio.Event(), asyncio.Event()

        async def hold(tx: Tx) -> None:
            started.set()
            await done.wait()

        holding = asyncio.create_task(db.read(hold))
        await started.wait()
        with pytest.raises(DatabaseUnavailable):
            await db.read(names)
        done.set()
        await holding


async def test_a_server_that_takes_no_writes_is_unavailable(
    db: Database, database_url: str
) -> None:
    """As a standby after a failover: reads go on, writes get 503."""
    unit = put("a")

    async def as_on_a_standby(tx: Tx) -> int:
        await tx.execute(sql("SET TRANSACTION READ ONLY"))
        return await unit(tx)

    with pytest.raises(DatabaseUnavailable, match="takes no writes"):
        await db.write(as_on_a_standby)
    assert await db.read(names) == []


async def test_a_full_disk_is_told_as_such() -> None:
    """PostgreSQL's 53100 becomes our 507."""
    error = translate(pg.DiskFullError("could not extend file"))
    assert isinstance(error, DatabaseFull)
    assert isinstance(translate(pg.TooManyConnectionsError("x")), DatabaseUnavailable)


async def test_a_missing_database_or_server_is_told(
    database_url: str, postgres_server: PostgresServer
) -> None:
    """Which one, without its password."""
    with pytest.raises(DatabaseMissing, match="createdb"):
        await open_database(postgres_server.url("no_such_database"))
    with pytest.raises(DatabaseUnavailable, match="does not answer") as caught:
        await open_database("postgresql://me:s3cret@127.0.0.1:1/name")
    assert "s3cret" not in str(caught.value)


async def test_a_session_is_read_only_outside_of_units(db: Database, database_url: str) -> None:
    """The default of the connections, not of the database: others are not touched."""
    default = sql("SELECT current_setting('default_transaction_read_only')")
    assert await db.read(lambda tx: tx.value(default)) == "on"
    run_sql(database_url, ["CREATE TABLE others (a int)"])
