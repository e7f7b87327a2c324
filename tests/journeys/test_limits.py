"""A limit holds when many come at once, by two processes, on either database."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journeys.test_workers import at_once
from tests.support.postgres import TestDatabases
from tests.support.server import Answer, LiveServer

N_FILES = 24
SIZE_BYTES = 60_000


@pytest.fixture
def limited(dialect: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """Serve with two workers, and with limits that admit one file and a little more."""
    limits = {
        "AGENTSIGHT_MAX_AGENT_BYTES": str(SIZE_BYTES + 40_000),
        "AGENTSIGHT_MAX_CONVERSATION_BYTES": str(SIZE_BYTES + 30_000),
    }
    databases: TestDatabases | None = None
    url: str | None = None
    if dialect == "postgresql":
        databases = request.getfixturevalue("postgres_databases")
        url = databases.create_empty("limited")
    with LiveServer(tmp_path, url, settings=limits, workers=2) as server:
        yield server
    if databases is not None and url is not None:
        databases.drop(url)


def test_of_many_at_once_as_many_are_taken_as_fit(limited: LiveServer) -> None:
    """Twenty-four different files, room for one: one is stored, the others hear that it is full."""
    send_all(limited, lambda number: "c")  # a conversation's limit
    send_all(limited, lambda number: f"c{number}")  # an agent's


def send_all(server: LiveServer, conversation_of: Callable[[int], str]) -> None:
    """Send the files of a fresh agent at once, and look at what was kept."""
    agent = server.make_agent()
    before = size_of_objects(server)

    def send(number: int, size_bytes: int = SIZE_BYTES) -> Answer:
        data = base64.b64encode(os.urandom(size_bytes)).decode()
        file = {"filename": f"{number}.bin", "data": data}
        item = {"type": "attachments", "attachments": [file]}
        body = {"conversation": {"conversation_id": conversation_of(number)}, "items": [item]}
        return server.post_json("/api/v1/batch/", body, key=agent.write_key)

    assert send(N_FILES, 1).status == 200  # an agent that has something already
    answers = at_once(N_FILES, send)
    assert sorted(answer.status for answer in answers) == [200] + [507] * (N_FILES - 1)
    assert {answer.json["code"] for answer in answers if answer.status == 507} == {"storage_limit"}
    usage = server.get_json("/api/v1/usage/storage/", key=agent.read_key)
    assert usage["stored_bytes"] == SIZE_BYTES + 1
    assert size_of_objects(server) == before + SIZE_BYTES + 1


def size_of_objects(server: LiveServer) -> int:
    """Add up what is kept."""
    blobs = server.data_dir / "files" / "blobs"
    return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())
