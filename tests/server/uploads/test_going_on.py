"""The native upload, cut and gone on with: resuming, one writer at a time, beginning again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agentsight import _contract as contract
from agentsight.server.agents.model import generate_key
from agentsight.server.agents.service import add_key
from agentsight.server.blobs import StorageFull
from agentsight.server.blobs.local_files import LocalFiles
from agentsight.server.problems import Problem
from agentsight.server.uploads import service, turns, visits
from tests.server.uploads.sending import (
    OFFSET_TYPE,
    announce,
    begin,
    metadata,
    offset_of,
    own_objects,
    patch,
    pieces,
    sha256,
    state_of,
    unfinished,
)
from tests.support.http import House, People

pytestmark = pytest.mark.anyio
MIB = 1 << 20
HOUR_S = 3600


# --- Resuming -------------------------------------------------------------------------------------


async def test_a_cut_connection_costs_nothing_that_had_come(house: House, people: People) -> None:
    """After a cut, HEAD tells how many bytes are safe, and the rest completes the file."""
    data = os.urandom(3 * MIB)
    path = await begin(people.alice, data)
    cut = await patch(people.alice, path, 0, pieces(data[: 2 * MIB]), is_cut=True)
    assert cut.status == 400
    offset = await offset_of(people.alice, path)
    assert offset == 2 * MIB
    conflict = await patch(people.alice, path, 5, data[5:])
    assert conflict.is_error(409, "upload_conflict")
    assert (await patch(people.alice, path, offset, data[offset:])).status == 204
    assert await state_of(house, path) == "stored"


async def test_many_short_visits_make_one_file(people: People) -> None:
    """A client of small pieces is slow, not wrong; its last answer may be asked for again."""
    data = os.urandom(50_000)
    path = await begin(people.alice, data)
    for start in range(0, len(data), 9_999):
        piece = data[start : start + 9_999]
        answer = await patch(people.alice, path, start, piece)
        assert answer.status == 204, answer.body
        assert answer.headers["upload-offset"] == str(start + len(piece))
    assert (await patch(people.alice, path, len(data), b"")).status == 204
    assert (await patch(people.alice, path, 0, data)).is_error(409, "upload_conflict")


async def test_a_hash_that_was_lost_is_computed_by_reading_back(
    people: People, house: House
) -> None:
    """After a restart, or in another process, the bytes are read once and verified all the same."""
    data = os.urandom(200_000)
    for other in (data, data[:-1] + b"!"):
        path = await begin(people.alice, data if other is data else data + b"2")
        other = other if other is data else other + b"3"
        await patch(people.alice, path, 0, other[:100_000])
        visits.HASHES.drop(path.split("/")[-2])
        answer = await patch(people.alice, path, 100_000, other[100_000:])
        if len(other) == len(data):
            assert answer.status == 204
        else:
            assert answer.is_error(400, "hash_mismatch")
    assert len(own_objects(house, people.alice)) == 1


async def test_a_put_begins_anew(people: People, house: House) -> None:
    """A whole body drops what half an upload had brought before."""
    data, before = os.urandom(300_000), unfinished(house)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, os.urandom(100_000))
    answer = await people.alice.writer.send("PUT", path, body=data)
    assert answer.status == 200, answer.body
    assert unfinished(house) == before


async def test_what_a_crash_left_before_its_row_is_completed(house: House, people: People) -> None:
    """Bytes published under their key, and a row that says pending: the next visit finishes it."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:60_000])
    key, parts = (await house.rows(
        "SELECT object_key, parts FROM uploads WHERE uid = $1", path.split("/")[-2]
    ))[0]  # fmt: skip
    async with await house.parts.blobs.resume_parts(key, parts) as writer:
        await writer.write(data[60_000:])
        await writer.finish()
    assert await offset_of(people.alice, path) == 60_000
    answer = await patch(people.alice, path, 60_000, data[60_000:])
    assert (answer.status, answer.headers["upload-offset"]) == (204, "100000")
    assert await state_of(house, path) == "stored"


async def test_a_whole_upload_that_lacks_its_last_step_gets_it_when_asked(
    house: House, people: People
) -> None:
    """All bytes noted and no row yet (the database was away): whoever asks completes it."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    await patch(people.alice, path, 0, data[:99_999])
    async with visits.Visit(house.parts, people.alice.access, uid, offset=99_999) as visit:
        await visit.take(data[99_999:])
    assert await state_of(house, path) == "pending"
    assert await offset_of(people.alice, path) == 100_000
    assert await state_of(house, path) == "stored"


async def test_bytes_that_are_gone_are_told(house: House, people: People) -> None:
    """Where the half-written file has vanished, the upload has expired: begin again."""
    data, before = os.urandom(100_000), unfinished(house)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:1000])
    (key,) = unfinished(house) - before
    partial = house.parts.blobs.local_path(key)
    assert partial is not None
    partial.unlink()
    assert (await patch(people.alice, path, 1000, data[1000:])).is_error(410, "upload_expired")


# --- One writer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "PUT", "DELETE"])
async def test_a_newer_request_takes_over(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A writer whose client comes again is stopped, and what it brought is there and counted."""
    monkeypatch.setattr(turns, "PATIENCE_S", 0.0)
    monkeypatch.setattr(visits, "KEEP_S", 0.01)
    data = os.urandom(2 * MIB)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    with pytest.raises(Problem) as caught:  # noqa: PT012 # the visit itself is what fails
        async with visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit:
            for piece in pieces(data[:MIB]):
                await visit.take(piece)
            headers = {"content-type": OFFSET_TYPE, "upload-offset": str(MIB)}
            body = data if method == "PUT" else data[MIB:] if method == "PATCH" else b""
            answer = await people.alice.writer.send(method, path, body=body, headers=headers)
            assert answer.status == {"HEAD": 200, "PUT": 200}.get(method, 204), answer.body
            if method == "HEAD":
                assert int(answer.headers["upload-offset"]) == MIB
            await visit.take(data[MIB:])
    assert (caught.value.status, caught.value.code) == (409, "upload_conflict")
    if method == "HEAD":
        assert (await patch(people.alice, path, MIB, data[MIB:])).status == 204
    assert await state_of(house, path) == ("expired" if method == "DELETE" else "stored")


async def test_a_request_that_comes_to_its_end_is_waited_for(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that were on their way when their connection broke are counted in the answer."""
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    data = os.urandom(2 * MIB)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    async with asyncio.TaskGroup() as group:  # noqa: SIM117 # it ends after the visit
        async with visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit:
            asked = group.create_task(offset_of(people.alice, path))
            for piece in pieces(data[:MIB], 1000):
                await visit.take(piece)
                await asyncio.sleep(0)
            assert not asked.done()
    assert asked.result() == MIB


async def test_an_old_request_that_begins_late_is_waited_for(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that broke may be heard of only after its successor: then that one waits."""
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    access, uid = people.alice.access, path.split("/")[-2]
    late = visits.Visit(house.parts, access, uid, offset=0)
    async with asyncio.TaskGroup() as group, late:
        newer = visits.Visit(house.parts, access, uid, offset=None)
        waiting = group.create_task(newer.__aenter__())
        await late.take(data[:50_000])
        await asyncio.sleep(0)
        await late.__aexit__(None, None, None)
        await waiting
        assert (newer.upload.offset, newer.lease != "") == (0, True)
        await newer.__aexit__(None, None, None)


async def test_looking_stops_nobody(house: House, people: People) -> None:
    """GET tells how far an upload has come while its bytes flow."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    async with visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit:
        await visit.take(data[:50_000])
        assert (await people.alice.get(path)).json()["state"] == "pending"
        await visit.take(data[50_000:])
    assert await offset_of(people.alice, path) == len(data)


async def test_an_upload_that_is_being_finished_is_not_taken_over(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the last bytes are checked, everybody else is told to come back."""
    monkeypatch.setattr(turns, "WAIT_S", 0.0)
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    async with visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit:
        await visit.take(data)
        await visit.publish()
        for method in ("HEAD", "PATCH", "PUT", "DELETE"):
            headers = {"content-type": OFFSET_TYPE, "upload-offset": "0"}
            answer = await people.alice.writer.send(method, path, headers=headers)
            assert answer.status == 423, method
            assert answer.headers["retry-after"] == "1"
        assert (await people.alice.get(path)).json()["state"] == "pending"
    assert (await patch(people.alice, path, 0, data)).status == 204
    assert await state_of(house, path) == "stored"


async def test_the_lease_of_a_dead_process_ends_by_itself(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds after its last sign a writer that died keeps nobody out."""
    monkeypatch.setattr(turns, "WAIT_S", 0.0)
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    now = house.clock()
    await house.run(
        "UPDATE uploads SET lease = 'dead', leased_until = $2 WHERE uid = $1",
        path.split("/")[-2],
        now + 10_000_000,
    )
    for silent_s, retry_after in ((0, "1"), (6, "4")):
        house.clock.move(silent_s)
        refused = await patch(people.alice, path, 0, data)
        assert refused.is_error(423, "upload_locked")
        assert refused.headers["retry-after"] == retry_after
    house.clock.move(5)
    assert (await patch(people.alice, path, 0, data)).status == 204


async def test_a_writer_that_lost_its_lease_changes_nothing(house: House, people: People) -> None:
    """Who comes back after another took over notes nothing and finishes nothing."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    async with visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit:
        await visit.take(data[:50_000])
        await house.run("UPDATE uploads SET lease = 'another' WHERE uid = $1", uid)
    ((offset, lease),) = await house.rows(
        "SELECT offset_bytes, lease FROM uploads WHERE uid = $1", uid
    )
    assert (offset, lease) == (0, "another")


async def test_a_silent_writer_lets_go_and_goes_on(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without bytes for a while the lease is given back, and taken again with the next ones."""
    monkeypatch.setattr(visits, "KEEP_S", 0.01)
    monkeypatch.setattr(visits, "IDLE_S", 0.0)
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    async with (
        asyncio.timeout(10),
        visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit,
    ):
        await visit.take(data[:50_000])
        while visit.lease:  # noqa: ASYNC110 # until the keeper, a task of its own, has come by
            await asyncio.sleep(0)
        ((offset, lease),) = await house.rows(
            "SELECT offset_bytes, lease FROM uploads WHERE uid = $1", uid
        )
        assert (offset, lease) == (50_000, None)
        await visit.take(data[50_000:])
    assert await offset_of(people.alice, path) == 100_000


async def test_a_slow_client_s_bytes_are_safe_at_the_next_look(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few came, they are durable and noted soon, and the writer goes on."""
    monkeypatch.setattr(visits, "KEEP_S", 0.01)
    data = os.urandom(30_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    async with (
        asyncio.timeout(30),
        visits.Visit(house.parts, people.alice.access, uid, offset=0) as visit,
    ):
        for start in range(0, 30_000, 10_000):
            await visit.take(data[start : start + 10_000])
            n_bytes = start + 10_000
            while (await people.alice.get(path)).json()["offset"] < n_bytes:  # noqa: ASYNC110
                await asyncio.sleep(0)  # reading may not wait for anything
    assert (await patch(people.alice, path, 30_000, b"")).status == 204


async def test_a_disk_that_fills_up_under_a_slow_client(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears of it with its next bytes, and what was durable before is kept."""
    monkeypatch.setattr(visits, "KEEP_S", 0.01)
    data = os.urandom(30_000)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:10_000])
    uid = path.split("/")[-2]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(LocalFiles, "sync", full)
    with pytest.raises(StorageFull):  # noqa: PT012 # the visit itself is what fails
        async with (
            asyncio.timeout(30),
            visits.Visit(house.parts, people.alice.access, uid, offset=10_000) as visit,
        ):
            await visit.take(data[10_000:20_000])
            while visit.lease:  # noqa: ASYNC110 # until the keeper has come by
                await asyncio.sleep(0)
            await visit.take(data[20_000:])
    monkeypatch.undo()
    assert await offset_of(people.alice, path) == 10_000
    assert (await patch(people.alice, path, 10_000, data[10_000:])).status == 204


async def test_a_request_that_pauses_and_ends_early_is_a_piece_like_others(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It let go while no bytes came; its end is not taken for the end of the file."""
    monkeypatch.setattr(visits, "KEEP_S", 0.01)
    monkeypatch.setattr(visits, "IDLE_S", 0.0)
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]

    async def chunks() -> AsyncIterator[bytes]:
        yield data[:50_000]
        query = "SELECT 1 FROM uploads WHERE uid = $1 AND offset_bytes = 0"
        while await house.rows(query, uid):  # noqa: ASYNC110 # until the keeper has come by
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        access = people.alice.access
        got = await service.receive(
            house.parts, access, uid, chunks(), offset=0, content_length=None
        )
    assert (got.state, got.offset) == ("pending", 50_000)
    assert (await patch(people.alice, path, 50_000, data[50_000:])).status == 204


# --- Begun again ----------------------------------------------------------------------------------


async def test_an_unfinished_upload_is_gone_on_with(house: House, people: People) -> None:
    """Announced again by a client that has forgotten it, it is the same one, with its offset."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:60_000])
    house.clock.move(3 * HOUR_S)
    answer = await announce(people.alice, data)
    told = answer.json()
    assert (answer.status, told["state"], told["offset"]) == (201, "pending", 60_000)
    assert answer.headers["upload-offset"] == "60000"
    assert answer.headers["location"].endswith(path)
    house.clock.move(23 * HOUR_S)
    assert (await patch(people.alice, path, 60_000, data[60_000:])).status == 204
    assert await state_of(house, path) == "stored"


async def test_two_who_begin_again_at_once_get_one_each(house: House, people: People) -> None:
    """The second is not given what the first was told to go on with, nor what somebody sends."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:60_000])
    answers = await asyncio.gather(*(announce(people.alice, data) for _ in range(4)))
    assert sorted(answer.json()["offset"] for answer in answers) == [0, 0, 0, 60_000]
    assert len({answer.json()["uid"] for answer in answers}) == 4
    house.clock.move(11)
    assert (await announce(people.alice, data)).json()["offset"] == 60_000


async def test_what_is_being_sent_is_nobody_elses(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twin of a file on its way is sent beside it; one that ends just now is waited for."""
    monkeypatch.setattr(turns, "PATIENCE_S", 0.0)
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    await patch(people.alice, path, 0, data[:60_000])
    async with asyncio.TaskGroup() as group:  # noqa: SIM117 # it ends after the visit
        async with visits.Visit(house.parts, people.alice.access, uid, offset=60_000) as visit:
            await visit.take(data[60_000:80_000])
            twin = (await announce(people.alice, data)).json()
            assert (twin["uid"] == uid, twin["offset"]) == (False, 0)
            monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
            again = group.create_task(announce(people.alice, data))
            await asyncio.sleep(0)
    assert (again.result().json()["uid"], again.result().json()["offset"]) == (uid, 80_000)


async def test_only_the_same_file_of_the_same_agent_is_gone_on_with(
    house: House, people: People
) -> None:
    """Another name, size, hash, type or agent, an expired one, a key that may not read: anew."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:60_000])
    key, now = generate_key(), house.clock()
    access = people.alice.access
    await house.db.write(lambda tx: add_key(tx, access, access.agent_id, key, "ingest", now_us=now))
    others: list[dict[str, Any]] = [
        {"filename": "b.bin"}, {"size_bytes": 99_999}, {"sha256": "0" * 64}, {"sha256": None},
        {"mime_type": "text/plain"}, {"mime_type": None},
    ]  # fmt: skip
    answers = [await announce(people.alice, data, **fields) for fields in others]
    answers += [await announce(people.bob, data), await announce(people.carol, data)]
    writer = replace(people.alice, writer=house.caller(key))
    answers.append(await announce(writer, data))
    tus = {"upload-length": "100000", "upload-metadata": metadata(filename="a.bin",
           filetype="application/octet-stream", sha256=sha256(data))}  # fmt: skip
    answers.append(await people.alice.writer.send("POST", contract.UPLOADS_PATH, headers=tus))
    house.clock.move(25 * HOUR_S)
    answers.append(await announce(people.alice, data))
    for answer in answers:
        assert (answer.status, answer.headers["upload-offset"]) == (201, "0")
        assert not answer.headers["location"].endswith(path)
