"""What a restored backup brings back is erased again, and late resends stay dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentsight.server.removals import service
from agentsight.server.removals.service_replay import replay
from agentsight.server.times import to_text
from tests.server.removals.worlds import (
    CONVERSATIONS,
    EARLY,
    FILES,
    blobs_of,
    fill,
    item,
    left,
    links,
    send,
)
from tests.support.http import House, path_of

pytestmark = pytest.mark.anyio


async def forget(house: House) -> None:
    """Let the database be as if the erasures had never been heard of."""
    for table in ("erasures", "receipts"):
        await house.run(f"DELETE FROM {table}")


async def test_what_came_back_is_erased_again(own_house: House) -> None:
    """Conversations, a customer's, single files; nothing else; and only once."""
    house, people = own_house, await own_house.people()
    alice, bob, carol = people.alice, people.bob, people.carol
    began = house.clock()
    for person in (alice, bob, carol):
        await fill(person, "c", b"one", customer_id="jane")
    await fill(alice, "alone", b"two")
    await fill(alice, "stays", b"three", b"four")
    house.clock.move(60)
    await service.erase_customer(house.parts, people.organisation, "jane")
    await alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/alone/?erase=true")
    file = links(await fill(alice, "files", b"five", b"six"))[0]
    await alice.writer.send("DELETE", f"{FILES}{file['uid']}/?erase=true")
    assert (await replay(house.parts)).is_quiet

    # As a backup from before would: the ledger is empty, and the rows are there again.
    await forget(house)
    house.clock.now_us = began
    for person in (alice, bob):
        await fill(person, "c", b"one", customer_id="jane")
    await fill(alice, "alone", b"two")
    again = links(await fill(alice, "files-too", b"five"))[0]
    await house.run("UPDATE attachments SET uid = $1 WHERE uid = $2", file["uid"], again["uid"])
    house.clock.move(120)
    await send(alice, "made-later", item("message", content="x", timestamp=to_text(house.clock())),
               customer_id="jane", timestamp=to_text(house.clock()))  # fmt: skip

    done = await replay(house.parts)
    assert (done.n_learned, done.n_written, done.n_foreign) == (3, 0, 0)
    assert (done.n_conversations, done.n_attachments) == (3, 4)
    rows = await house.rows(
        "SELECT conversation_id FROM conversations WHERE agent_id = $1 ORDER BY conversation_id",
        alice.access.agent_id,
    )
    assert [name for (name,) in rows] == ["files", "files-too", "made-later", "stays"]
    assert await left(house, bob) == {}
    assert (await left(house, carol))["conversations"] == 1
    assert len(blobs_of(house, alice)) == 3  # three, four and six
    for uid in done.receipt_uids:
        work = await service.read_receipt(house.parts, people.organisation, uid)
        assert (work.stage, work.receipt.kind) == ("complete", "replay")
    late = await send(bob, "c", item("message", content="late", timestamp=EARLY))
    assert [one["status"] for one in late["items"]] == ["erased"]
    assert (await replay(house.parts)).is_quiet


async def test_a_store_that_lost_its_entries_gets_them_again(own_house: House) -> None:
    """From the database, whose word is as good."""
    house, people = own_house, await own_house.people()
    await fill(people.alice, "c", b"one")
    answer = await people.alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/c/?erase=true")
    entry = Path(house.parts.settings.data_dir) / "files" / "erasures" / answer.json()["uid"]
    before = entry.read_bytes()
    assert b"hash" in before
    assert b'"c"' not in before
    entry.unlink()
    assert (await replay(house.parts)).n_written == 1
    assert entry.read_bytes() == before


async def test_entries_of_another_key_are_told(own_house: House) -> None:
    """Nobody can say what they name; nothing is erased by guess, nothing breaks."""
    house, people = own_house, await own_house.people()
    await fill(people.alice, "c", b"one")
    answer = await people.alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/c/?erase=true")
    entry = Path(house.parts.settings.data_dir) / "files" / "erasures" / answer.json()["uid"]
    text = entry.read_bytes()
    await forget(house)
    for wrong in (text.replace(b'"key_id":"', b'"key_id":"0'), b"broken", b""):
        entry.write_bytes(wrong)
        done = await replay(house.parts)
        assert (done.n_foreign, done.n_learned) == (1, 0)


async def test_an_agent_that_took_anothers_number_is_not_meant(own_house: House) -> None:
    """Row ids begin anew in a restored copy; uids do not."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    began = house.clock()
    made = await fill(alice, "c", b"one")
    house.clock.move(60)
    await alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    await forget(house)
    house.clock.now_us = began
    await house.run("UPDATE agents SET uid = 'another' WHERE id = $1", alice.access.agent_id)
    again = await fill(alice, "c", b"one")
    done = await replay(house.parts)
    assert (done.n_learned, done.n_conversations) == (0, 0)
    assert (await house.stranger.get(path_of(links(again)[0]["file_url"]))).body == b"one"
