"""What time removes: the grace period, retention, and contents that nothing refers to."""

from __future__ import annotations

import pytest

from agentsight.server.problems import Problem
from agentsight.server.removals import service_retention
from agentsight.server.removals.service_chores import (
    Collector,
    carry_on,
    grace_step,
    retention_step,
)
from tests.server.removals.worlds import (
    CONVERSATIONS,
    FILES,
    blobs_of,
    fill,
    item,
    left,
    links,
    send,
)
from tests.support.http import House, Person, path_of

pytestmark = pytest.mark.anyio

DAY_S = 24 * 3600


async def hide(person: Person, path: str) -> None:
    assert (await person.writer.send("DELETE", path)).status == 200


async def run(house: House) -> None:
    """Let the chores do all there is to do."""
    for step in (grace_step, retention_step, carry_on):
        while await step(house.parts):
            pass


async def receipts(house: House, kind: str) -> int:
    return await house.count("receipts", "kind = $1 AND stage = 'complete'", kind)


async def test_what_was_hidden_is_erased_after_the_grace_period(own_house: House) -> None:
    """Seven days by default; up to then it comes back whole."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    made = await fill(alice, "c", b"one", b"two")
    other = await fill(alice, "d", b"three", b"four")
    await hide(alice, f"{CONVERSATIONS}{made['uid']}/")
    await hide(alice, f"{FILES}{links(other)[0]['uid']}/")
    house.clock.move(7 * DAY_S - 1)
    await run(house)
    assert len(blobs_of(house, alice)) == 4
    house.clock.move(2)
    await run(house)
    assert (await left(house, alice))["conversations"] == 1
    assert (await left(house, alice))["attachments"] == 1
    assert len(blobs_of(house, alice)) == 1
    assert await receipts(house, "grace") == 2
    gone = await alice.post(f"{CONVERSATIONS}{made['uid']}/restore/", {})
    assert gone.is_error(404, "not_found")
    late = await send(alice, "c", item("message", content="x"))
    assert [one["status"] for one in late["items"]] == ["erased"]


async def test_a_hidden_file_of_a_hidden_conversation_goes_once(own_house: House) -> None:
    """With its conversation."""
    house, people = own_house, await own_house.people()
    made = await fill(people.alice, "c", b"one")
    await hide(people.alice, f"{FILES}{links(made)[0]['uid']}/")
    await hide(people.alice, f"{CONVERSATIONS}{made['uid']}/")
    house.clock.move(8 * DAY_S)
    await run(house)
    assert await left(house, people.alice) == {}
    assert await receipts(house, "grace") == 1


async def test_retention_goes_by_the_last_message(own_house: House) -> None:
    """By environment before all others; another agent's are not touched; hidden ones go too."""
    house, people = own_house, await own_house.people()
    alice, organisation = people.alice, people.organisation
    for person in (alice, people.bob):
        for name, environment, at in (
            ("old", "production", "2026-08-01T00:00:00Z"),
            ("new", "production", "2026-09-20T00:00:00Z"),
            ("lab-old", "development", "2026-08-01T00:00:00Z"),
            ("lab-new", "development", "2026-09-20T00:00:00Z"),
        ):
            await send(person, name, item("message", content="x", timestamp=at),
                       environment=environment, timestamp=at)  # fmt: skip
    # An old conversation with a message of yesterday is kept.
    await send(alice, "long", item("message", content="x", timestamp="2026-07-01T00:00:00Z"))
    await send(alice, "long", item("message", content="x", timestamp="2026-09-20T00:00:00Z"))
    await hide(alice, f"{CONVERSATIONS}by-id/old/")
    db, now = house.db, house.clock()
    await service_retention.set_rule(db, organisation, alice.slug, None, 30, now_us=now)
    await service_retention.set_rule(db, organisation, alice.slug, "dev", 100, now_us=now)
    await run(house)
    rows = await house.rows(
        "SELECT conversation_id FROM conversations WHERE agent_id = $1 ORDER BY conversation_id",
        alice.access.agent_id,
    )
    assert [name for (name,) in rows] == ["lab-new", "lab-old", "long", "new"]
    assert (await left(house, people.bob))["conversations"] == 4
    assert await receipts(house, "retention") == 1
    assert (await service_retention.list_rules(db, organisation))[0].retention_days == 30
    await service_retention.set_rule(db, organisation, alice.slug, "dev", 1, now_us=now)
    await service_retention.unset_rule(db, organisation, alice.slug, None, now_us=now)
    house.clock.move(60 * DAY_S)
    await run(house)
    left_now = await house.rows(
        "SELECT conversation_id FROM conversations WHERE agent_id = $1 ORDER BY conversation_id",
        alice.access.agent_id,
    )
    assert [name for (name,) in left_now] == ["long", "new"]
    # What retention removed may come again: it is not remembered, and goes by the rule again.
    answer = await send(alice, "lab-old", item("message", content="x"))
    assert [one["status"] for one in answer["items"]] == ["stored"]


async def test_rules_are_checked(own_house: House) -> None:
    """Days from 1; agents and environments that are there."""
    house, people = own_house, await own_house.people()
    db, slug = house.db, people.alice.slug
    for agent, environment, days, status in (
        (slug, None, 0, 400), (slug, None, 40_000, 400), ("nobody", None, 1, 404),
        (slug, "nowhere", 1, 404), (people.carol.slug, None, 1, 404),
    ):  # fmt: skip
        with pytest.raises(Problem) as refused:
            await service_retention.set_rule(
                db, people.organisation, agent, environment, days, now_us=1
            )
        assert refused.value.status == status
    with pytest.raises(Problem) as refused:
        await service_retention.unset_rule(db, people.organisation, slug, None, now_us=1)
    assert refused.value.status == 404
    assert await service_retention.list_rules(db, people.organisation, slug) == []


async def test_an_upload_that_nobody_refers_to_is_collected_when_its_pin_is_over(
    own_house: House,
) -> None:
    """Not before; and not what a message refers to."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    kept = await fill(alice, "c", b"referred to")
    body = {"filename": "a.bin", "size_bytes": 7}
    made = await alice.post("/api/v1/uploads/", body)
    assert made.status == 201, made.body
    put = await alice.writer.send("PUT", path_of(made.json()["upload_url"]), body=b"waiting")
    assert put.status == 200, put.body
    collector = Collector()
    await collector.step(house.parts)
    await run(house)
    assert len(blobs_of(house, alice)) == 2
    house.clock.move(2 * DAY_S)
    assert await collector.step(house.parts) == 1
    await run(house)
    assert len(blobs_of(house, alice)) == 1
    assert (await house.stranger.get(path_of(links(kept)[0]["file_url"]))).status == 200
    counts = await house.rows(
        "SELECT sum(n_blobs), sum(stored_bytes) FROM storage_counts WHERE agent_id = $1",
        alice.access.agent_id,
    )
    assert [int(n) for n in counts[0]] == [1, 11]


async def test_an_upload_of_before_goes_with_what_it_was_for(own_house: House) -> None:
    """One that was made later waits for its own message, and keeps the bytes."""
    house, people = own_house, await own_house.people()
    alice = people.alice

    async def upload() -> str:
        made = await alice.post("/api/v1/uploads/", {"filename": "a", "size_bytes": 5})
        await alice.writer.send("PUT", path_of(made.json()["upload_url"]), body=b"bytes")
        return made.json()["uid"]

    async def refer(conversation_id: str, uid: str) -> None:
        body = {"conversation": {"conversation_id": conversation_id}, "items": [
            item("attachments", attachments=[{"upload": uid, "item_key": uid}])]}  # fmt: skip
        answer = await alice.post("/api/v1/batch/", body)
        assert answer.status == 200, answer.body

    first = await upload()
    await refer("a", first)
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/a/?erase=true")
    assert answer.json()["removed"]["rows"]["uploads"] == 1
    assert blobs_of(house, alice) == set()
    house.clock.move(1)
    second = await upload()
    await refer("b", second)
    house.clock.move(1)
    third = await upload()
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/b/?erase=true")
    assert answer.json()["kept"] == {"contents": 1, "bytes": 5}
    house.clock.move(1)
    await refer("c", third)
    assert len(blobs_of(house, alice)) == 1


async def test_a_chore_with_nothing_to_do_writes_nothing(own_house: House) -> None:
    """An idle server leaves the writer alone."""
    house = own_house
    for step in (grace_step, retention_step, carry_on, Collector().step):
        assert await step(house.parts) == 0
