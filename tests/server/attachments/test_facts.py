"""Facts and their compact text; the copies that rows show."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server import app
from agentsight.server.attachments import store
from agentsight.server.attachments.copying import copy_step
from agentsight.server.attachments.facts import (
    NO_FACTS,
    Facts,
    decode_facts,
    encode_facts,
    first_facts,
)
from agentsight.server.attachments.store_facts import put_facts, read_facts
from agentsight.server.db import Tx, sql
from agentsight.server.fsck.model import Options
from agentsight.server.fsck.service import check_instance_files
from agentsight.server.ids import BlobId
from tests.support.http import House, People, base64_file, open_house

FACTS = st.builds(
    Facts,
    detected_mime_type=st.none() | st.sampled_from(["image/png", "audio/ogg"]),
    width=st.none() | st.integers(0, 1 << 40),
    height=st.none() | st.integers(0, 1 << 40),
    pages=st.none() | st.integers(0, 1 << 40),
    seconds=st.none() | st.floats(0, 1e9),
    scan=st.sampled_from(["not_scanned", "clean", "infected", "failed"]),
    preview=st.sampled_from([None, "image", "text"]),
    playback=st.sampled_from([None, "m4a", "jpg"]),
)


@given(FACTS)
def test_what_is_written_is_read(facts: Facts) -> None:
    """The text holds all of it."""
    assert decode_facts(encode_facts(facts)) == facts


def test_the_text_is_short() -> None:
    """It stands in an index, once for every file: what says nothing takes no room."""
    assert encode_facts(NO_FACTS) == "[]"
    assert encode_facts(Facts("application/zip")) == '["application/zip"]'
    picture = Facts("image/png", 1280, 720, preview="image")
    assert encode_facts(picture) == '["image/png",1280,720,null,null,"not_scanned","image"]'


def test_a_later_version_may_know_more() -> None:
    """What it has added at the end is passed over."""
    assert decode_facts('["a/b",null,null,null,null,"clean",null,null,7]') == Facts(
        "a/b", scan="clean"
    )


def test_the_type_promises_what_can_be_made() -> None:
    """Before a file is examined, its type says what to offer; None offers nothing."""
    assert first_facts("image/heic") == Facts("image/heic", preview="image", playback="jpg")
    assert first_facts("text/plain").preview == "text"
    assert first_facts("application/zip") == Facts("application/zip")
    assert first_facts(None) == NO_FACTS


@pytest.mark.anyio
async def test_facts_reach_every_row_of_the_blob(house: House, people: People) -> None:
    """Columns and copies change in one unit; another agent's rows of equal bytes do not."""
    alice, bob = people.alice, people.bob
    data = b"bytes of two agents"
    for person in (alice, bob):
        pk = await person.conversation()
        files = [base64_file(data, f"{n}.txt") for n in range(3)]
        await person.post("/api/attachments/", {"conversation": pk, "attachments": files})
    agent = alice.access.agent_id
    [(blob,)] = await house.rows("SELECT id FROM blobs WHERE agent_id = $1", agent)

    async def unit(tx: Tx) -> None:
        assert await read_facts(tx, agent, BlobId(blob)) == first_facts("text/plain")
        facts = Facts("text/plain", 1, 2, 3, 4.5, "clean", "text", "m4a")
        await put_facts(tx, agent, BlobId(blob), facts, now_us=house.clock())

    await house.db.write(unit)
    columns = "detected_mime_type, width, height, pages, seconds, scan"
    rows = await house.rows(f"SELECT {columns} FROM blobs WHERE agent_id = $1", agent)
    assert rows == [("text/plain", 1, 2, 3, 4.5, "clean")]
    text = '["text/plain",1,2,3,4.5,"clean","text","m4a"]'
    assert await house.count("attachments", "agent_id = $1 AND facts = $2", agent, text) == 3
    assert await house.count("attachments", "facts = $1", text) == 3


@pytest.fixture
async def own_house(
    anyio_backend: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[House]:
    """Run an application on a database that is this test's alone, without the chore's own steps."""
    del anyio_backend
    monkeypatch.setattr(app, "CHORES", [])
    async with open_house(database_url, tmp_path) as house:
        yield house


async def stand(house: House, blob: int) -> dict[str | None, int]:
    """Count a blob's copies by what they say."""
    rows = await house.rows(
        "SELECT facts, count(*) FROM attachments WHERE blob_id = $1 GROUP BY facts", blob
    )
    return dict(rows)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_many_rows_are_changed_in_strides(own_house: House) -> None:
    """One unit changes 500; what is left is written down, a later fact begins anew, and a new row
    takes the latest. What is infected is withheld at once, whatever its row shows."""
    house = own_house
    people = await house.people()
    alice, agent = people.alice, people.alice.access.agent_id
    pk = await alice.conversation()
    await alice.post("/api/attachments/", {"conversation": pk, "attachments": [base64_file()]})
    [(blob,)] = await house.rows("SELECT id FROM blobs")
    await house.run(
        "INSERT INTO attachments (agent_id, conversation_id, message_id, blob_id, uid, type,"
        " filename, mime_type, sender, sent_at, size_bytes, sha256, facts, created_at, updated_at)"
        " WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers"
        " WHERE n < 1200) SELECT agent_id, conversation_id, message_id, blob_id, uid || '-' || n,"
        " type, filename, mime_type, sender, sent_at, size_bytes, sha256, facts, 1, 1"
        " FROM attachments, numbers"
    )
    first = encode_facts(first_facts("text/plain"))

    async def learn(facts: Facts) -> str:
        async def unit(tx: Tx) -> None:
            await read_facts(tx, agent, BlobId(blob))
            await put_facts(tx, agent, BlobId(blob), facts, now_us=house.clock())

        await house.db.write(unit)
        return encode_facts(facts)

    infected = await learn(Facts("text/plain", scan="infected"))
    assert await stand(house, blob) == {infected: 500, first: 701}
    ((last,),) = await house.rows("SELECT uid FROM attachments ORDER BY id DESC LIMIT 1")
    refused = await alice.get(f"/api/v1/attachments/{last}/content/")
    assert refused.is_error(403, "infected")
    assert await copy_step(house.parts) == 1
    assert await stand(house, blob) == {infected: 1_000, first: 201}
    clean = await learn(Facts("text/plain", scan="clean"))
    await alice.post("/api/attachments/", {"conversation": pk, "attachments": [base64_file()]})
    assert await stand(house, blob) == {clean: 501, infected: 500, first: 201}
    report = await check_instance_files(house.parts, Options(), now_us=1)
    assert "stale_facts" not in report.faults
    while await copy_step(house.parts):
        pass
    assert await stand(house, blob) == {clean: 1_202}
    assert await house.count("facts_queue") == 0
    files = (await alice.files(pk))["attachments"]
    assert {file["scan"] for file in files} == {"clean"}


@pytest.mark.anyio
async def test_the_one_call_reads_one_index(house: House) -> None:
    """On SQLite all that a row shows stands in the index that is walked: no table is visited."""
    if house.db.dialect != "sqlite":
        return
    query = store._OF_CONVERSATION
    explain = sql(query.postgresql, sqlite=f"EXPLAIN QUERY PLAN {query.sqlite}")
    plan = await house.db.read(lambda tx: tx.rows(explain, 1, 1), slow=True)
    steps = [row[3] for row in plan]
    assert any("USING COVERING INDEX attachments_in_order" in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps
