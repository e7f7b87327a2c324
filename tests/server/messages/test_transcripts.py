"""Transcripts: their order, what each kind shows, and times of the conversation around them."""

from __future__ import annotations

from typing import Any

import pytest

from agentsight.server.messages.store_search import index_step
from tests.support.http import House, People, Person

pytestmark = pytest.mark.anyio


def at(second: int) -> str:
    """Return a time of the test's minute."""
    return f"2026-09-01T12:00:{second:02}Z"


async def act(person: Person, pk: int, **fields: Any) -> dict[str, Any]:
    """Store an action and return how it shows."""
    body = {"conversation": pk, "action_name": "search"} | fields
    answer = await person.post("/api/action_logs/", body)
    assert answer.status == 201, answer.body
    return next(m for m in await person.transcript(pk) if m["id"] == answer.json()["message"])


async def test_order_is_by_time_then_by_arrival(people: People) -> None:
    """Whatever order things came in."""
    pk = await people.alice.conversation()
    for content, second in (("c", 3), ("a", 1), ("b1", 2), ("b2", 2), ("b3", 2)):
        await people.alice.message(pk, content, timestamp=at(second))
    shown = [m["content"] for m in await people.alice.transcript(pk)]
    assert shown == ["a", "b1", "b2", "b3", "c"]


async def test_a_conversations_times_hold_its_messages(people: People) -> None:
    """It starts with the earliest and ends with the latest; token usage moves nothing."""
    pk = await people.alice.conversation(timestamp=at(10))
    row = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert (row["started_at"], row["ended_at"]) == (at(10), None)
    await people.alice.message(pk, timestamp=at(20))
    await people.alice.message(pk, timestamp=at(5))
    usage = {"conversation": pk, "action_name": "token_usage", "timestamp": at(50)}
    assert (await people.alice.post("/api/action_logs/", usage)).status == 201
    row = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert (row["started_at"], row["ended_at"], row["message_count"]) == (at(5), at(20), 2)


async def test_an_action_shows_as_a_message(people: People) -> None:
    """With its name, its text and one log; `error_msg` is read as `error_message`."""
    pk = await people.alice.conversation()
    message = await act(
        people.alice, pk, started_at=at(1), ended_at="around noon", duration_ms=12,
        tools_used={"t": [1]}, response={"hits": 3}, error_msg="timeout", metadata={"m": 1},
    )  # fmt: skip
    assert (message["sender"], message["content"]) == ("agent", "Action search performed")
    assert (message["action_name"], message["kind"], message["button"]) == (
        "search",
        "action",
        None,
    )
    [log] = message["action_logs"]
    assert (log["started_at"], log["ended_at"]) == (at(1), "around noon")
    assert (log["duration_ms"], log["tools_used"]) == (12, {"t": [1]})
    assert (log["response"], log["error_message"]) == ('{"hits":3}', "timeout")
    assert log["metadata"] == {"m": 1}


@pytest.mark.parametrize(
    ("sent", "shown"), [(12, 12), (12.5, 12.5), ("7", 7), (0, 0), (None, None), ("", None)]
)
async def test_durations_are_numbers(people: People, sent: Any, shown: Any) -> None:
    """Whole ones are shown whole."""
    pk = await people.alice.conversation()
    [log] = (await act(people.alice, pk, duration_ms=sent))["action_logs"]
    assert log["duration_ms"] == shown
    assert isinstance(log["duration_ms"], int) == isinstance(shown, int)


async def test_an_action_without_details(people: People) -> None:
    """No error is an empty text, nothing else is made up."""
    pk = await people.alice.conversation()
    [log] = (await act(people.alice, pk))["action_logs"]
    assert (log["error_message"], log["tools_used"], log["response"]) == ("", None, None)
    assert (log["metadata"], log["started_at"], log["duration_ms"]) == ({}, None, None)


async def test_a_button_shows_as_its_label(people: People) -> None:
    """With its event, label and value."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "button_event": "pick", "label": "Yes", "value": "y"}
    answer = await people.alice.post("/api/buttons/", body | {"metadata": {"k": 1}})
    [message] = await people.alice.transcript(pk)
    assert (message["kind"], message["sender"]) == ("button", "end_user")
    assert (message["content"], message["metadata"]) == ("Yes", {"k": 1})
    assert message["button"].pop("id") == answer.json()["id"]
    assert message["button"] == {
        "button_event": "pick", "label": "Yes", "value": "y", "metadata": {"k": 1},
    }  # fmt: skip


async def test_who_speaks(people: People) -> None:
    """End user, agent and system, in any case; missing is the end user."""
    pk = await people.alice.conversation()
    for sender in (None, "", "END_USER", " agent ", "system"):
        await people.alice.message(pk, sender=sender, author="Ann")
    shown = await people.alice.transcript(pk)
    assert [m["sender"] for m in shown] == ["end_user"] * 3 + ["agent", "system"]
    assert {m["author"] for m in shown} == {"Ann"}


async def test_every_message_has_a_uid(people: People) -> None:
    """A UUIDv7 that later messages sort behind."""
    pk = await people.alice.conversation()
    ids = [await people.alice.message(pk) for _ in range(3)]
    shown = await people.alice.transcript(pk)
    assert [m["id"] for m in shown] == ids == sorted(ids)
    assert [m["uid"][14] for m in shown] == ["7"] * 3
    assert len({m["uid"] for m in shown}) == 3


async def test_the_index_is_fed_in_strides(house: House, people: People) -> None:
    """What stands in the queue is found as well as what was moved on."""
    pk = await people.alice.conversation()
    await people.alice.message(pk, "an indexed Straße")
    while await index_step(house.db):
        pass
    await people.alice.message(pk, "a queued Straße")
    for needle, count in (("indexed strasse", 1), ("QUEUED STRASSE", 1), ("ß", 1), ("none", 0)):
        answer = await people.alice.get("/api/conversations/", {"message_contains": needle})
        assert answer.json()["count"] == count, needle


async def test_a_stride_of_long_messages_is_short(house: House, people: People) -> None:
    """Nobody else writes while SQLite indexes: by their text, not their number, it takes time."""
    pk = await people.alice.conversation()
    while await index_step(house.db):
        pass
    for _ in range(6):
        await people.alice.message(pk, "word " * 60_000)
    moved = [0]
    while n_moved := await index_step(house.db):
        moved.append(n_moved)
    assert max(moved) <= 2
    answer = await people.alice.get("/api/conversations/", {"message_contains": "word word"})
    assert answer.json()["count"] == 1
