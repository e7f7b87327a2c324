"""One application that examines files for each kind of database, shared."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.http import House, People, open_house
from tests.support.postgres import TestDatabases


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
async def shared_gallery(
    anyio_backend: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """Run one application that examines files for all tests that can share it."""
    folder: Path = tmp_path_factory.mktemp("gallery")
    databases: TestDatabases | None = None
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), folder / "agentsight.db")
        url = f"sqlite:///{folder / 'agentsight.db'}"
    else:
        databases = request.getfixturevalue("postgres_databases")
        assert databases is not None
        url = databases.create()
    async with open_house(url, folder, examine=True) as house:
        yield house
    if databases is not None:
        databases.drop(url)


@pytest.fixture
async def house(shared_gallery: House) -> House:
    """Give the shared application; what is in its tables is other tests', too."""
    return shared_gallery


@pytest.fixture
async def people(shared_gallery: House) -> People:
    """Make Alice, Bob and Carol, who know nobody of another test."""
    return await shared_gallery.people()
