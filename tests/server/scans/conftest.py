"""A daemon to scan with, and an application whose new files wait to be scanned."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from agentsight.server.parts import Parts
from tests.support.clamav import FakeClamd, find_clamd, real_clamd
from tests.support.http import House, open_house

NOBODY = "127.0.0.1:1"
"""Where no daemon is: the application's own chore then leaves all jobs to the test."""
DAEMONS = ["recorded", "real"] if find_clamd() else ["recorded"]


@pytest.fixture(scope="session", params=DAEMONS)
async def clamd(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    """Give the address of a daemon: the real one where it can be, and its recorded words."""
    async with AsyncExitStack() as stack:
        if request.param == "recorded":
            yield (await stack.enter_async_context(FakeClamd().running())).address
        else:
            program = find_clamd()
            assert program is not None
            folder: Path = tmp_path_factory.mktemp("clamd")
            yield stack.enter_context(real_clamd(program, folder))


@pytest.fixture
async def scanned_house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Run an application that scans, on each kind of database."""
    async with open_house(database_url, tmp_path, clamd=NOBODY) as house:
        yield house


def with_daemon(house: House, address: str | None) -> Parts:
    """Return the application's parts with another daemon: what a step is called with."""
    settings = msgspec.structs.replace(house.parts.settings, clamd=address)
    return dataclasses.replace(house.parts, settings=settings)
