"""Statements on either database past all our code, as another program would run them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg

from tests.support.postgres import run_sql


def run_statements(url: str, statements: Sequence[str]) -> None:
    """Run and commit statements on a connection of their own."""
    if not url.startswith("sqlite:///"):
        run_sql(url, statements)
        return
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def read_rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """Read rows on a connection of their own."""
    if not url.startswith("sqlite:///"):
        return asyncio.run(_fetch(url, query))
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    rows = connection.execute(query).fetchall()
    connection.close()
    return rows


async def _fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()
