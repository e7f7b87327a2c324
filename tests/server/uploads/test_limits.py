"""Limits that can be set and seen: each refusal names its setting and value, and stores nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from agentsight import _contract as contract
from agentsight.server.blobs import Disks, StorageFull
from agentsight.server.problems import Problem
from agentsight.server.settings import load_settings
from agentsight.server.uploads.visits import Visit
from tests.server.uploads.sending import (
    announce,
    begin,
    own_objects,
    patch,
    pieces,
    refer,
    state_of,
    unfinished,
    upload,
)
from tests.support.http import Answer, House, People, Person, base64_file, open_house

pytestmark = pytest.mark.anyio
LIMIT = 10_000


class OpenHouse(Protocol):
    """Opens an application with settings of its own."""

    def __call__(self, **changes: Any) -> AbstractAsyncContextManager[House]: ...


@pytest.fixture
def limited(database_url: str, tmp_path: Path) -> OpenHouse:
    """Open applications on a fresh database, once for each kind."""

    def make(**changes: Any) -> AbstractAsyncContextManager[House]:
        return open_house(database_url, tmp_path, **changes)

    return make


async def store_by_form(person: Person, *files: bytes, conversation_id: str = "c") -> Answer:
    """Store files by multipart."""
    parts: list[Any] = [("conversation_id", conversation_id)]
    parts += [
        (f"attachment_{n}", f"{n}.bin", "application/octet-stream", data)
        for n, data in enumerate(files)
    ]
    return await person.writer.form(contract.ATTACHMENTS_PATH, parts)


async def store_by_json(person: Person, *files: bytes) -> Answer:
    """Store files in base64."""
    body = {"conversation_id": "c", "attachments": [base64_file(data) for data in files]}
    return await person.post(contract.ATTACHMENTS_PATH, body)


def says(answer: Answer, setting: str, limit: int) -> bool:
    """Say whether a refusal names the setting and its value."""
    detail = answer.json()["detail"]
    return setting in detail and str(limit) in detail


async def test_one_file(limited: OpenHouse) -> None:
    """`max_file_bytes` holds for multipart and uploads, and a file that just fits is stored."""
    async with limited(max_file_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        big = os.urandom(LIMIT + 1)
        for answer in (await announce(alice, big), await store_by_form(alice, big)):
            assert answer.is_error(413, "too_large")
            assert says(answer, "max_file_bytes", LIMIT)
        assert own_objects(house, alice) == set()
        await upload(alice, big[1:])
        assert (await store_by_form(alice, big[1:])).status == 201
        options = await alice.writer.send("OPTIONS", contract.UPLOADS_PATH)
        assert options.headers["tus-max-size"] == str(LIMIT)
        assert options.headers["tus-version"] == "1.0.0"


async def test_all_files_of_one_request(limited: OpenHouse) -> None:
    """`max_request_bytes` counts what multipart and base64 bring together, and a PATCH's bytes."""
    async with limited(max_request_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        half = LIMIT // 2
        files = [os.urandom(half), os.urandom(half), os.urandom(1)]
        for store in (store_by_form, store_by_json):
            answer = await store(alice, *files)
            assert answer.is_error(413, "too_large")
            assert says(answer, "max_request_bytes", LIMIT)
            assert own_objects(house, alice) == set()
        assert (await store_by_form(alice, *files[:2])).status == 201
        data = os.urandom(LIMIT + 5)
        path = await begin(alice, data)
        assert (await patch(alice, path, 0, data)).is_error(413, "too_large")
        assert (await patch(alice, path, 0, data[:LIMIT])).status == 204
        assert (await patch(alice, path, LIMIT, data[LIMIT:])).status == 204


async def test_all_files_of_one_conversation(limited: OpenHouse) -> None:
    """`max_conversation_bytes` counts references, by every door, and frees what is deleted."""
    async with limited(max_conversation_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        data = os.urandom(4000)
        assert (await store_by_form(alice, data, data)).status == 201
        uid = (await announce(alice, data)).json()["uid"]
        for answer in (
            await store_by_form(alice, data), await store_by_json(alice, data),
            await refer(alice, uid),
        ):  # fmt: skip
            assert answer.is_error(507, "storage_limit")
            assert says(answer, "max_conversation_bytes", LIMIT)
        assert await house.count("attachments") == 2
        assert (await refer(alice, uid, conversation_id="another")).status == 200
        await house.run("UPDATE attachments SET deleted_at = 1 WHERE deleted_at IS NULL")
        assert (await refer(alice, uid)).status == 200


async def test_all_bytes_of_one_agent(limited: OpenHouse) -> None:
    """`max_agent_bytes` counts each content once; what is here already always fits."""
    async with limited(max_agent_bytes=LIMIT) as house:
        alice, bob = (people := await house.people()).alice, people.bob
        data = os.urandom(6000)
        assert (await store_by_form(alice, data)).status == 201
        for _ in range(3):
            assert (await store_by_form(alice, data)).status == 201
        uid = (await announce(alice, data)).json()["uid"]
        assert (await refer(alice, uid)).status == 200
        before = own_objects(house, alice)
        more = os.urandom(4001)
        for answer in (
            await store_by_form(alice, more), await store_by_json(alice, more),
            await announce(alice, more),
        ):  # fmt: skip
            assert answer.is_error(507, "storage_limit")
            assert says(answer, "max_agent_bytes", LIMIT)
        assert own_objects(house, alice) == before
        assert (await store_by_form(bob, more)).status == 201
        usage = (await alice.get(contract.STORAGE_USAGE_PATH)).json()
        assert (usage["stored_bytes"], usage["left_bytes"]) == (6000, 4000)
        await upload(alice, more[:4000])


async def test_an_upload_that_no_longer_fits_leaves_nothing(limited: OpenHouse) -> None:
    """Room that was there when it was announced may be taken when its last byte comes."""
    async with limited(max_agent_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        data = os.urandom(6000)
        path = await begin(alice, data)
        await upload(alice, os.urandom(6000))
        before = own_objects(house, alice)
        answer = await patch(alice, path, 0, data)
        assert answer.is_error(507, "storage_limit")
        assert own_objects(house, alice) == before
        assert (await alice.get(path)).json()["state"] == "expired"


async def test_unfinished_uploads_count_too(limited: OpenHouse) -> None:
    """Who never sends the last byte keeps no more than who does; what was there may still end."""
    async with limited(max_agent_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        data, other = os.urandom(6000), os.urandom(6000)
        first, second = await begin(alice, data), await begin(alice, other)
        assert (await patch(alice, first, 0, data[:-1])).status == 204
        for answer in (await patch(alice, second, 0, other[:-1]), await announce(alice, other)):
            assert answer.is_error(507, "storage_limit")
            assert says(answer, "max_agent_bytes", LIMIT)
        again = (await announce(alice, data)).json()  # its bytes are counted, and not twice
        assert (again["uid"], again["offset"]) == (first.split("/")[-2], 5999)
        assert (await patch(alice, first, 5999, data[-1:])).status == 204
        assert (await alice.get(first)).json()["state"] == "stored"


async def test_requests_that_begin_at_once_do_not_get_the_same_room(limited: OpenHouse) -> None:
    """From its first byte on, a request counts with all bytes that were announced for it."""
    async with limited(max_agent_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        files = [os.urandom(6000) for _ in range(6)]
        paths = [await begin(alice, data) for data in files]
        answers = await asyncio.gather(
            *(
                patch(alice, path, 0, pieces(data[:-1], 500))
                for path, data in zip(paths, files, strict=True)
            )
        )
        assert sorted(answer.status for answer in answers) == [204, *[507] * 5]
        usage = (await alice.get(contract.STORAGE_USAGE_PATH)).json()
        assert usage["pending"]["received_bytes"] == 5999


async def test_an_upload_that_only_has_to_wait_for_room_is_kept(limited: OpenHouse) -> None:
    """What is refused for what another request may still bring can be sent when that has failed."""
    async with limited(max_agent_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        data, other = os.urandom(6000), os.urandom(6000)
        first, second = await begin(alice, data), await begin(alice, other)
        uid = first.split("/")[-2]
        async with Visit(house.parts, alice.access, uid, offset=0, max_agent_bytes=LIMIT) as visit:
            await visit.take(data[:10])
            answer = await patch(alice, second, 0, other)
            assert answer.is_error(507, "storage_limit")
            assert says(answer, "max_agent_bytes", LIMIT)
        assert await state_of(house, second) == "pending"
        assert (await patch(alice, second, 0, other)).status == 204


async def test_an_upload_stops_where_others_have_taken_its_room(limited: OpenHouse) -> None:
    """Files that come whole while it is sent end it at its next note, and what came of it goes."""
    async with limited(max_agent_bytes=LIMIT) as house:
        alice = (await house.people()).alice
        path = await begin(alice, data := os.urandom(9000))
        uid = path.split("/")[-2]
        async with Visit(house.parts, alice.access, uid, offset=0, max_agent_bytes=LIMIT) as visit:
            await visit.take(data[:5000])
            assert (await store_by_form(alice, os.urandom(6000))).status == 201
            await visit._keep_once()
            with pytest.raises(Problem, match="max_agent_bytes"):
                await visit.take(data[5000:])
        assert await state_of(house, path) == "expired"
        assert unfinished(house) == set()


async def test_a_disk_that_is_nearly_full_refuses_files_and_keeps_messages(
    limited: OpenHouse,
) -> None:
    """503 before the disk is full, by every door that brings bytes; texts still go through."""
    async with limited(min_free_disk_bytes=1 << 60) as house:
        alice = (await house.people()).alice
        for answer in (
            await store_by_form(alice, b"abc"), await store_by_json(alice, b"abc"),
            await announce(alice, b"abc"),
        ):  # fmt: skip
            assert answer.is_error(503, "storage_full")
            assert int(answer.headers["retry-after"]) > 0
            assert says(answer, "min_free_disk_bytes", 1 << 60)
        assert own_objects(house, alice) == set()
        await alice.message(await alice.conversation())


def test_the_disks_are_looked_at_once_a_second(tmp_path: Path) -> None:
    """The room is remembered for a second; a directory that is missing is no full disk."""
    now = [0.0]
    free = shutil.disk_usage(tmp_path).free
    disks = Disks([tmp_path, tmp_path / "none"], min_free_bytes=1, monotonic=lambda: now[0])
    first = disks.free_bytes()
    assert first is not None
    assert abs(first - free) < 1 << 33
    disks.require_room()
    with pytest.raises(StorageFull, match="min_free_disk_bytes"):
        disks.require_room(first)
    assert disks.free_bytes() == first
    Disks([tmp_path / "none"], min_free_bytes=1 << 60).require_room()
    Disks(min_free_bytes=1 << 60).require_room()


def test_what_came_since_the_last_look_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast disk takes more within a second than the room that is kept: its bytes are counted."""
    looks: list[Path] = []

    def room(directory: Path) -> int:
        looks.append(directory)
        return 100

    monkeypatch.setattr("agentsight.server.blobs.disks._free_bytes", room)
    disks = Disks([tmp_path], min_free_bytes=40, monotonic=lambda: 0.0)
    disks.require_room(n_written=0)
    disks.require_room(n_written=60)
    with pytest.raises(StorageFull, match="39 bytes are free"):
        disks.require_room(n_written=1)
    assert len(looks) == 1
    disks.require_room(n_written=8 << 20)  # so much that it is looked again, and there is room
    assert len(looks) == 2


def test_leftovers_are_older_than_any_pause() -> None:
    """What the sweep takes for nobody's is older than the longest wait of an upload."""
    assert load_settings({}).leftover_age_s() == 25 * 3600
    longer = load_settings({"AGENTSIGHT_UPLOAD_PIN_HOURS": "240"})
    assert longer.leftover_age_s() == 241 * 3600
    assert load_settings({"AGENTSIGHT_UPLOAD_PIN_HOURS": "1"}).leftover_age_s() == 24 * 3600


# --- What is used ---------------------------------------------------------------------------------


async def test_the_use_of_storage(house: House, people: People) -> None:
    """Files, bytes, what storing once has spared, and uploads on their way; each agent its own."""
    alice, data = people.alice, os.urandom(5000)
    assert (await store_by_form(alice, data, data, b"x" * 100)).status == 201
    await upload(alice, os.urandom(700))
    path = await begin(alice, os.urandom(2000))
    await patch(alice, path, 0, b"y" * 500)
    usage = (await alice.get(contract.STORAGE_USAGE_PATH)).json()
    assert usage == {
        "files": 3,
        "referenced_bytes": 10_100,
        "blobs": 3,
        "stored_bytes": 5800,
        "saved_bytes": 5000,
        "left_bytes": None,
        "limits": {
            "max_file_bytes": contract.MAX_FILE_BYTES,
            "max_request_bytes": contract.MAX_REQUEST_BYTES,
            "max_conversation_bytes": None,
            "max_agent_bytes": None,
        },
        "pending": {"uploads": 1, "announced_bytes": 2000, "received_bytes": 500},
    }
    nothing = (await people.bob.get(contract.STORAGE_USAGE_PATH)).json()
    assert (nothing["files"], nothing["stored_bytes"], nothing["saved_bytes"]) == (0, 0, 0)
