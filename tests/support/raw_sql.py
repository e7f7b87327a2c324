"""Statements on either database past all our code, as another program would run them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

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
