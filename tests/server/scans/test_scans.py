"""What a scan does to a file: from arriving to not being served, and every way it can go wrong."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from agentsight.server.attachments.store_jobs import take_job
from agentsight.server.parts import Parts
from agentsight.server.scans import store
from agentsight.server.scans.service import MAX_ATTEMPTS, scan_step
from tests.server.scans.conftest import NOBODY, with_daemon
from tests.support.clamav import EICAR, SIGNATURE, FakeClamd
from tests.support.http import House, People, Person, base64_file, path_of
from tests.support.proxies import free_port

pytestmark = pytest.mark.anyio
JSON = {"accept": "application/json"}
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def upload(person: Person, *datas: bytes) -> list[dict[str, Any]]:
    """Store files in a conversation and return their rows."""
    pk = await person.conversation(f"c-{len(datas)}-{datas[0][:4].hex()}")
    files = [base64_file(data, f"f{index}.txt") for index, data in enumerate(datas)]
    answer = await person.post("/api/attachments/", {"conversation": pk, "attachments": files})
    assert answer.status == 201, answer.body
    return answer.json()["attachments"]


async def row_of(person: Person, file: dict[str, Any]) -> dict[str, Any]:
    """Read a file's row again."""
    answer = await person.reader.get(f"/api/v1/attachments/{file['uid']}/")
    assert answer.status == 200, answer.body
    return answer.json()


async def scan_all(parts: Parts) -> int:
    """Scan until nothing is due; returns how many blobs were taken."""
    n_all = 0
    while n := await scan_step(parts):
        n_all += n
    return n_all


async def n_waiting(house: House) -> int:
    """Count the scans that wait."""
    return await house.count("blob_jobs", "kind = 'scan'")


async def test_a_new_file_is_scanned(scanned_house: House, clamd: str) -> None:
    """Its row says `not_scanned`, then what the scan says, in every row of the same bytes."""
    people = await scanned_house.people()
    files = await upload(people.alice, b"fine", EICAR)
    more = await upload(people.alice, EICAR)
    assert {file["scan"] for file in files + more} == {"not_scanned"}
    assert await scan_all(with_daemon(scanned_house, clamd)) == 2
    shown = [(await row_of(people.alice, file))["scan"] for file in files + more]
    assert shown == ["clean", "infected", "infected"]
    rows = await scanned_house.rows(
        "SELECT scan, scan_detail FROM blobs WHERE agent_id = $1 ORDER BY id",
        people.alice.access.agent_id,
    )
    assert rows == [("clean", None), ("infected", SIGNATURE)]
    assert await n_waiting(scanned_house) == 0
    # A hash that is known to be infected: the same row, and no second scan.
    [again] = await upload(people.alice, EICAR)
    assert again["scan"] == "infected"
    assert await scan_all(with_daemon(scanned_house, clamd)) == 0


async def test_an_infected_file_is_not_served(scanned_house: House, clamd: str) -> None:
    """Not by link, for programs and people in their own words; not by key; not by preview."""
    people = await scanned_house.people()
    [file] = await upload(people.alice, EICAR)
    link = path_of(file["file_url"])
    assert (await scanned_house.stranger.get(link)).body == EICAR
    await scan_all(with_daemon(scanned_house, clamd))
    refused = await scanned_house.stranger.send("GET", link, headers=JSON)
    assert refused.is_error(403, "infected")
    page = await scanned_house.stranger.send("GET", link, headers=BROWSER)
    assert page.status == 403
    assert page.headers["content-type"].startswith("text/html")
    assert b"harmful" in page.body
    assert b"allow_infected" not in page.body
    assert (await people.alice.get(path_of(file["url"]))).is_error(403, "infected")
    row = await row_of(people.alice, file)
    assert (row["preview_url"], row["playback_url"]) == (None, None)
    for preview in ("preview/text.txt", "preview/512.webp"):
        answer = await scanned_house.stranger.get(f"{link.rpartition('/')[0]}/{preview}")
        assert answer.is_error(403, "infected")
    by_key = await people.alice.get(f"/api/v1/attachments/{file['uid']}/preview/")
    assert by_key.is_error(403, "infected")
    altered = link.replace("f0.txt", "f1.txt")
    assert (await scanned_house.stranger.get(altered)).is_error(404, "link_invalid")


async def test_scans_and_refused_links_are_counted(scanned_house: House, clamd: str) -> None:
    """What ended how, and who was not given what was found."""
    people = await scanned_house.people()
    [file, fine] = await upload(people.alice, EICAR, b"fine")
    before = await counters(scanned_house)
    await scan_all(with_daemon(scanned_house, clamd))
    for link in (file, file, fine):
        await scanned_house.stranger.get(path_of(link["file_url"]))
    after = await counters(scanned_house)
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert moved == {"clean": 1, "infected": 1, "refused": 2}


async def counters(house: House) -> dict[str, float]:
    """Read the scans by result, and the links that were refused as infected."""
    names = {f'scans_total{{result="{r}"}}': r for r in ("clean", "infected", "failed")}
    names['links_refused_total{reason="infected"}'] = "refused"
    lines = (await house.stranger.get("/metrics")).body.decode().splitlines()
    found = dict(line.removeprefix("agentsight_").rsplit(" ", 1) for line in lines)
    return {short: float(found[name]) for name, short in names.items()}


async def test_an_owner_who_insists(scanned_house: House, clamd: str) -> None:
    """A write key gets the bytes by `allow_infected=true`, as a download; nobody else does."""
    people = await scanned_house.people()
    [file, fine] = await upload(people.alice, EICAR, b"fine")
    await scan_all(with_daemon(scanned_house, clamd))
    url = path_of(file["url"])
    got = await people.alice.get(url, {"allow_infected": "true"})
    assert (got.status, got.body) == (200, EICAR)
    assert got.headers["content-disposition"].startswith("attachment")
    part = await people.alice.writer.send(
        "GET", f"{url}?allow_infected=true", headers={"range": "bytes=0-3"}
    )
    assert (part.status, part.body) == (206, EICAR[:4])
    assert (await people.alice.get(url, {"allow_infected": "false"})).is_error(403, "infected")
    house = scanned_house
    await house.parts.audit.flush(house.db, house.clock(), is_last=True)
    ((n, detail),) = await house.rows(
        "SELECT sum(n), min(CAST(detail AS text)) FROM audit_log WHERE action = 'open'"
        " AND subject_uid = $1 AND principal = 'key'", file["uid"],
    )  # fmt: skip
    assert (int(n), json.loads(detail)) == (2, {"allow_infected": True})
    assert (await people.alice.get(url, {"allow_infected": "perhaps"})).is_error(400, "invalid")
    reader = await people.alice.reader.get(url, {"allow_infected": "true"})
    assert reader.is_error(403, "permission_denied")
    for stranger in (people.bob, people.carol):
        assert (await stranger.get(url, {"allow_infected": "true"})).status == 404
    assert (await scanned_house.stranger.get(url, {"allow_infected": "true"})).status == 401
    link = f"{path_of(file['file_url'])}?allow_infected=true"
    assert (await scanned_house.stranger.get(link)).is_error(403, "infected")
    shown = await people.alice.get(path_of(fine["url"]), {"allow_infected": "true"})
    assert shown.headers["content-disposition"].startswith("inline")


async def test_without_a_daemon_nothing_waits(house: House, people: People) -> None:
    """Files say `not_scanned`, and no job is made that nobody would ever do."""
    [file] = await upload(people.alice, EICAR)
    assert file["scan"] == "not_scanned"
    agent_id = people.alice.access.agent_id
    assert await house.count("blob_jobs", "kind = 'scan' AND agent_id = $1", agent_id) == 0
    assert await scan_step(house.parts) == 0


async def test_while_the_daemon_is_away_scans_wait(
    scanned_house: House, clamd: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written, nothing fails, the log says it once, and all is scanned on its return."""
    people = await scanned_house.people()
    [file] = await upload(people.alice, b"patience")
    address = f"127.0.0.1:{free_port()}"
    away = with_daemon(scanned_house, address)
    before = await scanned_house.rows("SELECT * FROM blob_jobs WHERE kind = 'scan'")
    with caplog.at_level(logging.INFO, "agentsight.server"):
        for _ in range(3):
            assert await scan_step(away) == 0
    told = [r.getMessage() for r in caplog.records if address in r.getMessage()]
    assert [text[:19] for text in told] == ["malware scans wait:"]
    assert await scanned_house.rows("SELECT * FROM blob_jobs WHERE kind = 'scan'") == before
    assert (await scanned_house.stranger.get(path_of(file["file_url"]))).body == b"patience"
    assert await scan_all(with_daemon(scanned_house, clamd)) == 1
    assert (await row_of(people.alice, file))["scan"] == "clean"


async def test_a_daemon_that_dies_of_a_file_is_spared_it_in_the_end(scanned_house: House) -> None:
    """It is tried a few times, ever later; then the file is `failed`, with the reason, and served.

    Others are scanned meanwhile.
    """
    people = await scanned_house.people()
    bomb, fine = await upload(people.alice, b"bomb", b"fine")

    def dies(stream: bytes) -> bytes | None:
        return None if stream == b"bomb" else b"stream: OK\0"

    async with FakeClamd(at_end=dies).running() as fake:
        parts = with_daemon(scanned_house, fake.address)
        pauses = 0
        while await n_waiting(scanned_house):
            await scan_all(parts)
            scanned_house.clock.move(3600)
            pauses += 1
        assert fake.streams.count(b"bomb") == pauses == MAX_ATTEMPTS
        assert fake.streams.count(b"fine") == 1
    assert (await row_of(people.alice, fine))["scan"] == "clean"
    assert (await row_of(people.alice, bomb))["scan"] == "failed"
    assert (await scanned_house.stranger.get(path_of(bomb["file_url"]))).body == b"bomb"
    [found] = await scanned_house.db.read(
        lambda tx: store.list_found(tx, people.organisation, 10), slow=True
    )
    assert (found.scan, found.n_attachments) == ("failed", 1)
    assert "attempts" in (found.scan_detail or "")
    # A stranger's operator sees none of it.
    carols = people.carol.access
    assert await scanned_house.db.read(lambda tx: store.list_found(tx, carols, 10)) == []


async def test_a_process_that_died_leaves_its_scan_to_others(
    scanned_house: House, clamd: str
) -> None:
    """A job that was taken and not done is taken again when its time is over, and not before."""
    people = await scanned_house.people()
    [file] = await upload(people.alice, EICAR)
    now, lease_us = scanned_house.clock(), 660_000_000
    taken = await scanned_house.db.write(
        lambda tx: take_job(tx, "scan", now_us=now, lease_us=lease_us)
    )
    assert taken is not None
    parts = with_daemon(scanned_house, clamd)
    assert await scan_step(parts) == 0
    scanned_house.clock.move(661)
    assert await scan_step(parts) == 1
    assert (await row_of(people.alice, file))["scan"] == "infected"


async def test_bytes_that_are_gone_cannot_be_scanned(scanned_house: House, clamd: str) -> None:
    """The scan fails with the reason; bytes that are not whole are never called clean."""
    people = await scanned_house.people()
    gone, cut = await upload(people.alice, b"gone", b"cut short")
    keys = dict(await scanned_house.rows("SELECT sha256, object_key FROM blobs"))
    await scanned_house.parts.blobs.delete(keys[gone["sha256"]])
    await scanned_house.parts.blobs.delete(keys[cut["sha256"]])
    async with await scanned_house.parts.blobs.create(keys[cut["sha256"]]) as writer:
        await writer.write(b"cut")
        await writer.finish()
    assert await scan_all(with_daemon(scanned_house, clamd)) == 2
    rows = await scanned_house.rows("SELECT scan, scan_detail FROM blobs ORDER BY id")
    assert rows == [("failed", "its bytes are gone"), ("failed", "its bytes are not whole")]


async def test_scanning_again(scanned_house: House, clamd: str) -> None:
    """An operator queues what is not known to be clean, or all, of their own organisation."""
    people = await scanned_house.people()
    await upload(people.alice, b"fine", EICAR)
    await upload(people.carol, EICAR)
    parts = with_daemon(scanned_house, clamd)
    assert await scan_all(parts) == 3
    now = scanned_house.clock()

    async def queue(also_clean: bool) -> int:
        return await scanned_house.db.write(
            lambda tx: store.queue_scans(tx, people.organisation, also_clean=also_clean, now_us=now)
        )

    assert await queue(False) == 1
    assert await queue(False) == 0
    assert await scan_all(parts) == 1
    assert await queue(True) == 2
    assert await scan_all(parts) == 2
    assert with_daemon(scanned_house, NOBODY).settings.clamd == NOBODY
