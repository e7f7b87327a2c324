"""The application is joined once: its lifespan opens what it closes, and its routes answer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.http import House, People, open_house

pytestmark = pytest.mark.anyio


async def test_healthz(house: House) -> None:
    """It says that it is alive without asking anything."""
    answer = await house.stranger.get("/healthz")
    assert answer.status == 200
    assert answer.json()["status"] == "ok"


async def test_readyz(house: House) -> None:
    """It says that every part answers."""
    answer = await house.stranger.get("/readyz")
    assert (answer.status, answer.json()["status"]) == (200, "ok")
    assert set(answer.json()["checks"]) == {"database", "storage", "instance"}


async def test_round_trip(house: House, people: People) -> None:
    """A message goes in and comes out."""
    opened = await people.alice.post("/api/conversations/", {"conversation_id": "c"})
    assert opened.status == 201
    pk = opened.json()["id"]
    tracked = await people.alice.post("/api/track/", {"conversation": pk, "content": "hi"})
    assert tracked.status == 201
    read = await people.alice.get(f"/api/conversations/{pk}/")
    assert [m["content"] for m in read.json()["messages"]] == ["hi"]


async def test_a_start_removes_what_a_crash_left_of_uploads(
    sqlite_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else ever would; what an upload may still write to stays."""
    path = tmp_path / "agentsight.db"
    path.write_bytes(sqlite_template.read_bytes())
    async with open_house(f"sqlite:///{path}", tmp_path) as house:
        store = house.parts.blobs.local_path("x")
        assert store is not None
        folder = store.parent / "tmp"
        folder.mkdir(exist_ok=True)
    for name, age_s in (("old", 25 * 3600), ("new", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    caplog.set_level("INFO", "agentsight.server")
    async with open_house(f"sqlite:///{path}", tmp_path):
        assert "interrupted uploads left: 1 files" in caplog.text
        assert [file.name for file in folder.iterdir()] == ["new"]
