"""What comes late: resends of what was erased are dropped, what is new is stored."""

from __future__ import annotations

from typing import Any

import pytest

from agentsight.server.removals import service
from agentsight.server.times import to_text
from tests.server.removals.worlds import (
    BATCH,
    CONVERSATIONS,
    EARLY,
    FILES,
    file_of,
    fill,
    item,
    left,
    links,
    send,
)
from tests.support.http import House, People, Person, base64_file

pytestmark = pytest.mark.anyio


def statuses(answer: dict[str, Any]) -> list[tuple[str, bool]]:
    """Return each item's status, and whether it has an id."""
    return [(one["status"], one["id"] is not None) for one in answer["items"]]


async def erase(person: Person, ref: str) -> None:
    answer = await person.writer.send("DELETE", f"{CONVERSATIONS}{ref}/?erase=true")
    assert answer.status in (200, 202), answer.body


def now_text(house: House) -> str:
    """Move the clock on by a second, and return its time."""
    house.clock.move(1)
    return to_text(house.clock())


async def test_a_late_batch_is_answered_and_not_stored(house: House, people: People) -> None:
    """Sent again, or for the first time: `erased`, without ids, and nothing is there."""
    alice = people.alice
    items = [item("message", content="secret"), item("usage", model="m", total_tokens=1),
             item("attachments", attachments=[file_of(b"late bytes")])]  # fmt: skip
    await send(alice, "c", *items)
    await erase(alice, "by-id/c")
    objects = house.objects()
    answer = await send(alice, "c", *items, item("message", content="was on its way"))
    assert statuses(answer) == [("erased", False)] * 4
    assert (answer["conversation"], answer["uid"], answer["conversation_id"]) == (None, None, "c")
    assert await left(house, alice) == {}
    assert house.objects() == objects


async def test_what_is_new_is_stored_under_the_same_id(house: House, people: People) -> None:
    """Telephone numbers live on: of a mixed batch the new half is stored, and nothing else said."""
    alice = people.alice
    await fill(alice, "+39 02 1", customer_id="jane", name="Jane")
    await erase(alice, "by-id/+39 02 1".replace(" ", "%20").replace("+", "%2B"))
    late = item("message", content="old")
    fresh = item("message", content="new", timestamp=now_text(house))
    answer = await send(alice, "+39 02 1", late, fresh, customer_id="jane", name="Jane")
    assert statuses(answer) == [("erased", False), ("stored", True)]
    row = (await alice.get(f"/api/conversations/{answer['conversation']}/")).json()
    assert [m["content"] for m in row["messages"]] == ["new"]
    assert (row["name"], row["customer_id"]) == (None, "jane")
    assert row["started_at"] == fresh["timestamp"]
    again = await send(alice, "+39 02 1", late, fresh)
    assert statuses(again) == [("erased", False), ("repeated", True)]


async def test_other_ids_and_other_agents_are_not_touched(people: People) -> None:
    """The ledger is exact: another case, another agent's equal id."""
    await fill(people.alice, "c")
    await erase(people.alice, "by-id/c")
    for person, name in ((people.alice, "C"), (people.bob, "c"), (people.carol, "c")):
        answer = await send(person, name, item("message", content="mine"))
        assert statuses(answer) == [("stored", True)]


async def test_a_customers_late_items_are_dropped_everywhere(house: House, people: People) -> None:
    """In conversations that were never here too; and in those, without the customer's id."""
    alice, bob, carol = people.alice, people.bob, people.carol
    await fill(alice, "a", customer_id="jane")
    await service.erase_customer(house.parts, people.organisation, "jane")
    for person in (alice, bob):
        answer = await send(person, "unseen", item("message", content="late"), customer_id="jane")
        assert statuses(answer) == [("erased", False)]
        answer = await send(person, "unseen", item("message", content="more of it"))
        assert statuses(answer) == [("erased", False)]
    for person, customer in ((carol, "jane"), (alice, "Jane")):
        answer = await send(person, "mine", item("message", content="x"), customer_id=customer)
        assert statuses(answer) == [("stored", True)]
    fresh = item("message", content="new", timestamp=now_text(house))
    answer = await send(alice, "anew", fresh, customer_id="jane", timestamp=fresh["timestamp"])
    assert statuses(answer) == [("stored", True)]
    # Opened anew, its customer is known: an old item of it is dropped all the same.
    answer = await send(alice, "anew", item("message", content="old"))
    assert statuses(answer) == [("erased", False)]


async def test_published_clients_are_told_410(house: House, people: People) -> None:
    """Once, and never again: they do not repeat a 4xx. Nothing is made on the way."""
    alice = people.alice
    await fill(alice, "c")
    await erase(alice, "by-id/c")
    early = "2026-09-01T10:00:00Z"
    for path, body in (
        ("/api/conversations/", {"conversation_id": "c", "timestamp": early}),
        ("/api/track/", {"conversation_id": "c", "content": "x", "timestamp": early}),
        ("/api/action_logs/", {"conversation_id": "c", "action_name": "x", "timestamp": early}),
        ("/api/buttons/", {"conversation_id": "c", "button_event": "e", "label": "l",
                           "value": "v", "timestamp": early}),
        ("/api/attachments/", {"conversation_id": "c", "attachments": [base64_file()],
                               "timestamp": early}),
    ):  # fmt: skip
        answer = await alice.post(path, body)
        assert answer.is_error(410, "erased"), (path, answer.body)
    assert await left(house, alice) == {}
    house.clock.move(1)
    pk = await alice.conversation("c")
    late = await alice.post("/api/track/", {"conversation": pk, "content": "x", "timestamp": early})
    assert late.is_error(410, "erased")
    assert (await alice.post("/api/track/", {"conversation": pk, "content": "x"})).status == 201


async def test_a_late_batch_without_a_time_of_its_own_opens_nothing(
    house: House, people: People
) -> None:
    """It seems to begin now, and all that is in it is of before: no shell with a customer's id."""
    alice = people.alice
    batch = {"conversation": {"conversation_id": "c", "customer_id": "bob", "name": "Bob"},
             "items": [item("message", content="x")]}  # fmt: skip
    assert (await alice.post(BATCH, batch)).status == 200
    await erase(alice, "by-id/c")
    house.clock.move(1)
    answer = await alice.post(BATCH, batch)
    assert statuses(answer.json()) == [("erased", False)]
    assert answer.json()["conversation"] is None
    assert await left(house, alice) == {}
    # With something new in it, the description is still of the time before.
    fresh = item("message", content="new", timestamp=now_text(house))
    mixed = batch | {"items": [*batch["items"], fresh]}
    answer = await alice.post(BATCH, mixed)
    assert statuses(answer.json()) == [("erased", False), ("stored", True)]
    row = (await alice.get(f"/api/conversations/{answer.json()['conversation']}/")).json()
    assert (row["name"], row["started_at"]) == (None, fresh["timestamp"])


async def test_a_late_batch_fills_nothing_in(house: House, people: People) -> None:
    """In a conversation that was opened anew, either."""
    alice = people.alice
    late = item("message", content="x")
    await send(alice, "c", late, customer_id="bob")
    await erase(alice, "by-id/c")
    fresh = item("message", content="new", timestamp=now_text(house))
    made = await send(alice, "c", fresh, timestamp=fresh["timestamp"])
    batch = {"conversation": {"conversation_id": "c", "customer_id": "bob"}, "items": [late]}
    answer = await alice.post(BATCH, batch)
    assert statuses(answer.json()) == [("erased", False)]
    row = (await alice.get(f"/api/conversations/{made['conversation']}/")).json()
    assert row["customer_id"] is None


@pytest.mark.parametrize("names", ["conversation", "conversation_id"])
async def test_a_published_clients_resend_does_not_bring_the_customer_back(
    house: House, people: People, names: str
) -> None:
    """Its opening has no time and is taken for new, until what follows turns out to be late."""
    alice = people.alice
    opening = {"conversation_id": "c", "customer_id": "bob", "name": "Bob", "device": "d",
               "source": "s", "language": "de", "metadata": {"a": 1},
               "customer_ip_address": "192.0.2.1"}  # fmt: skip
    said = {"content": "x", "timestamp": EARLY}
    pk = (await alice.post("/api/conversations/", opening)).json()["id"]
    await alice.post("/api/track/", said | {"conversation": pk})
    await erase(alice, "by-id/c")
    house.clock.move(1)
    pk = (await alice.post("/api/conversations/", opening)).json()["id"]
    named = {"conversation": pk} if names == "conversation" else {"conversation_id": "c"}
    assert (await alice.post("/api/track/", said | named)).is_error(410, "erased")
    row = (await alice.get(f"/api/conversations/{pk}/")).json()
    told = {name: row[name] for name in opening if name in row}
    assert {name for name, value in told.items() if value} == {"conversation_id"}
    # What is new may still come, and then the opening after it counts.
    assert (await alice.post("/api/track/", {"content": "new"} | named)).status == 201
    assert (await alice.post("/api/conversations/", opening)).status == 200
    assert (await alice.post("/api/track/", said | named)).is_error(410, "erased")
    row = (await alice.get(f"/api/conversations/{pk}/")).json()
    assert (row["customer_id"], len(row["messages"])) == ("bob", 1)


async def test_an_erased_file_is_not_brought_back_by_a_resend(house: House, people: People) -> None:
    """Of a message that is still there: its key is remembered."""
    alice = people.alice
    made = await send(alice, "c", item("message", content="x"))
    message = made["items"][0]["id"]
    body = {"message": message, "conversation": made["conversation"], "item_key": "k-1",
            "attachments": [base64_file(b"erase me")]}  # fmt: skip
    stored = await alice.post("/api/attachments/", body)
    assert stored.status == 201, stored.body
    uid = stored.json()["attachments"][0]["uid"]
    assert (await alice.writer.send("DELETE", f"{FILES}{uid}/?erase=true")).status in (200, 202)
    assert (await alice.post("/api/attachments/", body)).is_error(410, "erased")
    other = await alice.post("/api/attachments/", body | {"item_key": "k-2"})
    assert other.status == 201


async def test_a_resend_does_not_bring_a_batchs_file_back(house: House, people: People) -> None:
    """Its message is known, and stays without it."""
    alice = people.alice
    one = item("message", content="x", attachments=[file_of(b"bytes")])
    made = await send(alice, "c", one)
    uid = links(made)[0]["uid"]
    await alice.writer.send("DELETE", f"{FILES}{uid}/?erase=true")
    again = await send(alice, "c", one)
    assert statuses(again) == [("repeated", True)]
    assert links(again) == []
