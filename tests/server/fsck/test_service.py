"""fsck finds what does not agree between rows and objects, and mends what can be mended."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agentsight.server.blobs import blob_key
from agentsight.server.fsck.model import Options, Report, counted
from agentsight.server.fsck.service import check_instance_files
from agentsight.server.ids import AgentId, new_uid
from tests.server.uploads.sending import begin, patch
from tests.support.http import House, Person, base64_file, open_house
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.anyio
AT_ONCE = Options(min_age_s=0)
REPAIR = Options(is_repairing=True, min_age_s=0)


@pytest.fixture(params=["sqlite-local", "postgresql-local", "sqlite-s3"])
def places(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Say which database and which kind of store this run of the test is on."""
    dialect, _, store = str(request.param).partition("-")
    return dialect, store


@pytest.fixture
def dialect(places: tuple[str, str]) -> str:
    """Say which database this run of the test is on."""
    return places[0]


@pytest.fixture
async def own_house(
    places: tuple[str, str],
    database_url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    """Run an application on a database, and a place in a store, that are this test's alone."""
    changes = {}
    if places[1] == "s3":
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        for name, value in seaweed.environ.items():
            monkeypatch.setenv(name, value)
        changes["storage_url"] = seaweed.new_url()
    async with open_house(database_url, tmp_path, examine=False, **changes) as house:
        yield house


async def check(house: House, options: Options = AT_ONCE) -> Report:
    """Run fsck now: files have the machine's times, not the test clock's."""
    return await check_instance_files(house.parts, options, now_us=time.time_ns() // 1000 + 1)


async def store(person: Person, *files: bytes) -> None:
    """Store files in a conversation of their own."""
    pk = await person.conversation(f"c-{new_uid(1)}")
    body = {
        "conversation": pk,
        "attachments": [base64_file(data, f"{n}.txt") for n, data in enumerate(files)],
    }
    answer = await person.post("/api/attachments/", body)
    assert answer.status == 201, answer.body


async def key_of(house: House, data: bytes) -> str:
    """Find the object that holds these bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    ((key,),) = await house.rows("SELECT object_key FROM blobs WHERE sha256 = $1", sha256)
    return str(key)


async def put(house: House, key: str, data: bytes) -> None:
    """Put an object behind the server's back."""
    await house.parts.blobs.delete(key)
    async with await house.parts.blobs.create(key) as writer:
        await writer.write(data)
        await writer.finish()


async def lose(house: House, data: bytes) -> None:
    """Remove the object that holds these bytes behind the server's back."""
    await house.parts.blobs.delete(await key_of(house, data))


async def test_nothing_is_wrong_after_ordinary_work(own_house: House) -> None:
    """Rows, objects and counts agree, and everything is looked at."""
    people = await own_house.people()
    await store(people.alice, b"one", b"two", b"one")
    await store(people.carol, b"one")
    report = await check(own_house, Options(is_reading=True, min_age_s=0))
    assert report.faults == {}
    assert (report.n_blobs, report.n_objects, report.size_bytes) == (3, 3, 9)


async def test_bytes_that_are_gone_are_told_and_kept(own_house: House) -> None:
    """A lost object is reported with its references, and repairing removes no row."""
    people = await own_house.people()
    await store(people.alice, b"lost", b"kept", b"lost")
    await lose(own_house, b"lost")
    report = await check(own_house, REPAIR)
    assert not report.is_clean
    fault = report.faults["missing_object"]
    assert (fault.n_found, fault.size_bytes, fault.n_repaired) == (1, 4, 0)
    assert fault.examples[0].endswith("(2 attachments)")
    assert await own_house.count("attachments") == 3
    await store(people.alice, b"lost")  # the same bytes come again: mended
    assert (await check(own_house)).faults == {}


async def test_one_is_not_several(own_house: House) -> None:
    """A number and what it counts agree."""
    people = await own_house.people()
    await store(people.alice, b"lost")
    await lose(own_house, b"lost")
    (example,) = (await check(own_house)).faults["missing_object"].examples
    assert example.endswith("(1 attachment)")
    assert [counted(n, "file", "files") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


async def test_bytes_that_were_changed_are_found(own_house: House) -> None:
    """Another size is seen at once, other bytes of the same size by reading them."""
    people = await own_house.people()
    await store(people.alice, b"short", b"same size")
    for data, damaged in ((b"short", b"shorter"), (b"same size", b"SAME SIZE")):
        await put(own_house, await key_of(own_house, data), damaged)
    assert set((await check(own_house)).faults) == {"wrong_size"}
    report = await check(own_house, Options(is_reading=True, min_age_s=0))
    assert set(report.faults) == {"wrong_size", "wrong_hash"}


async def test_an_object_without_a_row_is_removed(own_house: House) -> None:
    """What a crash between bytes and row leaves is found, and goes when it is old enough."""
    people = await own_house.people()
    await store(people.alice, b"kept")
    for agent_id in (people.alice.access.agent_id, AgentId(999_999)):
        key = blob_key(agent_id, new_uid(own_house.clock()))
        await put(own_house, key, b"nobody's")
    assert (await check(own_house, Options(is_repairing=True))).faults == {}  # too young
    report = await check(own_house)
    assert (report.faults["orphan_object"].n_found, report.is_clean) == (2, False)
    report = await check(own_house, REPAIR)
    assert (report.faults["orphan_object"].n_repaired, report.is_clean) == (2, True)
    assert (await check(own_house)).faults == {}
    key = await key_of(own_house, b"kept")
    assert await own_house.parts.blobs.read_whole(key, max_bytes=9) == b"kept"


async def test_the_object_of_a_pending_upload_is_left_alone(own_house: House) -> None:
    """An upload whose bytes are whole and whose row is not written yet goes on later."""
    people = await own_house.people()
    agent_id, uid = people.alice.access.agent_id, new_uid(own_house.clock())
    key = blob_key(agent_id, uid)
    await put(own_house, key, b"waiting")
    await own_house.run(
        "INSERT INTO uploads (agent_id, uid, blob_uid, object_key, filename, size_bytes, state,"
        " created_at, updated_at, expires_at) VALUES ($1, $2, $2, $3, 'a', 7, 'pending', 1, 1, 1)",
        agent_id,
        uid,
        key,
    )
    assert (await check(own_house)).faults == {}


async def test_a_copy_whose_object_is_gone_is_forgotten(own_house: House) -> None:
    """A thumbnail's row goes, so that the thumbnail is made again; its orphans go too."""
    people = await own_house.people()
    await store(people.alice, b"picture")
    agent_id = people.alice.access.agent_id
    ((blob_id,),) = await own_house.rows("SELECT id FROM blobs WHERE agent_id = $1", agent_id)
    await own_house.run(
        "INSERT INTO derivatives (agent_id, blob_id, kind, state, object_key, mime_type, sha256,"
        " size_bytes, created_at, updated_at) VALUES ($1, $2, 'thumbnail-128', 'stored',"
        " 'derived/1/aa/gone', 'image/webp', 'ff', 9, 1, 1)",
        agent_id,
        blob_id,
    )
    assert set((await check(own_house)).faults) == {"missing_copy"}
    assert (await check(own_house, REPAIR)).is_clean
    assert await own_house.count("derivatives") == 0


async def test_wrong_counts_are_counted_anew(own_house: House) -> None:
    """Bytes and conversations are counted from their rows, agent by agent."""
    people = await own_house.people()
    await store(people.alice, b"one", b"two")
    await own_house.run("UPDATE storage_counts SET stored_bytes = stored_bytes + 5")
    await own_house.run("UPDATE conversation_counts SET n_live = n_live + 1")
    report = await check(own_house)
    assert sorted(report.faults["wrong_count"].examples) == [
        f"bytes of agent {people.alice.slug}",
        f"conversations of agent {people.alice.slug}",
    ]
    assert (await check(own_house, REPAIR)).is_clean
    assert (await check(own_house)).faults == {}
    usage = (await people.alice.get("/api/v1/usage/storage/")).json()
    assert usage["stored_bytes"] == 6


async def test_facts_that_were_not_copied_are_copied(own_house: House) -> None:
    """Each attachment shows what is known of its file."""
    people = await own_house.people()
    await store(people.alice, b"one")
    await own_house.run("UPDATE attachments SET facts = NULL")
    await own_house.run("UPDATE blobs SET facts = '[]' WHERE facts IS NULL")
    assert set((await check(own_house)).faults) == {"stale_facts"}
    assert (await check(own_house, REPAIR)).is_clean
    assert (await check(own_house)).faults == {}


ON_FILES = pytest.mark.parametrize("places", [("sqlite", "local"), ("postgresql", "local")])
"""Where a test can make what lies in the store older than it is."""


async def pause(house: House, person: Person, *, hours: int, pin_hours: int) -> tuple[str, Path]:
    """Begin an upload, and let it rest for so long by the clock of rows and by that of files."""
    path = await begin(person, b"x" * 1_000)
    assert (await patch(person, path, 0, b"x" * 600)).status == 204
    (name,) = house.unfinished_uploads()
    file = Path(house.parts.settings.data_dir) / "files" / name
    then_s, now_us = time.time() - hours * 3600, time.time_ns() // 1000
    os.utime(file, (then_s, then_s))
    expires_at = now_us + (pin_hours - hours) * 3600 * 1_000_000
    await house.run("UPDATE uploads SET expires_at = $1", expires_at)
    return path, file


@ON_FILES
async def test_the_bytes_of_an_upload_that_rests_are_left_alone(own_house: House) -> None:
    """With a pin of a week, and whatever the settings that fsck itself was given say."""
    alice = (await own_house.people()).alice
    path, file = await pause(own_house, alice, hours=30, pin_hours=168)
    report = await check(own_house, Options(is_repairing=True))
    assert report.faults == {}
    assert file.stat().st_size == 600
    own_house.clock.now_us = time.time_ns() // 1000
    assert (await patch(alice, path, 600, b"x" * 400)).status == 204


@ON_FILES
async def test_what_nobody_will_go_on_with_is_removed(own_house: House) -> None:
    """After the time that the settings promise to an upload, and not before."""
    alice = (await own_house.people()).alice
    _, file = await pause(own_house, alice, hours=30, pin_hours=24)
    longer = replace(own_house.parts, settings=msgspec.structs.replace(
        own_house.parts.settings, upload_pin_hours=168))  # fmt: skip
    now_us = time.time_ns() // 1000
    patient = await check_instance_files(longer, Options(is_repairing=True), now_us=now_us)
    assert patient.faults == {}
    assert file.exists()
    report = await check(own_house, Options(is_repairing=True))
    assert (report.faults["leftover"].n_repaired, report.is_clean) == (1, True)
    assert not file.exists()


async def test_a_removal_that_was_broken_off_is_finished(own_house: House) -> None:
    """Told without repairing; with it the object goes, and nothing is left to tell."""
    people = await own_house.people()
    await store(people.alice, b"going")
    await own_house.run("DELETE FROM attachments")
    await own_house.run("UPDATE blobs SET state = 'deleting'")
    assert not (await check(own_house)).is_clean
    report = await check(own_house, REPAIR)
    assert report.is_clean
    assert report.faults["unfinished_removal"].n_repaired == 1
    assert "unfinished_removal" not in (await check(own_house)).faults
