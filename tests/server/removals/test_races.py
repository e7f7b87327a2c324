"""The same bytes removed and sent at once: whoever was told "stored" can read them."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.access import Access
from agentsight.server.attachments import store
from agentsight.server.db import Tx, sql
from agentsight.server.removals import store_blobs, store_receipts, store_replay
from agentsight.server.removals.service import begin_for_many
from agentsight.server.removals.service_chores import Collector, carry_on
from agentsight.server.removals.service_work import remove_files
from tests.server.removals.worlds import (
    CONVERSATIONS,
    FILES,
    blobs_of,
    file_of,
    item,
    links,
    send,
)
from tests.support.http import House, Person, path_of

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


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


async def test_a_file_and_its_conversation_erased_at_once_are_counted_once(
    own_house: House,
) -> None:
    """The receipts together say six, and so do tombstones and counters.

    The conversation's erasure has read the rows, and waits with the first of them for the file's.
    """
    house, people = own_house, await own_house.people()
    alice, access = people.alice, people.alice.access
    files = [file_of(b"%d" % n) for n in range(6)]
    made = await send(alice, "c", item("message", content="x", attachments=files))
    uids = [file["uid"] for file in links(made)]
    answers = await asyncio.gather(
        alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/c/?erase=true"),
        *(alice.writer.send("DELETE", f"{FILES}{uid}/?erase=true") for uid in uids),
    )
    receipts = [one.json() for one in answers if one.status in (200, 202)]
    assert sum(one["removed"]["rows"]["attachments"] for one in receipts) == 6
    await assert_all_is_counted(house, alice)

    # And surely at the same moment: read by both, then removed by both.
    await send(alice, "d", item("message", content="x", attachments=[file_of(b"last")]),
               timestamp="2027-01-01T00:00:00Z")  # fmt: skip
    rows = await house.db.read(lambda tx: store_replay.some_attachments(tx, access, 0, 9))

    async def remove(uid: str) -> int:
        async def unit(tx: Tx) -> int:
            work = await begin_for_many(tx, access, "grace", uid, now_us=1)
            await remove_files(tx, access, work, rows, now_us=1)
            await store_receipts.put(tx, work, now_us=1)
            return work.receipt.rows.attachments

        return await house.db.write(unit)

    assert len(rows) == 1
    assert sorted(await asyncio.gather(remove("r1"), remove("r2"))) == [0, 1]
    await assert_all_is_counted(house, alice)


async def assert_all_is_counted(house: House, person: Person) -> None:
    """Counters are those of the rows, and each row that is gone has one tombstone."""
    usage = (await person.get("/api/v1/usage/storage/")).json()
    n_rows = await house.count("attachments", "agent_id = $1", person.access.agent_id)
    assert (usage["files"], usage["referenced_bytes"] >= 0) == (n_rows, True)
    buried = await house.rows(
        "SELECT row_id, count(*) FROM tombstones WHERE kind = 'attachment' GROUP BY row_id"
    )
    assert {n for _, n in buried} == {1}
