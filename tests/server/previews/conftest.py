"""One application that examines files for each kind of database, shared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.databases import fresh_database
from tests.support.http import House, People, open_house


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
async def shared_gallery(
    anyio_backend: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[House]:
    """Run one application that examines files for all tests that can share it."""
    folder: Path = tmp_path_factory.mktemp("gallery")
    with fresh_database(request, request.param, folder) as url:
        async with open_house(url, folder, examine=True) as house:
            yield house


@pytest.fixture
async def house(shared_gallery: House) -> House:
    """Give the shared application; what is in its tables is other tests', too."""
    return shared_gallery


@pytest.fixture
async def people(shared_gallery: House) -> People:
    """Make Alice, Bob and Carol, who know nobody of another test."""
    return await shared_gallery.people()
