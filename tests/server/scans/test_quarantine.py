"""Bytes that the operator has blocked: nowhere handed out, never taken again, until released."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from agentsight.server.attachments.store_quarantine import is_quarantined
from agentsight.server.problems import Problem
from agentsight.server.scans import quarantine
from tests.server.scans.conftest import with_daemon
from tests.server.scans.test_scans import scan_all, upload
from tests.support.clamav import EICAR
from tests.support.http import House, People, base64_file, path_of

pytestmark = pytest.mark.anyio


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


async def block(house: House, people: People, data: bytes) -> None:
    """Block bytes as the operator."""
    await quarantine.quarantine(
        house.db, people.organisation, digest(data), reason="a leak", now_us=house.clock()
    )


async def release(house: House, people: People, data: bytes) -> None:
    """Let them through again."""
    await quarantine.release(house.db, people.organisation, digest(data), now_us=house.clock())


async def test_blocked_bytes_are_handed_out_to_nobody(house: House, people: People) -> None:
    """Links and keys of every agent are refused at once, those who insist too, until released."""
    data = f"secret of {people.alice.slug}".encode()
    [mine] = await upload(people.alice, data)
    [theirs] = await upload(people.carol, data)
    [other] = await upload(people.alice, data + b"!")
    await block(house, people, data)
    for file, owner in ((mine, people.alice), (theirs, people.carol)):
        link = path_of(file["file_url"])
        assert (await house.stranger.get(link)).is_error(403, "quarantined")
        page = await house.stranger.send("GET", link, headers={"accept": "text/html"})
        assert page.status == 403
        assert b"has blocked it" in page.body
        assert (await owner.get(path_of(file["url"]))).is_error(403, "quarantined")
        insisting = await owner.get(path_of(file["url"]), {"allow_infected": "true"})
        assert insisting.is_error(403, "quarantined")
    assert (await house.stranger.get(path_of(other["file_url"]))).status == 200
    await release(house, people, data)
    assert (await house.stranger.get(path_of(mine["file_url"]))).body == data


@pytest.mark.parametrize("way", ["base64", "multipart", "batch"])
async def test_blocked_bytes_are_not_taken_again(house: House, people: People, way: str) -> None:
    """Each way in answers 403, and neither a row nor an object stays."""
    data = f"again {people.alice.slug}".encode()
    pk = await people.alice.conversation("waiting")
    await block(house, people, data)
    objects, agent_id = house.objects(), people.alice.access.agent_id
    answer: Any
    if way == "base64":
        body = {"conversation": pk, "attachments": [base64_file(data)]}
        answer = await people.alice.post("/api/attachments/", body)
    elif way == "multipart":
        answer = await people.alice.writer.form(
            "/api/attachments/",
            [("conversation", str(pk)), ("file_0", "a.txt", "text/plain", data)],
        )
    else:
        item = {"type": "message", "content": "hi", "item_key": "k1"}
        item["attachments"] = [base64_file(data)]  # type: ignore[assignment]
        body = {"conversation": {"conversation_id": "waiting"}, "items": [item]}
        answer = await people.alice.post("/api/v1/batch/", body)
        assert answer.json()["items"][0]["code"] == "quarantined"
    assert answer.is_error(403, "quarantined")
    # Chores of other tests' agents may write what they have erased, or remove it, meanwhile.
    assert not {key for key in house.objects() - objects if key.startswith("blobs/")}
    assert await house.count("attachments", "agent_id = $1", agent_id) == 0
    assert await house.count("messages", "agent_id = $1", agent_id) == 0
    await release(house, people, data)


async def test_a_hash_is_written_as_people_write_it(house: House, people: People) -> None:
    """Case and space around do not count; what is no hash, or has no reason, is refused."""
    data = f"case {people.alice.slug}".encode()
    given = f" {digest(data).upper()}\n"
    now, us = house.clock(), people.organisation
    made = await quarantine.quarantine(house.db, us, given, reason=" why ", now_us=now)
    assert (made.sha256, made.reason, made.n_blobs) == (digest(data), "why", 0)
    again = await quarantine.quarantine(house.db, us, given, reason="because", now_us=now + 1)
    assert (again.reason, again.created_at) == ("because", now)
    assert await house.db.read(lambda tx: is_quarantined(tx, digest(data)))
    for wrong in ("", "abc", digest(data)[1:], digest(data)[1:] + "g"):
        with pytest.raises(Problem, match="SHA-256"):
            await quarantine.quarantine(house.db, us, wrong, reason="x", now_us=now)
    with pytest.raises(Problem, match="required"):
        await quarantine.quarantine(house.db, us, digest(b""), reason=" ", now_us=now)
    await release(house, people, data)
    with pytest.raises(Problem, match="Not found"):
        await release(house, people, data)
    rows = await house.rows(
        "SELECT action, detail FROM audit_log WHERE subject_uid = $1 ORDER BY id", digest(data)
    )
    assert [action for action, _ in rows] == ["quarantine", "quarantine", "release"]


async def test_blocking_what_is_infected(scanned_house: House, clamd: str) -> None:
    """The operator's word counts before the scan's."""
    people = await scanned_house.people()
    [file] = await upload(people.alice, EICAR)
    await scan_all(with_daemon(scanned_house, clamd))
    await block(scanned_house, people, EICAR)
    refused = await scanned_house.stranger.get(path_of(file["file_url"]))
    assert refused.is_error(403, "quarantined")
