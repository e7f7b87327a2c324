"""One running application for each kind of database, shared; each test has tenants of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.library import Library
from tests.support.databases import fresh_database
from tests.support.http import House, People, TestClock, make_settings, open_house, open_parts


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
async def shared_house(
    anyio_backend: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """Run one application on each kind of database for all tests that can share it."""
    folder: Path = tmp_path_factory.mktemp("house")
    with fresh_database(request, request.param, folder) as url:
        async with open_house(url, folder) as house:
            yield house


@pytest.fixture
async def house(shared_house: House) -> House:
    """Give the shared application; what is in its tables is other tests', too."""
    return shared_house


@pytest.fixture
async def people(shared_house: House) -> People:
    """Make Alice, Bob and Carol, who know nobody of another test."""
    return await shared_house.people()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
async def library(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Library]:
    """Open the parts of a server without its application, on each kind of database."""
    folder: Path = tmp_path_factory.mktemp("library")
    clock = TestClock()
    with fresh_database(request, request.param, folder) as url:
        async with open_parts(make_settings(url, folder), clock) as parts:
            yield Library(parts, House(None, parts, clock))
