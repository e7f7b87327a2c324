"""A house of its own for a test of removal: on a fresh database, with a store of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.http import House, open_house


@pytest.fixture
async def own_house(anyio_backend: str, database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Run an application on a fresh database; its store of bytes is below `tmp_path`."""
    async with open_house(database_url, tmp_path) as house:
        yield house
