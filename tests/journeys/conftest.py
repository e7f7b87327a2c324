"""Journeys go the whole way: our client, a real server process, real files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.postgres import TestDatabases
from tests.support.server import LiveServer, server, servers

__all__ = ["server", "servers"]

StartServer = Callable[..., LiveServer]


@pytest.fixture
def start_server(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[StartServer]:
    """Start servers for this test alone, on one fresh and empty database of each kind."""
    url: str | None = None
    databases: TestDatabases | None = None
    if dialect == "postgresql":
        databases = request.getfixturevalue("postgres_databases")
        url = databases.create_empty(f"journey_{tmp_path.name}")
    made: list[LiveServer] = []

    def start(workers: int = 1) -> LiveServer:
        made.append(LiveServer(tmp_path, url, workers=workers))
        return made[-1].start()

    yield start
    for one in made:
        one.stop()
        print(one.log_since(0))
    if databases is not None and url is not None:
        databases.drop(url)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings of whoever runs the tests from the client in this process."""
    import os

    for name in list(os.environ):
        if name.startswith("AGENTSIGHT_") and not name.startswith("AGENTSIGHT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
