"""What does grouping commits win back, and what does a thread cost a short read? (SQLite)

    .venv/bin/python -m benchmarks database

Prints ratios within one run, on the disk that holds `.scratch/`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agentsight.server.db import Tx, open_database, sql
from agentsight.server.db.migrate import ensure_schema
from benchmarks.measuring import SCRATCH, line, title

PUT = sql("INSERT INTO instance_values (name, value, created_at) VALUES ($1, $2, $3)")
GET = sql("SELECT name, value, created_at FROM instance_values WHERE name = $1")
SECONDS_EACH = 2.0


async def rate(work: Callable[[int], Awaitable[object]], n_at_once: int) -> float:
    """Return how many times a second `work` is done by `n_at_once` callers."""
    n_done = 0
    until = time.perf_counter() + SECONDS_EACH

    async def caller() -> None:
        nonlocal n_done
        while time.perf_counter() < until:
            n_done += 1
            await work(n_done)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(n_at_once)))
    return n_done / (time.perf_counter() - start)


async def _measure() -> None:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        path = Path(folder) / "bench.db"
        await asyncio.to_thread(ensure_schema, f"sqlite:///{path}")
        rounds = iter(range(1000))
        async with await open_database(f"sqlite:///{path}") as db:

            def write_in(round_number: int) -> Callable[[int], Awaitable[object]]:
                async def write(n: int) -> object:
                    async def unit(tx: Tx) -> int:
                        return await tx.execute(PUT, f"{round_number}-{n}", "value", n)

                    return await db.write(unit)

                return write

            title("SQLite: writes of one row, each answered after its commit is on the disk")
            alone = await rate(write_in(next(rounds)), 1)
            line("1 caller (a commit each)", f"{alone:,.0f}/s", "1.0")
            for n_callers in (8, 64, 512):
                grouped = await rate(write_in(next(rounds)), n_callers)
                name = f"{n_callers} callers (grouped)"
                line(name, f"{grouped:,.0f}/s", f"{grouped / alone:.1f}")

            async def query(tx: Tx) -> object:
                return await tx.row(GET, "0-1")

            raw = sqlite3.connect(path, cached_statements=512)
            text = "SELECT name, value, created_at FROM instance_values WHERE name = ?1"

            async def read_raw(_: int) -> object:
                return raw.execute(text, ("0-1",)).fetchone()

            title("SQLite: reads of one row by key")
            bare = await rate(read_raw, 1)
            line("sqlite3 itself", f"{bare:,.0f}/s", "1.00")
            for name, options in (
                ("on the event loop", {}),
                ("the same, as a snapshot", {"snapshot": True}),
                ("in a thread (slow=True)", {"slow": True}),
            ):
                reads = await rate(lambda _, o=options: db.read(query, **o), 1)
                line(name, f"{reads:,.0f}/s", f"{reads / bare:.2f}")
            raw.close()


def main() -> bool:
    """Measure, and print; nothing here has a floor."""
    asyncio.run(_measure())
    return True
