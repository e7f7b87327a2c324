"""Reads on their way into the audit log: counted, bounded, written once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agentsight.server import metrics
from agentsight.server.access import Access, Permission, link_access
from agentsight.server.audits import trail as trail_module
from agentsight.server.audits.trail import Trail
from agentsight.server.db import Database
from agentsight.server.db.errors import DatabaseUnavailable
from agentsight.server.ids import AgentId, OrganisationId
from agentsight.server.removals.service_customers import export_customer
from tests.support.http import NOW_US, House, People, base64_file

pytestmark = pytest.mark.anyio
MINUTE_US = 60_000_000
SECOND_US = 1_000_000
START = NOW_US - NOW_US % MINUTE_US
ALICE = Access("key", Permission.READ, OrganisationId(7), agent_id=AgentId(8), principal_uid="k1")


class Away:
    """A database that does not answer."""

    def __init__(self) -> None:
        self.n_asked = 0

    async def write(self, _unit: object) -> None:
        """Fail."""
        self.n_asked += 1
        raise DatabaseUnavailable("away")


async def records(house: House, people: People) -> list[tuple[Any, ...]]:
    """Read what the log says of Alice's organisation, in order."""
    return await house.rows(
        "SELECT principal, action, subject_kind, subject_uid, n FROM audit_log"
        " WHERE organisation_id = $1 ORDER BY id",
        people.organisation.organisation_id,
    )


async def test_the_first_of_equal_reads_is_written_soon_and_the_rest_by_minute(
    house: House, people: People
) -> None:
    """Within a minute two records say it all: the first read, and how often it was repeated."""
    trail, access = Trail(), people.alice.access

    def read(uid: str, n: int = 1) -> None:
        for _ in range(n):
            trail.read(access, "open", "attachment", uid)

    read("a", 3)
    read("b")
    assert await trail.flush(house.db, START) == 2
    read("a", 5)
    assert await trail.flush(house.db, START + SECOND_US) == 0
    read("a")
    read("c")
    assert await trail.flush(house.db, START + 59 * SECOND_US) == 1
    assert [(row[3], row[4]) for row in await records(house, people)] == [
        ("a", 3), ("b", 1), ("c", 1)
    ]  # fmt: skip
    read("b")
    assert await trail.flush(house.db, START + MINUTE_US) == 0
    assert [(row[3], row[4]) for row in await records(house, people)][3:] == [("a", 6), ("b", 1)]
    read("a")
    assert await trail.flush(house.db, START + MINUTE_US + SECOND_US) == 1
    read("a", 2)
    await trail.flush(house.db, START + MINUTE_US + 2 * SECOND_US, is_last=True)
    assert [(row[3], row[4]) for row in await records(house, people)][5:] == [("a", 1), ("a", 2)]


async def test_reads_that_differ_in_detail_are_not_equal(house: House, people: People) -> None:
    """What sets a read apart is told of it, and of no other of the same minute."""
    trail, access = Trail(), people.alice.access
    for detail in (None, '{"allow_infected": true}', None, '{"allow_infected": true}'):
        trail.read(access, "open", "attachment", "a", detail=detail)
    assert await trail.flush(house.db, START) == 2
    rows = await house.rows(
        "SELECT n, CAST(detail AS text) FROM audit_log WHERE organisation_id = $1 ORDER BY id",
        people.organisation.organisation_id,
    )
    assert rows == [(2, None), (2, '{"allow_infected": true}')]


async def test_who_differs_by_key_and_by_link(house: House, people: People) -> None:
    """Different principals, actions and subjects are different reads."""
    trail, alice = Trail(), people.alice
    link = link_access(alice.access.agent_id)
    trail.read(alice.access, "open", "attachment", "x")
    trail.read(link, "open", "attachment", "x")
    trail.read(link, "preview", "attachment", "x")
    trail.read(people.bob.access, "open", "attachment", "x")
    await trail.flush(house.db, START)
    rows = await house.rows(
        "SELECT agent_id, principal, principal_uid, action FROM audit_log"
        " WHERE organisation_id = $1 ORDER BY id",
        people.organisation.organisation_id,
    )
    mine, bobs = alice.access, people.bob.access
    assert rows == [
        (mine.agent_id, "key", mine.principal_uid, "open"),
        (mine.agent_id, "link", None, "open"),
        (mine.agent_id, "link", None, "preview"),
        (bobs.agent_id, "key", bobs.principal_uid, "open"),
    ]
    assert mine.principal_uid
    assert mine.principal_uid != bobs.principal_uid


async def test_a_conversation_by_row_id_is_written_with_its_uid(
    house: House, people: People
) -> None:
    """The one call has no uid at hand; another agent's row id never lends its uid."""
    pk = await people.alice.conversation()
    [(uid,)] = await house.rows(
        "SELECT uid FROM conversations WHERE agent_id = $1", people.alice.access.agent_id
    )
    trail = Trail()
    trail.read(people.alice.access, "read", "conversation", pk)
    trail.read(people.bob.access, "read", "conversation", pk)
    await trail.flush(house.db, START)
    found = [row[3] for row in await records(house, people) if row[1] == "read"]
    assert uid in found
    assert None in found


async def test_nothing_is_lost_while_the_database_is_away(house: House, people: People) -> None:
    """What could not be written is written later, with what came in meanwhile, and once."""
    trail, access, away = Trail(), people.alice.access, Away()
    trail.read(access, "open", "attachment", "late")
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await trail.flush(away, START)  # type: ignore[arg-type]
        trail.read(access, "open", "attachment", "late")
    assert away.n_asked == 3
    await trail.flush(house.db, START + 5 * MINUTE_US, is_last=True)
    assert [row[3:] for row in await records(house, people)] == [("late", 4)]


async def test_memory_is_bounded_and_losses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Different reads past the limit are dropped and counted; those that are known still count."""
    monkeypatch.setattr(trail_module, "MAX_KEYS", 3)
    trail = Trail()
    for uid in ("a", "b", "c", "d", "e", "a"):
        trail.read(ALICE, "open", "attachment", uid)
    before = lost()
    with pytest.raises(DatabaseUnavailable):
        await trail.flush(Away(), START)  # type: ignore[arg-type]
    assert lost() == before + 2


def lost() -> float:
    """Return how many reads were dropped so far."""
    text = metrics.exposition().decode()
    [line] = [x for x in text.splitlines() if x.startswith("agentsight_audit_reads_lost_total")]
    return float(line.split()[1])


async def test_many_different_reads_do_not_crowd_out_others(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads many things in a minute makes room by being written, not by hiding others."""
    monkeypatch.setattr(trail_module, "MAX_KEYS", 3)
    trail, access = Trail(), people.alice.access
    for second in range(5):
        for n in range(3):
            trail.read(access, "open", "attachment", f"{second}-{n}")
        await trail.flush(house.db, START + second * SECOND_US)
    assert len(await records(house, people)) == 15


async def test_a_stop_in_the_middle_neither_loses_nor_repeats(house: House, people: People) -> None:
    """The chore may be cancelled at any point; the last flush knows what was handed over."""
    trail = Trail()
    for n in range(50):
        trail.read(people.alice.access, "open", "attachment", f"file {n}")
        flushing = asyncio.ensure_future(trail.flush(house.db, START))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    await trail.flush(house.db, START, is_last=True)
    rows = await records(house, people)
    assert sorted(row[3] for row in rows) == sorted(f"file {n}" for n in range(50))
    assert {row[4] for row in rows} == {1}


async def test_reads_can_be_left_out(house: House, people: People) -> None:
    """`AGENTSIGHT_AUDIT_READS=off` keeps nothing of them."""
    trail = Trail(keeps_reads=False)
    trail.read(people.alice.access, "open", "attachment", "x")
    assert await trail.flush(house.db, START, is_last=True) == 0
    assert await records(house, people) == []


async def flushed(house: House, people: People, db: Database) -> list[tuple[Any, ...]]:
    """Write what the application has noted and return the log's records."""
    await house.parts.audit.flush(db, house.clock(), is_last=True)
    return await records(house, people)


async def test_every_door_to_content_is_noted(house: House, people: People) -> None:
    """Lists, transcripts, the one call, files by key and by link: each says who read what."""
    alice = people.alice
    pk = await alice.conversation("noted")
    body = {"conversation": pk, "attachments": [base64_file(b"noted")]}
    [file] = (await alice.post("/api/attachments/", body)).json()["attachments"]
    [(uid,)] = await house.rows(
        "SELECT uid FROM conversations WHERE agent_id = $1", alice.access.agent_id
    )
    before = len(await flushed(house, people, house.db))
    await alice.reader.get(f"/api/conversations/{pk}/attachments/")
    await alice.reader.get(f"/api/v1/conversations/{pk}/attachments/")
    await alice.reader.get(f"/api/conversations/{pk}/")
    await alice.reader.get("/api/conversations/", {"full": "false"})
    await alice.reader.get("/api/v1/attachments/")
    await alice.reader.get(f"/api/v1/attachments/{file['uid']}/content/")
    link = "/" + file["file_url"].split("/", 3)[3]
    assert (await house.stranger.get(link)).body == b"noted"
    # Refusals are no reads.
    await house.stranger.get(link + "x")
    await people.bob.get(f"/api/v1/attachments/{file['uid']}/content/")
    await people.carol.get(f"/api/conversations/{pk}/attachments/")
    totals: dict[tuple[Any, ...], int] = {}
    for row in (await flushed(house, people, house.db))[before:]:
        totals[row[:4]] = totals.get(row[:4], 0) + row[4]
    agent_uid = alice.access.agent_uid
    assert totals == {
        ("key", "read", "conversation", uid): 3,
        ("key", "list", "agent", agent_uid): 2,
        ("key", "open", "attachment", file["uid"]): 1,
        ("link", "open", "attachment", file["uid"]): 1,
    }


async def test_what_takes_much_at_once_is_noted(
    house: House, people: People, tmp_path: Path
) -> None:
    """All files of a conversation as one ZIP, and everything that is kept of a customer."""
    alice, customer = people.alice, f"customer of {people.alice.slug}"
    pk = await alice.conversation("taken", customer_id=customer)
    body = {"conversation": pk, "attachments": [base64_file(b"taken")]}
    assert (await alice.post("/api/attachments/", body)).status == 201
    [(uid,)] = await house.rows(
        "SELECT uid FROM conversations WHERE agent_id = $1", alice.access.agent_id
    )
    before = len(await flushed(house, people, house.db))
    zipped = await alice.reader.get(f"/api/v1/conversations/{pk}/attachments/zip/")
    assert zipped.status == 200
    await people.carol.reader.get(f"/api/v1/conversations/{pk}/attachments/zip/")
    out = tmp_path / "export.zip"
    await export_customer(house.parts, people.organisation, customer, out)
    rows = (await flushed(house, people, house.db))[before:]
    assert sorted((row[1], row[2], row[3], row[4]) for row in rows if row[1] != "find") == [
        ("download", "conversation", uid, 1),
        ("export", "customer", None, 1),
    ]
    [(detail,)] = await house.rows(
        "SELECT detail FROM audit_log WHERE organisation_id = $1 AND action = 'export'",
        people.organisation.organisation_id,
    )
    assert (json.loads(detail)["files"], customer in detail) == (1, False)


async def test_a_list_with_transcripts_names_each_conversation(
    house: House, people: People
) -> None:
    """gen A reads transcripts by its lists: they count as read, one by one."""
    for name in ("one", "two"):
        await people.bob.conversation(name)
    await flushed(house, people, house.db)
    before = len(await records(house, people))
    await people.bob.get("/api/conversations/")
    rows = (await flushed(house, people, house.db))[before:]
    assert sorted(row[1:3] for row in rows) == [
        ("list", "agent"), ("read", "conversation"), ("read", "conversation")
    ]  # fmt: skip
