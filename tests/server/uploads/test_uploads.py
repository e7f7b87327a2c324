"""The native upload: announced, streamed, resumed, verified, and refused without a trace."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from agentsight import _contract as contract
from agentsight.server.agents.model import generate_key
from agentsight.server.agents.service import add_key
from agentsight.server.uploads.service import expire_step
from tests.server.uploads.sending import (
    OFFSET_TYPE,
    announce,
    begin,
    own_objects,
    patch,
    pieces,
    refer,
    sha256,
    state_of,
    unfinished,
    upload,
)
from tests.support.http import House, People, with_headers

pytestmark = pytest.mark.anyio
MIB = 1 << 20
HOUR_S = 3600


# --- The straight way -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 8192, 900_007])
async def test_a_file_goes_in_and_comes_out(house: House, people: People, size: int) -> None:
    """Announced, sent, referred to, opened: the same bytes, with their name, type and hash."""
    data = b"\x89PNG\r\n\x1a\n"[:size] + os.urandom(max(0, size - 8))
    answer = await announce(people.alice, data, filename="../x/photo.png", mime_type="image/png")
    told = answer.json()
    assert answer.status == 201
    assert (told["state"], told["offset"], told["method"]) == ("pending", 0, "PATCH")
    assert answer.headers["location"] == told["upload_url"]
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["upload-offset"] == "0"
    assert answer.headers["upload-expires"].endswith(" GMT")
    path = told["upload_url"].removeprefix("http://127.0.0.1:8000")
    sent = await patch(people.alice, path, 0, pieces(data))
    assert (sent.status, sent.body) == (204, b"")
    assert sent.headers["upload-offset"] == str(size)
    state = (await people.alice.get(path)).json()
    assert (state["state"], state["sha256"]) == ("stored", sha256(data))
    assert (state["filename"], state["upload_url"]) == ("photo.png", None)
    answer = await refer(people.alice, told["uid"])
    assert answer.status == 200, answer.body
    (row,) = answer.json()["items"][0]["attachments"]
    assert (row["filename"], row["mime_type"], row["sha256"]) == (
        "photo.png", "image/png", sha256(data),
    )  # fmt: skip
    assert (await house.stranger.get(row["file_url"])).body == data


async def test_a_whole_file_goes_in_by_put(house: House, people: People) -> None:
    """What `curl -T` sends: one PUT, answered with the state; again changes nothing."""
    data = os.urandom(300_000)
    path = await begin(people.alice, data)
    for _ in range(2):
        answer = await people.alice.writer.send("PUT", path, body=data)
        assert answer.status == 200, answer.body
        assert answer.json()["state"] == "stored"
    assert len(own_objects(house, people.alice)) == 1


async def test_a_file_without_bytes_is_there_at_once(people: People) -> None:
    """Nothing has to be sent of an empty file, and its hash is verified all the same."""
    answer = await announce(people.alice, b"")
    assert (answer.status, answer.json()["state"]) == (201, "stored")
    assert (await refer(people.alice, answer.json()["uid"])).status == 200
    refused = await announce(people.alice, b"", sha256="0" * 64)
    assert refused.is_error(400, "hash_mismatch")


async def test_any_number_of_messages_refer_to_one_upload(house: House, people: People) -> None:
    """A hundred files of one batch, and many messages after it, share one blob."""
    data = os.urandom(1000)
    uid = await upload(people.alice, data)
    answer = await refer(people.alice, *[uid] * 100)
    assert answer.status == 200, answer.body
    assert len(answer.json()["items"][0]["attachments"]) == 100
    for n in range(3):
        assert (await refer(people.alice, uid, conversation_id=f"c{n}")).status == 200
    assert len(own_objects(house, people.alice)) == 1
    usage = (await people.alice.get(contract.STORAGE_USAGE_PATH)).json()
    assert (usage["files"], usage["blobs"]) == (103, 1)
    assert (usage["stored_bytes"], usage["saved_bytes"]) == (1000, 102_000)


async def test_a_message_may_name_its_file_anew(people: People) -> None:
    """Name and type beside the reference count before the upload's own."""
    uid = await upload(people.alice, b"hello", filename="a.txt", mime_type="text/plain")
    answer = await refer(people.alice, uid, filename="b.csv", mime_type="text/csv")
    (row,) = answer.json()["items"][0]["attachments"]
    assert (row["filename"], row["mime_type"]) == ("b.csv", "text/csv")


async def test_gen_as_json_route_takes_references_too(people: People) -> None:
    """`POST /api/attachments/` refers to uploads beside base64, and recognises its resend."""
    uid = await upload(people.alice, b"by upload")
    pk = await people.alice.conversation()
    files: list[dict[str, Any]] = [
        {"upload": uid, "filename": "u.txt"},
        {"data": base64.b64encode(b"inline").decode(), "filename": "i.txt"},
    ]
    body = {"conversation": pk, "attachments": files, "timestamp": "2026-01-01T00:00:00Z"}
    first = await people.alice.post(contract.ATTACHMENTS_PATH, body)
    again = await people.alice.post(contract.ATTACHMENTS_PATH, body)
    assert (first.status, again.status) == (201, 200), first.body
    names = [row["filename"] for row in first.json()["attachments"]]
    assert names == ["u.txt", "i.txt"]
    files[0]["data"] = ""
    assert (await people.alice.post(contract.ATTACHMENTS_PATH, body)).is_error(400, "invalid")


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_wrong_hash_leaves_nothing(house: House, people: People, method: str) -> None:
    """Other bytes than announced are refused; nothing is stored and the upload is over."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data, sha256="0" * 64)
    headers = {"content-type": OFFSET_TYPE, "upload-offset": "0"}
    answer = await people.alice.writer.send(method, path, body=data, headers=headers)
    assert answer.is_error(400, "hash_mismatch")
    assert own_objects(house, people.alice) == set()
    assert await state_of(house, path) == "expired"
    assert (await refer(people.alice, path.split("/")[-2])).is_error(410, "upload_expired")


async def test_more_bytes_than_announced_are_cut_off_at_that_byte(
    house: House, people: People
) -> None:
    """A body that goes on past its size is refused at the piece that passes it, and not read on."""
    data = os.urandom(200_000)
    path = await begin(people.alice, data[:100_000])
    answer = await patch(people.alice, path, 0, pieces(data, 10_000))
    assert answer.is_error(400, "size_mismatch")
    assert answer.n_pulled == 110_000
    assert own_objects(house, people.alice) == set()
    assert await state_of(house, path) == "expired"


async def test_a_request_that_announces_too_much_is_refused_unread(people: People) -> None:
    """What cannot fit is refused before its first byte, and the upload goes on after it."""
    data = os.urandom(1000)
    path = await begin(people.alice, data)
    answer = await patch(people.alice, path, 0, data + b"x")
    assert answer.is_error(400, "size_mismatch")
    assert answer.n_pulled == 0
    short = await people.alice.writer.send("PUT", path, body=data[:-1])
    assert short.is_error(400, "size_mismatch")
    assert (await patch(people.alice, path, 0, data)).status == 204
    # When it is stored, too: what is another file must not be taken for this one sent again.
    assert (await patch(people.alice, path, len(data), b"x")).is_error(400, "size_mismatch")
    other = await people.alice.writer.send("PUT", path, body=data + b"x")
    assert other.is_error(400, "size_mismatch")


async def test_a_put_that_ends_too_early_leaves_nothing(house: House, people: People) -> None:
    """Fewer bytes than announced are refused, and nothing of them is kept."""
    data = os.urandom(100_000)
    path = await begin(people.alice, data)
    answer = await people.alice.writer.send("PUT", path, body=pieces(data[:-1]))
    assert answer.is_error(400, "size_mismatch")
    assert await state_of(house, path) == "expired"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"size_bytes": None}, "required"),
        ({"filename": None}, "required"),
        ({"size_bytes": -1}, "invalid"),
        ({"size_bytes": 2**60}, "invalid"),
        ({"size_bytes": "many"}, "invalid"),
        ({"sha256": "abc"}, "invalid"),
    ],
)
async def test_a_file_that_is_not_well_announced(
    people: People, fields: dict[str, Any], code: str
) -> None:
    """What is missing or makes no sense is named."""
    answer = await announce(people.alice, b"abc", **fields)
    assert answer.is_error(400, code)
    assert next(iter(fields)) in answer.json()


async def test_pieces_that_are_not_well_sent(people: People) -> None:
    """A PATCH says its type and offset; another tus version is not spoken."""
    path = await begin(people.alice, b"abc")
    writer = people.alice.writer
    wrong = await writer.send("PATCH", path, body=b"abc", headers={"upload-offset": "0"})
    assert wrong.is_error(415, "unsupported_media_type")
    assert wrong.headers["tus-resumable"] == "1.0.0"
    for offset in ("", "-1", "x"):
        headers = {"content-type": OFFSET_TYPE, "upload-offset": offset}
        answer = await writer.send("PATCH", path, body=b"abc", headers=headers)
        assert answer.is_error(400, "required")
    old = await with_headers(writer, tus_resumable="0.2.2").send("HEAD", path)
    assert (old.status, old.headers["tus-version"]) == (412, "1.0.0")


async def test_quarantined_bytes_are_refused_at_every_door(house: House, people: People) -> None:
    """A blocked hash is refused when announced, when its bytes are whole, and when referred to."""
    data = os.urandom(1000)
    uid = await upload(people.alice, data)
    await house.run(
        "INSERT INTO quarantined_hashes (sha256, reason, created_at) VALUES ($1, 'test', 0)",
        sha256(data),
    )
    assert (await announce(people.alice, data)).is_error(403, "quarantined")
    path = await begin(people.bob, data, sha256=None)
    assert (await patch(people.bob, path, 0, data)).is_error(403, "quarantined")
    assert own_objects(house, people.bob) == set()
    answer = await refer(people.alice, uid)
    assert answer.is_error(403, "quarantined")
    assert answer.json()["items"][0]["index"] == 0


# --- Already here ---------------------------------------------------------------------------------


async def test_the_second_upload_of_the_same_bytes_sends_nothing(
    house: House, people: People
) -> None:
    """Who may read the agent's files hears that the bytes are here; there is no second object."""
    data = os.urandom(100_000)
    await upload(people.alice, data)
    before = own_objects(house, people.alice)
    answer = await announce(people.alice, data, filename="again.bin")
    told = answer.json()
    assert (answer.status, told["state"]) == (200, "stored")
    assert (told["offset"], told["upload_url"], told["method"]) == (100_000, None, None)
    assert (await refer(people.alice, told["uid"])).status == 200
    assert own_objects(house, people.alice) == before


async def test_whoever_may_not_read_is_not_told(house: House, people: People) -> None:
    """A key that only brings files in, and any other agent, send the bytes again."""
    data = os.urandom(10_000)
    await upload(people.alice, data)
    key, now = generate_key(), house.clock()
    access = people.alice.access
    await house.db.write(lambda tx: add_key(tx, access, access.agent_id, key, "ingest", now_us=now))
    body = {"filename": "x", "size_bytes": len(data), "sha256": sha256(data)}
    for caller in (house.caller(key), people.bob.writer, people.carol.writer):
        answer = await caller.post(contract.UPLOADS_PATH, body)
        assert (answer.status, answer.json()["state"]) == (201, "pending")
        path = answer.json()["upload_url"].removeprefix("http://127.0.0.1:8000")
        assert (await caller.send("PUT", path, body=data)).status == 200
        assert (await caller.send("HEAD", path)).status == 200
    assert len(own_objects(house, people.alice)) == 1
    assert len(own_objects(house, people.bob)) == 1


async def test_a_hash_with_another_size_is_not_here(people: People) -> None:
    """The announced size must be the blob's, or nothing is here."""
    data = os.urandom(1000)
    await upload(people.alice, data)
    assert (await announce(people.alice, data, size_bytes=999)).status == 201


async def test_an_object_lost_behind_our_back_is_sent_again(house: House, people: People) -> None:
    """Where the row says "here" and the bytes are gone, they are asked for, and mend the row."""
    data = os.urandom(1000)
    await upload(people.alice, data)
    (key,) = own_objects(house, people.alice)
    await house.parts.blobs.delete(key)
    uid = await upload(people.alice, data)
    (row,) = (await refer(people.alice, uid)).json()["items"][0]["attachments"]
    assert (await house.stranger.get(row["file_url"])).body == data


# --- Time -----------------------------------------------------------------------------------------


async def test_an_upload_waits_a_day_for_its_message(house: House, people: People) -> None:
    """Within the day it can be referred to, after it no more; the chore makes it so in the row."""
    uid = await upload(people.alice, os.urandom(100))
    path = f"{contract.UPLOADS_PATH}{uid}/"
    house.clock.move(23 * HOUR_S)
    assert (await refer(people.alice, uid)).status == 200
    house.clock.move(2 * HOUR_S)
    assert (await refer(people.alice, uid)).is_error(410, "upload_expired")
    assert (await people.alice.get(path)).json()["state"] == "expired"
    assert (await people.alice.writer.send("HEAD", path)).is_error(410, "upload_expired")
    assert await state_of(house, path) == "stored"
    await expire_step(house.parts)
    assert await state_of(house, path) == "expired"


async def test_a_stored_batch_is_repeated_whatever_became_of_its_uploads(
    house: House, people: People
) -> None:
    """A resend long after finds its rows; only what is new must have living uploads."""
    uid = await upload(people.alice, os.urandom(100))
    item = {"type": "attachments", "item_key": "k", "attachments": [{"upload": uid}]}
    body = {"conversation": {"conversation_id": "c"}, "items": [item]}
    assert (await people.alice.post(contract.BATCH_PATH, body)).status == 200
    house.clock.move(25 * HOUR_S)
    again = await people.alice.post(contract.BATCH_PATH, body)
    assert again.json()["items"][0]["status"] == "repeated"


async def test_an_unfinished_upload_waits_a_day_for_its_next_byte(
    house: House, people: People
) -> None:
    """Each byte renews the wait; then the chore removes what came, and later the row."""
    data = os.urandom(1000)
    path = await begin(people.alice, data)
    for n in range(3):
        house.clock.move(20 * HOUR_S)
        assert (await patch(people.alice, path, n, data[n : n + 1])).status == 204
        await expire_step(house.parts)
    before = unfinished(house)
    house.clock.move(25 * HOUR_S)
    assert (await patch(people.alice, path, 3, data[3:])).is_error(410, "upload_expired")
    assert await expire_step(house.parts) > 0
    assert await state_of(house, path) == "expired"
    assert len(before - unfinished(house)) >= 1
    house.clock.move(31 * 24 * HOUR_S)
    await begin(people.alice, data)
    house.clock.move(25 * HOUR_S)
    await expire_step(house.parts)
    assert (await people.alice.get(path)).is_error(404, "not_found")


async def test_an_unfinished_upload_cannot_be_referred_to(people: People) -> None:
    """A message must wait for the last byte; it is told so."""
    path = await begin(people.alice, b"abc")
    assert (await refer(people.alice, path.split("/")[-2])).is_error(409, "upload_pending")


async def test_an_upload_is_taken_back(house: House, people: People) -> None:
    """Its bytes go at once, or, once it is stored, it no longer keeps its blob."""
    data = os.urandom(10_000)
    path = await begin(people.alice, data)
    await patch(people.alice, path, 0, data[:5000])
    before = unfinished(house)
    stored = f"{contract.UPLOADS_PATH}{await upload(people.alice, b'stored')}/"
    for one in (path, stored):
        assert (await people.alice.writer.send("DELETE", one)).status == 204
        assert (await people.alice.writer.send("DELETE", one)).is_error(410, "upload_expired")
        assert await state_of(house, one) == "expired"
    assert len(before - unfinished(house)) == 1


# --- Strangers ------------------------------------------------------------------------------------


async def test_anothers_upload_is_not_there(house: House, people: People) -> None:
    """Bob and Carol hear of Alice's uploads what they hear of none; a read key may not write."""
    data = b"secret"
    path = await begin(people.alice, data)
    uid = path.split("/")[-2]
    for person in (people.bob, people.carol):
        headers = {"content-type": OFFSET_TYPE, "upload-offset": "0"}
        for method in ("HEAD", "GET", "PATCH", "PUT", "DELETE"):
            answer = await person.writer.send(method, path, body=data, headers=headers)
            assert answer.is_error(404, "not_found"), method
        for one in (uid, uid[:-1] + "z", "x", "\x00"):
            answer = await refer(person, one)
            assert answer.is_error(404, "not_found")
            shown = one.replace("\x00", "\ufffd")
            assert f"There is no upload '{shown}'." in answer.json()["detail"]
    stored = await upload(people.bob, b"his own")
    answer = await refer(people.bob, stored, uid)
    assert answer.is_error(404, "not_found")
    assert answer.json()["detail"] == f"There is no upload '{uid}'."
    assert (await people.alice.reader.send("PUT", path, body=data)).is_error(
        403, "permission_denied"
    )
    assert (await house.stranger.send("OPTIONS", contract.UPLOADS_PATH)).status == 401
    assert (await patch(people.alice, path, 0, data)).status == 204
