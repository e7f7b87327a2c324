"""The same bytes removed and sent at once: whoever was told "stored" can read them."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.access import Access
from agentsight.server.attachments import store
from agentsight.server.db import Tx, sql
from agentsight.server.removals import store_blobs
from agentsight.server.removals.service_chores import Collector, carry_on
from tests.server.removals.worlds import CONVERSATIONS, blobs_of, file_of, item, links, send
from tests.support.http import House, Person, path_of

pytestmark = pytest.mark.anyio


async def send_file(person: Person, conversation_id: str, data: bytes) -> str:
    one = item("message", content="x", attachments=[file_of(data)])
    (file,) = links(await send(person, conversation_id, one))
    return path_of(file["file_url"])


async def test_bytes_sent_while_they_are_removed_are_kept(own_house: House) -> None:
    """Over and over, several senders against an eraser and the collector."""
    house, people = own_house, await own_house.people()
    alice, data, n_senders = people.alice, b"the same bytes" * 2_000, 3
    collector = Collector()
    urls: dict[str, str] = {}

    async def erase(names: list[str]) -> None:
        for name in names:
            path = f"{CONVERSATIONS}by-id/{name}/?erase=true"
            assert (await alice.writer.send("DELETE", path)).status in (200, 202)
            urls.pop(name)

    async def bring(name: str) -> None:
        urls[name] = await send_file(alice, name, data)

    for n in range(12):
        old = list(urls)
        await asyncio.gather(
            erase(old),
            *(bring(f"c{n}-{k}") for k in range(n_senders)),
            collector.step(house.parts),
            carry_on(house.parts),
        )
        assert len(urls) == n_senders
        for url in urls.values():
            answer = await house.stranger.get(url)
            assert (answer.status, answer.body == data) == (200, True)
    await erase(list(urls))
    while await carry_on(house.parts):
        pass
    assert blobs_of(house, alice) == set()


async def test_messages_sent_while_their_conversation_is_erased(own_house: House) -> None:
    """Each is stored or dropped, none is refused; what is there afterwards is whole."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    await send(alice, "c", *(item("message", content=f"{n}") for n in range(700)))

    async def talk(k: int) -> list[str]:
        said = []
        for n in range(10):
            fresh = item("message", content=f"new {k} {n}", timestamp="2026-12-01T00:00:00Z")
            answer = await send(alice, "c", fresh, timestamp="2026-12-01T00:00:00Z")
            said += [one["status"] for one in answer["items"]]
        return said

    erasing = alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/c/?erase=true")
    answer, *said = await asyncio.gather(erasing, *(talk(k) for k in range(4)))
    assert answer.status in (200, 202)
    assert {status for statuses in said for status in statuses} == {"stored"}
    while await carry_on(house.parts):
        pass
    listed = (await alice.get("/api/conversations/")).json()
    assert listed["count"] == 1
    (row,) = listed["results"]
    assert not [m for m in row["messages"] if not m["content"].startswith("new")]
    assert await house.count("conversations", "erased_by IS NOT NULL") == 0
    assert await house.count("messages") == len(row["messages"])


async def test_bytes_on_their_way_out_are_never_taken_up_again(own_house: House) -> None:
    """Sent between the row's end and the object's, they are stored anew, and stay."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    await send_file(alice, "old", b"bytes")
    (before,) = blobs_of(house, alice)

    async def let_go(tx: Tx) -> None:
        await house_rows_go(tx, alice.access)

    await house.db.write(let_go)
    url = await send_file(alice, "new", b"bytes")
    assert len(blobs_of(house, alice)) == 2
    while await carry_on(house.parts):
        pass
    (after,) = blobs_of(house, alice)
    assert after != before
    assert (await house.stranger.get(url)).body == b"bytes"


async def house_rows_go(tx: Tx, access: Access) -> None:
    """Remove the agent's attachments and let their contents go, as an erasure's first unit does."""
    rows = await tx.rows(sql("SELECT id, blob_id FROM attachments WHERE agent_id = $1"),
                         access.agent_id)  # fmt: skip
    await tx.execute(sql("DELETE FROM attachments WHERE agent_id = $1"), access.agent_id)
    blob_ids = [blob_id for _, blob_id in rows]
    released = await store_blobs.release(tx, access, blob_ids, None, now_us=1)
    assert released.n_gone == len(set(blob_ids))


async def test_a_removal_waits_for_who_refers_at_the_same_moment(own_house: House) -> None:
    """PostgreSQL lets units run side by side: the one that counts references waits for the other.

    On SQLite there is one writer, and no unit is ever in the middle of another.
    """
    house, people = own_house, await own_house.people()
    access = people.alice.access
    if house.db.dialect != "postgresql":
        return
    await send_file(people.alice, "c", b"bytes")
    ((blob_id, sha256),) = await house.rows("SELECT id, sha256 FROM blobs")
    has_found, may_go_on = asyncio.Event(), asyncio.Event()

    async def refer(tx: Tx) -> None:
        assert await store.find_blob(tx, access, sha256) == blob_id
        has_found.set()
        await may_go_on.wait()
        await tx.execute(sql(
            "INSERT INTO attachments (agent_id, conversation_id, message_id, blob_id, uid, type,"
            " filename, mime_type, sender, sent_at, size_bytes, sha256, created_at, updated_at)"
            " SELECT agent_id, conversation_id, message_id, blob_id, 'another', type, filename,"
            " mime_type, sender, sent_at, size_bytes, sha256, 1, 1 FROM attachments"
        ))  # fmt: skip

    async def remove(tx: Tx) -> int:
        await tx.execute(sql("DELETE FROM attachments WHERE uid <> 'another'"))
        return (await store_blobs.release(tx, access, [blob_id], None, now_us=1)).n_gone

    referring = asyncio.create_task(house.db.write(refer))
    await has_found.wait()
    removing = asyncio.create_task(house.db.write(remove))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while not removing.done() and not await house.rows(waiting):
        pass
    may_go_on.set()
    await referring
    assert await removing == 0
    assert await house.count("blobs", "state = 'stored'") == 1
