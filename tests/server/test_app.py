"""The application is joined once: its lifespan opens what it closes, and its routes answer."""

from __future__ import annotations

import pytest

from tests.support.http import House, People

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
