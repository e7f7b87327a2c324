"""What every room may rely on, asked of both databases."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from agentsight.server.db import (
    ConstraintViolation,
    Database,
    DatabaseUnavailable,
    QueryError,
    Tx,
    UniqueViolation,
    describe_url,
    open_database,
    sql,
)
from tests.support.raw_sql import run_statements

pytestmark = pytest.mark.anyio

PUT = sql("INSERT INTO instance_values (name, value, created_at) VALUES ($1, $2, $3)")
NAMES = sql("SELECT name FROM instance_values ORDER BY name")
COUNT = sql("SELECT count(*) FROM instance_values")
GET = sql("SELECT value FROM instance_values WHERE name = $1")
SET = sql("UPDATE instance_values SET value = $2 WHERE name = $1")
LOCK = sql("SELECT value FROM instance_values WHERE name = $1 FOR UPDATE")
ENDLESS = sql(
    "WITH RECURSIVE c (x) AS (SELECT 1::bigint UNION ALL SELECT x + 1 FROM c)"
    " SELECT count(*) FROM c"
)
HARD = "ß漢🙂'\"$1 ?1 \\ %s\n"
RAW_PUT = "INSERT INTO instance_values (name, value, created_at) VALUES ('raw', '', 0)"


def put(name: str, value: str = "") -> Callable[[Tx], Coroutine[Any, Any, int]]:
    """Make a unit that adds a row."""

    async def unit(tx: Tx) -> int:
        return await tx.execute(PUT, name, value, 1)

    return unit


async def names(tx: Tx) -> list[str]:
    """List all rows' names."""
    return [row[0] for row in await tx.rows(NAMES)]


# --- Units ----------------------------------------------------------------------------------------


async def test_a_unit_answers_with_its_result_and_is_seen_by_all_reads(db: Database) -> None:
    """What was answered is there, for every way of reading."""
    assert await db.write(put("a")) == 1
    for slow in (False, True):
        for snapshot in (False, True):
            assert await db.read(names, slow=slow, snapshot=snapshot) == ["a"]


async def test_a_unit_that_raises_leaves_nothing(db: Database) -> None:
    """Its earlier statements are undone, and the caller gets the very error."""
    error = ValueError("thought better of it")

    async def unit(tx: Tx) -> None:
        await tx.execute(PUT, "a", "", 1)
        raise error

    with pytest.raises(ValueError, match="thought better") as caught:
        await db.write(unit)
    assert caught.value is error
    assert await db.read(names) == []


async def test_failing_units_do_not_disturb_the_others(db: Database) -> None:
    """Of many that run together, each one that raises is undone alone."""

    async def fail(tx: Tx) -> None:
        await tx.execute(PUT, "never", "", 1)
        raise ValueError

    units = [fail if n % 7 == 0 else put(f"{n:03}") for n in range(200)]
    outcomes = await asyncio.gather(*map(db.write, units), return_exceptions=True)
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [
        unit is fail for unit in units
    ]
    assert await db.read(names) == [f"{n:03}" for n in range(200) if n % 7]


async def test_a_swallowed_error_still_undoes_the_unit(db: Database) -> None:
    """Nobody can go on after a failed statement, on either database."""
    await db.write(put("a"))

    async def unit(tx: Tx) -> str:
        await tx.execute(PUT, "b", "", 1)
        try:
            await tx.execute(PUT, "a", "", 1)
        except UniqueViolation:
            with pytest.raises(UniqueViolation):
                await tx.rows(NAMES)
        return "all is well"

    with pytest.raises(UniqueViolation):
        await db.write(unit)
    assert await db.read(names) == ["a"]


async def test_a_tx_is_dead_when_its_unit_has_returned(db: Database) -> None:
    """A forgotten reference cannot write into somebody else's transaction."""
    kept: list[Tx] = []

    async def unit(tx: Tx) -> None:
        kept.append(tx)

    await db.write(unit)
    await db.read(unit)
    for tx in kept:
        with pytest.raises(QueryError, match="has ended"):
            await tx.execute(PUT, "a", "", 1)
    assert await db.read(names) == []


async def test_units_are_one_after_the_other_where_they_lock(db: Database) -> None:
    """Read, count on, write: with the row locked no step is lost."""
    await db.write(put("n", "0"))

    async def count_on(tx: Tx) -> None:
        await tx.execute(SET, "n", str(int(await tx.value(LOCK, "n")) + 1))

    await asyncio.gather(*(db.write(count_on) for _ in range(50)))
    assert await db.read(lambda tx: tx.value(GET, "n")) == "50"


# --- Values and errors ----------------------------------------------------------------------------


async def test_values_come_back_as_they_went_in(db: Database) -> None:
    """Large integers, any text, None, floats, JSON as text."""

    async def query(tx: Tx) -> tuple[Any, ...] | None:
        statement = sql(
            "SELECT $1::bigint, $2::text, $3::double precision, $4::text, $5::jsonb, $6::bigint[]",
            sqlite="SELECT $1, $2, $3, $4, $5, json_array_length($6)",
        )
        return await tx.row(statement, 2**53 - 1, HARD, 0.1, None, '{"a": [1, "b"]}', [1, 2])

    row = await db.read(query)
    assert row is not None
    assert type(row) is tuple
    assert row[:4] == (2**53 - 1, HARD, 0.1, None)
    assert json.loads(row[4]) == {"a": [1, "b"]}


async def test_lists_are_searched(db: Database) -> None:
    """`= ANY($n::text[])` takes a Python list on both."""
    for name in "abc":
        await db.write(put(name))
    some = sql("SELECT name FROM instance_values WHERE name = ANY($1::text[]) ORDER BY name")
    assert await db.read(lambda tx: tx.rows(some, ["c", "a", "x"])) == [("a",), ("c",)]
    assert await db.read(lambda tx: tx.rows(some, [])) == []


async def test_rows_touched_are_counted(db: Database) -> None:
    """`execute` counts, `value` and `row` of nothing are None, `execute_many` runs for each."""

    async def unit(tx: Tx) -> tuple[Any, ...]:
        await tx.execute_many(PUT, [(name, "", 1) for name in "abc"])
        return (
            await tx.execute(sql("UPDATE instance_values SET value = 'x' WHERE name <> 'a'")),
            await tx.execute(sql("DELETE FROM instance_values WHERE name = $1"), "z"),
            await tx.value(GET, "z"),
            await tx.row(GET, "z"),
            await tx.value(sql("DELETE FROM instance_values WHERE name = $1 RETURNING name"), "a"),
        )

    assert await db.write(unit) == (2, 0, None, None, "a")
    assert await db.read(names) == ["b", "c"]


async def test_a_second_row_with_the_same_key_is_named_alike(
    db: Database, database_url: str
) -> None:
    """The error says table and columns in the same words on both databases."""
    await db.write(put("a"))
    with pytest.raises(UniqueViolation) as caught:
        await db.write(put("a"))
    assert caught.value.constraint == "instance_values(name)"
    run_statements(database_url, ["CREATE TABLE pairs (a bigint, b bigint, UNIQUE (a, b))"])
    pair = sql("INSERT INTO pairs (a, b) VALUES ($1, $2)")
    with pytest.raises(UniqueViolation) as caught:
        await db.write(lambda tx: tx.execute_many(pair, [(1, 2), (1, 2)]))
    assert caught.value.constraint == "pairs(a, b)"


async def test_a_broken_reference_is_refused(db: Database) -> None:
    """Foreign keys hold on both databases."""
    add = sql(
        "INSERT INTO environments (agent_id, slug, name, is_production, created_at, updated_at)"
        " VALUES ($1, 'a', 'a', 0, 1, 1)"
    )
    with pytest.raises(ConstraintViolation) as caught:
        await db.write(lambda tx: tx.execute(add, 99))
    assert not isinstance(caught.value, UniqueViolation)


@pytest.mark.parametrize(
    "args", [(), ("a", "b", 1, 2), ("a", "b", 2**70), ("\ud800", "", 1), ("a", object(), 1)]
)
async def test_wrong_arguments_are_our_own_fault(db: Database, args: tuple[Any, ...]) -> None:
    """Too few, too many, too large, not text: one kind of error, and the database goes on."""
    with pytest.raises(QueryError):
        await db.write(lambda tx: tx.execute(PUT, *args))
    with pytest.raises(QueryError):
        await db.read(lambda tx: tx.rows(sql("SELECT nonsense FROM nowhere")))
    assert await db.write(put("a")) == 1


async def test_like_tells_cases_apart(db: Database) -> None:
    """As PostgreSQL does; search folds its texts in Python."""
    found = await db.read(lambda tx: tx.row(sql("SELECT 'A' LIKE 'a', 'a' LIKE 'a'")))
    assert found == (0, 1)


# --- Reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_read_cannot_write(db: Database, slow: bool, snapshot: bool) -> None:
    """Not by mistake, and not by a clever statement."""
    with pytest.raises(QueryError, match="tried to write"):
        await db.read(put("a"), slow=slow, snapshot=snapshot)
    assert await db.read(names, slow=slow, snapshot=snapshot) == []
    assert await db.write(put("a")) == 1


@pytest.mark.parametrize("slow", [False, True])
async def test_a_snapshot_sees_one_state(db: Database, database_url: str, slow: bool) -> None:
    """What others commit between two statements shows only without a snapshot."""

    async def count_twice(tx: Tx) -> tuple[int, int]:
        first = await tx.value(COUNT)
        run_statements(database_url, [RAW_PUT.replace("raw", f"raw {first}")])
        return first, await tx.value(COUNT)

    assert await db.read(count_twice, slow=slow, snapshot=True) == (0, 0)
    assert await db.read(count_twice, slow=slow) == (1, 2)


# --- Other processes ------------------------------------------------------------------------------

WRITE_UNTIL_KILLED = """
import asyncio, itertools, os, sys
from agentsight.server.db import open_database, sql
PUT = sql("INSERT INTO instance_values (name, value, created_at) VALUES ($1, $2, $3)")
async def main():
    db = await open_database(sys.argv[1])
    numbers = itertools.count()
    async def work():
        for n in numbers:
            async def unit(tx):
                await tx.execute(PUT, f"{n}", "", 1)
            await db.write(unit)
            os.write(1, f"{n}\\n".encode())
    await asyncio.gather(*(work() for _ in range(8)))
asyncio.run(main())
"""
COUNT_ON = """
import asyncio, sys
from agentsight.server.db import open_database, sql
LOCK = sql("SELECT value FROM instance_values WHERE name = $1 FOR UPDATE")
SET = sql("UPDATE instance_values SET value = $2 WHERE name = $1")
async def unit(tx):
    await tx.execute(SET, "n", str(int(await tx.value(LOCK, "n")) + 1))
async def main():
    async with await open_database(sys.argv[1]) as db:
        await asyncio.gather(*(db.write(unit) for _ in range(40)))
asyncio.run(main())
"""


async def test_what_was_answered_survives_kill_9(database_url: str) -> None:
    """The answer comes after the commit, never before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITE_UNTIL_KILLED, database_url, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    answered = {(await process.stdout.readline()).decode().strip() for _ in range(200)}
    process.send_signal(signal.SIGKILL)
    rest = (await process.stdout.read()).decode()
    answered |= set(rest.split("\n")[:-1])
    await process.wait()
    async with await open_database(database_url) as db:
        assert answered <= set(await db.read(names))


async def test_several_processes_write_together(db: Database, database_url: str) -> None:
    """Four processes count on the same row, and no step is lost."""
    await db.write(put("n", "0"))
    others = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", COUNT_ON, database_url)
        for _ in range(3)
    ]

    async def count_on(tx: Tx) -> None:
        await tx.execute(SET, "n", str(int(await tx.value(LOCK, "n")) + 1))

    for _ in range(40):
        await db.write(count_on)
    assert [await process.wait() for process in others] == [0, 0, 0]
    assert await db.read(lambda tx: tx.value(GET, "n")) == "160"


# --- Cancelling and closing -----------------------------------------------------------------------


async def test_cancelled_callers_harm_nobody(db: Database) -> None:
    """Whether a cancelled caller's unit ran or not, it is whole, and the others go on."""

    async def pair(tx: Tx, name: str) -> None:
        await tx.execute(PUT, f"{name} 1", "", 1)
        await tx.execute(PUT, f"{name} 2", "", 1)

    tasks = [
        asyncio.create_task(db.write(lambda tx, n=n: pair(tx, f"{n:03}")))  # pyright: ignore
        for n in range(60)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await db.write(put("last"))
    found = await db.read(names)
    for n in range(60):
        halves = [f"{n:03} {half}" in found for half in (1, 2)]
        assert halves in ([[True, True]] if n % 2 else [[True, True], [False, False]])
    assert found[-1] == "last"


async def test_cancelling_a_slow_read_interrupts_it(db: Database) -> None:
    """An endless query ends with its caller, and its connection serves on."""
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def endless(tx: Tx) -> Any:
        loop.call_soon_threadsafe(started.set)
        return await tx.value(ENDLESS)

    for _ in range(5):  # more than there are threads to read in
        started.clear()
        task = asyncio.create_task(db.read(endless, slow=True))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await db.read(names, slow=True) == []


async def test_closing_finishes_what_waits(database_url: str) -> None:
    """Units that were handed in before `close` are stored and answered; later ones are refused."""
    db = await open_database(database_url)
    tasks = [asyncio.create_task(db.write(put(f"{n:02}"))) for n in range(20)]
    await asyncio.sleep(0)
    await db.close()
    await db.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await db.write(put("late"))
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await db.read(names)
    async with await open_database(database_url) as again:
        stored = await again.read(names)
    assert stored == [f"{n:02}" for n in range(20) if outcomes[n] == 1]
    assert len(stored) == 20


async def test_forgetting_to_close_warns(database_url: str) -> None:
    """A database that nobody closed says so, with its address."""
    db = await open_database(database_url)
    await db.write(put("a"))
    box = [db]
    del db
    with pytest.warns(ResourceWarning, match="was not closed"):
        box.clear()
    gc.collect()
    await asyncio.sleep(0)


async def test_addresses_are_shown_without_passwords() -> None:
    """Neither in the place of a password nor in the query."""
    shown = describe_url("postgresql://me:s3cret@host:5/name?password=s3cret&sslmode=require")
    assert shown == "postgresql://me:***@host:5/name?password=***&sslmode=require"
