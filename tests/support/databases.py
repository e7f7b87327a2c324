"""A fresh database of the kind that a fixture's parameter names."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.postgres import TestDatabases


@contextlib.contextmanager
def fresh_database(request: pytest.FixtureRequest, kind: str, folder: Path) -> Generator[str]:
    """Give the address of a database with the schema and no rows, for the length of a `with`.

    Args:
        request: Of the fixture that asks.
        kind: `sqlite` or `postgresql`.
        folder: Where the file of SQLite is put.
    """
    if kind == "sqlite":
        path = folder / "agentsight.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    databases: TestDatabases = request.getfixturevalue("postgres_databases")
    url = databases.create()
    try:
        yield url
    finally:
        databases.drop(url)
