"""`/metrics`: what is counted, that it counts, and that it tells of nobody."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from agentsight.server.scans.quarantine import quarantine
from tests.support.http import House, People, base64_file, path_of

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


async def numbers(house: House) -> dict[str, float]:
    """Ask for all numbers, by name with labels."""
    answer = await house.stranger.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_files_are_counted(house: House, people: People) -> None:
    """In, stored once only, out again, refused: each counter moves by what happened."""
    data = f"counted {people.alice.slug}".encode()
    before = await numbers(house)
    pk = await people.alice.conversation()
    body = {"conversation": pk, "attachments": [base64_file(data), base64_file(data)]}
    [file, _] = (await people.alice.post("/api/attachments/", body)).json()["attachments"]
    link = path_of(file["file_url"])
    assert (await house.stranger.get(link)).body == data
    part = await house.stranger.send("GET", link, headers={"range": "bytes=0-3"})
    assert part.body == data[:4]
    await house.stranger.send("HEAD", link)
    after = await numbers(house)

    def moved(name: str) -> float:
        return after[name] - before[name]

    assert moved("agentsight_uploads_total") == 2
    assert moved("agentsight_upload_bytes_total") == 2 * len(data)
    assert moved("agentsight_deduplicated_bytes_total") == len(data)
    assert moved("agentsight_files_served_total") == 2
    assert moved("agentsight_served_bytes_total") == len(data) + 4


async def test_refused_links_are_counted_by_reason(house: House, people: People) -> None:
    """The caller hears one and the same; the operator sees why."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "attachments": [base64_file(b"refused")]}
    [file] = (await people.alice.post("/api/attachments/", body)).json()["attachments"]
    link = path_of(file["file_url"])
    _, _, uid, token, _ = link.split("/")
    key_id, _, signature = token.split(".")
    before = await numbers(house)
    for broken in (
        link + "x",
        "/files/what/is/this",
        link.replace(token, f"{key_id}.1000000000.{signature}"),
        link.replace(uid, uid[:-1] + ("0" if uid[-1] != "0" else "1")),
    ):
        assert (await house.stranger.get(broken)).is_error(404, "link_invalid")
    await house.run("UPDATE attachments SET deleted_at = 1 WHERE uid = $1", uid)
    assert (await house.stranger.get(link)).is_error(404, "link_invalid")
    after = await numbers(house)
    name = 'agentsight_links_refused_total{reason="%s"}'
    reasons = ("invalid", "expired", "unknown", "deleted", "quarantined", "infected")
    moved = [after[name % reason] - before[name % reason] for reason in reasons]
    assert moved == [2, 1, 1, 1, 0, 0]


async def test_erasures_and_links_to_blocked_bytes_are_counted(
    house: House, people: People
) -> None:
    """A file that is gone for good, and a link to bytes that the operator has blocked."""
    pk = await people.alice.conversation()
    contents = [f"{n} {people.alice.slug}".encode() for n in range(2)]
    body = {"conversation": pk, "attachments": [base64_file(data) for data in contents]}
    files = (await people.alice.post("/api/attachments/", body)).json()["attachments"]
    before = await numbers(house)
    path = f"/api/v1/attachments/{files[0]['uid']}/?erase=true"
    assert (await people.alice.writer.send("DELETE", path)).status == 200
    sha256 = hashlib.sha256(contents[1]).hexdigest()
    await quarantine(house.db, people.organisation, sha256, reason="x", now_us=house.clock())
    statuses = [(await house.stranger.get(path_of(file["file_url"]))).status for file in files]
    assert statuses == [404, 403]
    after = await numbers(house)
    refused = 'agentsight_links_refused_total{reason="quarantined"}'
    names = ["agentsight_erasures_total", refused]
    assert [after[name] - before[name] for name in names] == [1, 1]


async def test_it_tells_of_nobody(house: House, people: People) -> None:
    """No name, uid, slug or address stands in it, whatever has happened."""
    alice = people.alice
    await alice.conversation("secret-conversation")
    text = (await house.stranger.get("/metrics")).body.decode()
    access = alice.access
    for told in (alice.slug, access.agent_uid, access.principal_uid, "secret", "127.0.0.1"):
        assert str(told) not in text
    labels = set(re.findall(r'(\w+)="', text))
    assert labels <= {"reason", "kind", "result"}


async def test_the_page_names_every_metric(house: House) -> None:
    """docs/metrics.md says of each what it counts, and names none that is not there."""
    text = (await house.stranger.get("/metrics")).body.decode()
    shown = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    named = set(re.findall(r"^\| `([a-z_]+)", PAGE.read_text(), re.MULTILINE))
    assert named == shown


async def test_gauges_of_the_database(house: House, people: People) -> None:
    """What waits is counted when it is asked for."""
    before = (await numbers(house))['agentsight_blob_jobs_waiting{kind="scan"}']
    pk = await people.alice.conversation()
    body = {"conversation": pk, "attachments": [base64_file(people.alice.slug.encode())]}
    await people.alice.post("/api/attachments/", body)
    await house.run(
        "INSERT INTO blob_jobs (agent_id, blob_id, kind, attempts, not_before, created_at)"
        " SELECT agent_id, id, 'scan', 0, 0, 0 FROM blobs WHERE agent_id = $1",
        people.alice.access.agent_id,
    )
    assert (await numbers(house))['agentsight_blob_jobs_waiting{kind="scan"}'] == before + 1
