"""What an erasure does with uploads: those of what goes end, in strides, unfinished ones too."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from agentsight.server.removals import service
from agentsight.server.removals.service_chores import carry_on
from agentsight.server.removals.service_work import advance
from tests.server.removals.worlds import CONVERSATIONS, FILES, blobs_of
from tests.server.uploads.sending import MORE, announce, begin, patch, refer, sha256, upload
from tests.support.http import House, Person

pytestmark = pytest.mark.anyio


async def file_of(house: House, conversation_id: str) -> str:
    """Return the uid of a conversation's one file."""
    ((uid,),) = await house.rows(
        "SELECT a.uid FROM attachments a JOIN conversations c ON c.agent_id = a.agent_id"
        " AND c.id = a.conversation_id WHERE c.conversation_id = $1",
        conversation_id,
    )
    return str(uid)


async def erase(person: Person, path: str) -> dict[str, Any]:
    answer = await person.writer.send("DELETE", f"{path}?erase=true")
    assert answer.status in (200, 202), answer.body
    return answer.json()


async def receipt_of(person: Person, uid: str) -> dict[str, Any]:
    return (await person.get(f"/api/v1/receipts/{uid}/")).json()


async def test_any_number_of_uploads_ends_in_strides(
    own_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No unit ends more than 500; the receipt runs meanwhile, and each step may be the last one
    before a crash."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    uid = await upload(alice, b"the same bytes", filename="a name.txt")
    await house.run(MORE.format(n=1_300))
    assert (await refer(alice, uid, conversation_id="a")).status == 200
    monkeypatch.setattr(service, "STEPS_WHILE_ASKED", 1)
    receipt = await erase(alice, f"{FILES}{await file_of(house, 'a')}/")
    assert receipt["state"] == "running"
    assert (await refer(alice, uid)).is_error(410, "upload_expired")
    ended = [await house.count("uploads", "state = 'expired'")]
    while await advance(house.parts, receipt["uid"]):
        ended.append(await house.count("uploads", "state = 'expired'"))
    steps = [after - before for before, after in pairwise([0, *ended])]
    assert max(steps) == 500
    assert sum(steps) == 1_301
    receipt = await receipt_of(alice, receipt["uid"])
    assert (receipt["state"], receipt["removed"]["rows"]["uploads"]) == ("complete", 1_301)
    assert await house.count("uploads", "blob_id IS NOT NULL OR filename <> ''") == 0
    assert blobs_of(house, alice) == set()


async def test_a_younger_upload_keeps_the_content_and_the_older_ones_end(
    own_house: House,
) -> None:
    """Whichever of the erased files was the last one made."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    for name in ("a", "b"):
        answer = await announce(alice, b"bytes", filename=f"{name}.txt")
        uid = answer.json()["uid"]
        if answer.json()["state"] != "stored":
            assert (await patch(alice, f"/api/v1/uploads/{uid}/", 0, b"bytes")).status == 204
        assert (await refer(alice, uid, conversation_id=name)).status == 200
        house.clock.move(1)
    young = (await announce(alice, b"bytes", filename="young.txt")).json()["uid"]
    await house.run("UPDATE conversations SET customer_id = 'jane'")
    would = await service.would_erase_customer(house.parts, people.organisation, "jane")
    work = await service.erase_customer(house.parts, people.organisation, "jane")
    assert (work.stage, work.receipt.rows.uploads) == ("complete", 2)
    assert would.rows.uploads == 2
    assert (work.receipt.kept_blobs, work.receipt.sent_until) == (1, {})
    rows = await house.rows("SELECT uid, filename FROM uploads WHERE state = 'stored'")
    assert rows == [(young, "young.txt")]


async def test_unfinished_uploads_of_an_erased_content_go_too(own_house: House) -> None:
    """Under whatever name they were begun: their bytes are the beginning of the same file."""
    house, people = own_house, await own_house.people()
    alice, data = people.alice, b"diagnosis" * 50_000
    broken = await begin(alice, data, filename="hiv-result.txt")
    assert (await patch(alice, broken, 0, data[:100_000])).status == 204
    others = await begin(people.bob, data, filename="bob.txt")
    assert (await patch(people.bob, others, 0, data[:1_000])).status == 204
    assert len(house.unfinished_uploads()) == 2
    uid = await upload(alice, data, filename="result.txt")
    assert (await refer(alice, uid, conversation_id="a")).status == 200
    await house.run("UPDATE conversations SET customer_id = 'ada'")
    house.clock.move(1)
    would = await service.would_erase_customer(house.parts, people.organisation, "ada")
    work = await service.erase_customer(house.parts, people.organisation, "ada")
    assert (work.stage, work.receipt.rows.uploads, would.rows.uploads) == ("complete", 2, 2)
    assert len(house.unfinished_uploads()) == 1
    mine = "agent_id = $1"
    rows = await house.rows(
        f"SELECT DISTINCT state, filename, sha256, parts FROM uploads WHERE {mine}",
        alice.access.agent_id,
    )
    assert rows == [("expired", "", None, "")]
    assert (await alice.writer.send("HEAD", broken)).is_error(410, "upload_expired")
    assert (await people.bob.writer.send("HEAD", others)).status == 200


async def test_a_name_goes_where_the_content_stays(own_house: House) -> None:
    """Others have sent the same bytes under a name of theirs: of hers nothing is left."""
    people = await own_house.people()
    alice, data = people.alice, b"the same form"
    hers = await upload(alice, data, filename="passport of Jane Doe.txt")
    theirs = await announce(alice, data, filename="form.txt")
    assert theirs.json()["state"] == "stored"
    assert (await refer(alice, hers, conversation_id="a")).status == 200
    assert (await refer(alice, theirs.json()["uid"], conversation_id="b")).status == 200
    await own_house.run("UPDATE conversations SET customer_id = 'jane' WHERE conversation_id = 'a'")
    would = await service.would_erase_customer(own_house.parts, people.organisation, "jane")
    work = await service.erase_customer(own_house.parts, people.organisation, "jane")
    assert (work.stage, work.receipt.rows.uploads, work.receipt.kept_blobs) == ("complete", 1, 1)
    assert (would.rows.uploads, would.kept_blobs) == (1, 1)
    assert await own_house.rows("SELECT filename FROM uploads WHERE filename <> ''") == [
        ("form.txt",)
    ]
    assert (await refer(alice, hers)).is_error(410, "upload_expired")
    assert (await refer(alice, theirs.json()["uid"], conversation_id="c")).status == 200


async def test_an_unfinished_upload_of_a_content_that_stays_goes_on(own_house: House) -> None:
    """Another conversation has the file: nothing says whose the upload is."""
    people = await own_house.people()
    alice, data = people.alice, b"brochure" * 10_000
    broken = await begin(alice, data, filename="c.txt")
    assert (await patch(alice, broken, 0, data[:1_000])).status == 204
    uid = await upload(alice, data, filename="a.txt")
    for name in ("a", "b"):
        assert (await refer(alice, uid, conversation_id=name)).status == 200
    receipt = await erase(alice, f"{CONVERSATIONS}by-id/a/")
    assert (receipt["state"], receipt["kept"]["contents"]) == ("complete", 1)
    assert receipt["removed"]["rows"]["uploads"] == 1  # the one by which it may have come
    assert (await patch(alice, broken, 1_000, data[1_000:])).status == 204


async def test_an_upload_that_is_being_written_ends_when_its_writer_has_let_go(
    own_house: House,
) -> None:
    """The receipt runs until then; the writer is told, and whoever asks hears `upload_expired`."""
    house, people = own_house, await own_house.people()
    alice, data = people.alice, b"diagnosis" * 50_000
    path = await begin(alice, data, filename="again.txt")
    uid = await upload(alice, data, filename="first.txt")
    assert (await refer(alice, uid, conversation_id="a")).status == 200
    house.clock.move(1)
    parts = house.parts
    writer = await parts.blobs.resume_parts(
        (await house.rows("SELECT object_key FROM uploads WHERE state = 'pending'"))[0][0], ""
    )
    async with writer:
        await writer.write(data[:1_000])
        receipt = await erase(alice, f"{CONVERSATIONS}by-id/a/")
        assert receipt["state"] == "running"
        assert (await alice.writer.send("HEAD", path)).is_error(410, "upload_expired")
    assert len(house.unfinished_uploads()) == 1
    while await carry_on(parts):
        pass
    receipt = await receipt_of(alice, receipt["uid"])
    assert (receipt["state"], receipt["removed"]["rows"]["uploads"]) == ("complete", 2)
    assert house.unfinished_uploads() == set()
    assert (await announce(alice, data)).json()["offset"] == 0
    assert await house.count("uploads", "sha256 = $1 AND state <> 'pending'", sha256(data)) == 0
