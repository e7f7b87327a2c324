"""Erased text leaves the disk: free pages, search indexes, write-ahead log, store of bytes."""

from __future__ import annotations

import sqlite3
import uuid
from pathlib import Path

import pytest

from agentsight.server.attachments.store_texts import put_text
from agentsight.server.db import Tx
from agentsight.server.ids import BlobId
from agentsight.server.removals import service, store_scrubs
from agentsight.server.removals.service_chores import Collector, carry_on
from agentsight.server.removals.service_scrubs import scrub_step
from tests.server.library import index_all
from tests.server.removals.worlds import CONVERSATIONS, file_of, fill, item, links, send
from tests.server.uploads.sending import announce, refer, upload
from tests.support.http import House, open_house

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

UNLIKE = "ʘʡʢʭ"
"""Its trigrams are in no other text."""
INDEXES = ("message_search", "attachment_search", "filename_search")


def traces(root: Path, *markers: str) -> list[tuple[str, str]]:
    """Find texts in the bytes of all files below a folder: the database's and the store's."""
    found = []
    for path in root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += [(path.name, text) for text in markers if text.encode() in data]
    return found


def terms(path: Path, table: str) -> set[str]:
    """Return the trigrams that an index holds in any segment."""
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE VIRTUAL TABLE temp.seen USING fts5vocab(main, {table}, row)")
    found = {row[0] for row in connection.execute("SELECT term FROM temp.seen")}
    connection.close()
    return found


def segments(path: Path, table: str) -> int:
    """Count the segments of an index; what was deleted stays in an older one till it is merged."""
    connection = sqlite3.connect(path)
    (n,) = connection.execute(f"SELECT count(DISTINCT segid) FROM {table}_idx").fetchone()
    connection.close()
    return n


@pytest.fixture
async def sqlite_house(tmp_path: Path, sqlite_template: Path):
    path = tmp_path / "agentsight.db"
    path.write_bytes(sqlite_template.read_bytes())
    async with open_house(f"sqlite:///{path}", tmp_path) as house:
        yield house


async def test_no_byte_of_what_was_erased_is_left(sqlite_house: House, tmp_path: Path) -> None:
    """In a message, a name, a file and the text in it, metadata and ids: in no file, at no end."""
    house, people = sqlite_house, await sqlite_house.people()
    alice = people.alice
    marker = f"mk{uuid.uuid4().hex}"
    text, name = f"{UNLIKE} {marker} secret", f"{marker}{UNLIKE}.txt"
    for n in range(40):
        await fill(alice, f"other-{n}", b"%d" % n, text=f"words of conversation {n} " * 8)
    made = await send(
        alice, f"c-{marker}",
        item("message", content=text, metadata={marker: [marker]}, author=marker,
             attachments=[file_of(text.encode() * 900, name, metadata={"m": marker})]),
        item("action", action_name=marker, response=marker, tools_used={"t": marker}),
        item("button", button_event=marker, label=marker, value=marker),
        item("usage", model=marker, total_tokens=1),
        customer_id=marker, name=marker, device=marker, source=marker, language=marker,
        metadata={"deep": {"er": marker}}, customer_ip_address="203.0.113.77",
    )  # fmt: skip
    body = {"conversation": made["conversation"], "sentiment": "negative", "comment": marker}
    assert (await alice.post("/api/conversation-feedbacks/", body)).status == 201
    (blob_id,) = (await house.rows(
        "SELECT blob_id FROM attachments WHERE uid = $1", links(made)[0]["uid"]))[0]  # fmt: skip

    async def as_examined(tx: Tx) -> None:
        agent_id = alice.access.agent_id
        await put_text(tx, agent_id, BlobId(blob_id), text, is_cut=False, now_us=1)

    await house.db.write(as_examined)
    await index_all(house.parts)
    assert await house.db.scrub()
    database = tmp_path / "agentsight.db"
    assert traces(tmp_path, marker, UNLIKE, "203.0.113.77")
    for table in INDEXES:
        assert UNLIKE[:3] in terms(database, table)
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    assert answer.json()["copies"]["database"] == "cleaned", answer.body
    assert traces(tmp_path, marker, UNLIKE, UNLIKE[1:], "203.0.113.77") == []
    for table in INDEXES:
        assert not {UNLIKE[:3], UNLIKE[1:]} & terms(database, table)
        assert segments(database, table) <= 1
    wal = tmp_path / "agentsight.db-wal"
    assert wal.stat().st_size < 64 * 1024  # the receipt's last word
    # What was not erased can still be found.
    found = await alice.get("/api/conversations/", {"message_contains": "conversation 17"})
    assert found.json()["count"] == 1
    lost = await alice.get("/api/conversations/", {"message_contains": marker})
    assert lost.json()["count"] == 0


async def test_only_an_index_that_lost_something_is_rewritten(
    sqlite_house: House, tmp_path: Path
) -> None:
    """A picture has a name and no text: its erasure leaves the larger indexes as they are."""
    house, people = sqlite_house, await sqlite_house.people()
    database = tmp_path / "agentsight.db"
    for n in range(3):
        await fill(people.alice, f"c{n}", b"%d" % n, text=f"words of {n}")
        await index_all(house.parts)
    made = await send(people.alice, "x", item("message", content="",
        attachments=[file_of(b"x", f"{UNLIKE}.png")]))  # fmt: skip
    await index_all(house.parts)
    before = segments(database, "message_search")
    assert before > 1
    assert UNLIKE[:3] in terms(database, "filename_search")
    (uid,) = (row["uid"] for row in links(made))
    answer = await people.alice.writer.send("DELETE", f"/api/v1/attachments/{uid}/?erase=true")
    assert (answer.status, answer.json()["state"]) == (200, "complete"), answer.body
    assert UNLIKE[:3] not in terms(database, "filename_search")
    assert traces(tmp_path, UNLIKE) == []
    assert (segments(database, "filename_search"), segments(database, "message_search")) == (
        1, before)  # fmt: skip


async def test_a_text_that_waits_for_the_index_goes_too(
    sqlite_house: House, tmp_path: Path
) -> None:
    """And the indexes may be asked afterwards: nothing was taken out that was not in."""
    house, people = sqlite_house, await sqlite_house.people()
    marker = f"mk{uuid.uuid4().hex}"
    made = await send(people.alice, "c", item("message", content=marker,
        attachments=[file_of(b"x", f"{marker}.txt")]))  # fmt: skip
    await fill(people.alice, "d", b"y", text="stays")
    await service.erase_customer(house.parts, people.organisation, "nobody")
    await people.alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    assert traces(tmp_path, marker) == []
    await index_all(house.parts)
    connection = sqlite3.connect(tmp_path / "agentsight.db")
    for table in INDEXES:
        connection.execute(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")
    connection.close()
    found = await people.alice.get("/api/conversations/", {"message_contains": "stays"})
    assert found.json()["count"] == 1


async def test_a_reader_of_an_older_state_delays_the_end(
    sqlite_house: House, tmp_path: Path
) -> None:
    """The receipt says `running` until the log is empty, and then `complete`."""
    house, people = sqlite_house, await sqlite_house.people()
    marker = f"mk{uuid.uuid4().hex}"
    made = await send(people.alice, "c", item("message", content=marker))
    reader = sqlite3.connect(tmp_path / "agentsight.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM messages").fetchone()
    answer = await people.alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    assert (answer.status, answer.json()["state"]) == (202, "running")
    reader.execute("ROLLBACK")
    reader.close()
    (work,) = await service.finish_all(house.parts)
    assert work.stage == "complete"
    assert traces(tmp_path, marker) == []


async def test_a_customers_id_goes_with_them(sqlite_house: House, tmp_path: Path) -> None:
    """Also out of the note of whom the erasure was looking for."""
    house, people = sqlite_house, await sqlite_house.people()
    marker = f"mk{uuid.uuid4().hex}"
    for n in range(210):  # more than one unit marks
        await send(people.alice, f"c{n}", item("message", content="x"), customer_id=marker)
    work = await service.erase_customer(house.parts, people.organisation, marker)
    assert (work.stage, work.receipt.rows.conversations) == ("complete", 210)
    assert traces(tmp_path, marker) == []


async def test_a_content_that_was_kept_leaves_no_trace_when_it_goes(
    sqlite_house: House, tmp_path: Path
) -> None:
    """A younger upload has kept it; its text goes out of index, pages and log some minutes after
    the collector has removed it, once for all that went meanwhile."""
    house, people = sqlite_house, await sqlite_house.people()
    alice, database = people.alice, tmp_path / "agentsight.db"
    marker = f"mk{uuid.uuid4().hex}"
    text = f"{UNLIKE} {marker} secret"
    uploads = []
    for n in range(2):
        data = f"{text} {n}".encode() * 300
        uid = await upload(alice, data, filename=f"{n}.txt")
        assert (await refer(alice, uid, conversation_id="c")).status == 200
        house.clock.move(1)
        uploads.append((await announce(alice, data)).json()["uid"])
    blob_ids = [row[0] for row in await house.rows("SELECT id FROM blobs ORDER BY id")]

    async def as_examined(tx: Tx) -> None:
        for blob_id in blob_ids:
            agent_id = alice.access.agent_id
            await put_text(tx, agent_id, BlobId(blob_id), text, is_cut=False, now_us=1)

    await house.db.write(as_examined)
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}by-id/c/?erase=true")
    assert (answer.json()["state"], answer.json()["kept"]["contents"]) == ("complete", 2)
    assert UNLIKE[:3] in terms(database, "attachment_search")
    for uid in uploads:
        assert (await alice.writer.send("DELETE", f"/api/v1/uploads/{uid}/")).status == 204
    while await Collector().step(house.parts):
        pass
    while await carry_on(house.parts):
        pass
    assert traces(tmp_path / "files", marker) == []
    assert traces(tmp_path, marker)
    assert await scrub_step(house.parts) == 0  # more may come
    house.clock.move(301)
    while await scrub_step(house.parts):
        pass
    assert traces(tmp_path, marker, UNLIKE, UNLIKE[1:]) == []
    assert not {UNLIKE[:3], UNLIKE[1:]} & terms(database, "attachment_search")
    assert await house.count("instance_values", "name = 'scrub_due'") == 0


async def test_a_scrub_that_is_asked_for_meanwhile_is_not_forgotten(sqlite_house: House) -> None:
    """What is removed while the log is being emptied has its turn afterwards."""
    house = sqlite_house

    async def ask(*, with_index: bool = False) -> None:
        await house.db.write(
            lambda tx: store_scrubs.ask_for_scrub(tx, with_index=with_index, now_us=house.clock())
        )

    await ask()
    (before,) = await house.rows("SELECT value FROM instance_values WHERE name = 'scrub_due'")
    await ask()
    note = await house.db.read(store_scrubs.read_note)
    assert note is not None
    assert (note.stage, (note.text,)) != ("scrub", before)
    older = store_scrubs.ScrubNote("scrub", note.since, note.asked_at - 1)
    await house.db.write(lambda tx: store_scrubs.forget_note(tx, older))
    assert await house.db.read(store_scrubs.read_note) == note
    await ask(with_index=True)
    await ask()
    note = await house.db.read(store_scrubs.read_note)
    assert note is not None
    assert note.stage == "index"
