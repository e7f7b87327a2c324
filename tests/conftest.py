"""Fixtures for all tests: a fresh database of each kind, and the event loop they run on."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import agentsight.server.db as db_package
from agentsight.server.db import Database, open_database
from tests.support.databases import fresh_database
from tests.support.postgres import PostgresServer, TestDatabases, run_sql
from tests.support.seaweed import own_seaweed, seaweed
from tests.support.soak import only_in_soak

__all__ = ["own_seaweed", "seaweed"]

# A busy machine is no fault of the code under test.
settings.register_profile("agentsight", deadline=None)
settings.load_profile("agentsight")

SCHEMAS = Path(db_package.__file__).parent
TESTS = Path(__file__).parent
SLOW_FOLDERS = ("browser", "cli", "conformance", "docs", "journeys", "proxies")
"""Whole programs for every test: left out of `make quick`."""
SLOW_PARTS = {"postgresql", "s3"}
"""Words in parameters of tests that run on SQLite and a directory as well."""
SLOW_FIXTURES = {"postgres_server", "postgres_databases", "seaweed", "own_seaweed"}
"""Servers of others, which take seconds to start."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even look into the slow folders where nothing slow is wanted."""
    if config.option.markexpr == "not slow" and collection_path.parent == TESTS:
        return collection_path.name in SLOW_FOLDERS or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, or long, by its folder and its parts, so that nobody can forget it."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        parts = callspec.params.values() if callspec else ()
        words = {word for part in parts if isinstance(part, str) for word in part.split("-")}
        is_slow = item.path.relative_to(TESTS).parts[0] in SLOW_FOLDERS
        is_slow |= not words.isdisjoint(SLOW_PARTS)
        is_slow |= not SLOW_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        if is_slow:
            item.add_marker(pytest.mark.slow)
        if "postgresql" in words and item.get_closest_marker("sqlite_will_do"):
            item.add_marker(only_in_soak)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, the only loop the server runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start one PostgreSQL for this process, when the first test asks for it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_databases(postgres_server: PostgresServer) -> TestDatabases:
    """Make the template that every PostgreSQL test's database is a copy of."""
    schema = (SCHEMAS / "schema.postgresql.sql").read_text()
    return TestDatabases(postgres_server, lambda url: run_sql(url, [schema]))


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the file that every SQLite test's database is a copy of."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    connection = sqlite3.connect(path)
    connection.executescript((SCHEMAS / "schema.sqlite.sql").read_text())
    connection.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Say which database this run of the test is on."""
    return str(request.param)


@pytest.fixture
def database_url(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the address of a fresh database with the schema and no rows, once for each kind."""
    with fresh_database(request, dialect, tmp_path) as url:
        yield url


@pytest.fixture
def empty_database_url(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Give the address of a database with nothing in it (on SQLite: no file yet)."""
    if dialect == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    databases: TestDatabases = request.getfixturevalue("postgres_databases")
    url = databases.create_empty(f"empty_{abs(hash(request.node.nodeid)):x}")
    yield url
    databases.drop(url)


@pytest.fixture
async def db(anyio_backend: str, database_url: str) -> AsyncIterator[Database]:
    """Open a fresh database, once for each kind, and close it after the test."""
    database = await open_database(database_url)
    yield database
    await database.close()
