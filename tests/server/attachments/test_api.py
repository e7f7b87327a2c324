"""Files as their callers see them: the one call, what is stored once, what is dropped."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from agentsight.server.attachments import store
from agentsight.server.blobs.errors import StorageFull, StorageUnavailable
from agentsight.server.db.errors import DatabaseFull
from tests.support.http import House, People, Person, base64_file, path_of

pytestmark = pytest.mark.anyio

UPLOAD = "/api/attachments/"
PROMISED = ["id", "type", "filename", "mime_type", "size_bytes", "file_url"]
OURS = ["uid", "sha256", "file_url_expires_at", "url"]


async def upload(person: Person, pk: int, *files: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Store files in JSON and return the answer."""
    body = {"conversation": pk, "attachments": list(files)} | fields
    answer = await person.post(UPLOAD, body)
    assert answer.status == 201, answer.body
    return answer.json()


async def test_the_one_call(people: People) -> None:
    """It answers as the promise shows: grouped by message in order, and flat for gen B."""
    alice = people.alice
    pk = await alice.conversation("conv-1")
    late = await alice.message(pk, timestamp="2026-09-01T12:00:02Z", sender="agent")
    early = await alice.message(pk, timestamp="2026-09-01T12:00:01Z")
    await alice.message(pk, "without files")
    await upload(alice, pk, base64_file(b"%PDF-1", "b.pdf", mime_type="application/pdf"),
                 message=late)  # fmt: skip
    await upload(alice, pk, base64_file(b"1,2", "c.csv"), base64_file(b"x", "a.txt"), message=early)
    files = await alice.files(pk)
    assert list(files) == [
        "conversation_id", "conversation", "total_attachments", "messages", "attachment_count",
        "attachments",
    ]  # fmt: skip
    assert (files["conversation_id"], files["conversation"]) == ("conv-1", pk)
    assert files["total_attachments"] == files["attachment_count"] == 3
    assert [(m["message_id"], m["sender"], m["timestamp"]) for m in files["messages"]] == [
        (early, "end_user", "2026-09-01T12:00:01Z"),
        (late, "agent", "2026-09-01T12:00:02Z"),
    ]
    names = [[a["filename"] for a in m["attachments"]] for m in files["messages"]]
    assert names == [["c.csv", "a.txt"], ["b.pdf"]]
    flat = [a for m in files["messages"] for a in m["attachments"]]
    assert files["attachments"] == flat
    for attachment in flat:
        assert list(attachment)[:6] == PROMISED
        assert set(OURS) <= set(attachment)


async def test_no_files(people: People) -> None:
    """A conversation without files has zero and empty lists; readers may ask."""
    pk = await people.alice.conversation()
    answer = await people.alice.reader.get(f"/api/conversations/{pk}/attachments/")
    shown = answer.json()
    assert (shown["total_attachments"], shown["messages"], shown["attachments"]) == (0, [], [])
    assert answer.headers["cache-control"] == "no-store"


async def test_both_links_open(house: House, people: People) -> None:
    """`file_url` opens without a key, `url` with one; both give the very bytes."""
    data = bytes(range(256)) * 1000
    pk = await people.alice.conversation()
    [file] = (await upload(people.alice, pk, base64_file(data, "data.bin")))["attachments"]
    assert (file["size_bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert file["file_url"].startswith("http://127.0.0.1:8000/files/")
    assert (await house.stranger.get(path_of(file["file_url"]))).body == data
    assert (await people.alice.reader.get(path_of(file["url"]))).body == data


async def test_a_link_is_the_same_all_day(house: House, people: People) -> None:
    """So it can be cached; the next day's is another."""
    house.clock.move(86400 - house.clock.now_us // 1_000_000 % 86400)
    pk = await people.alice.conversation()
    await upload(people.alice, pk, base64_file())
    urls = []
    for seconds in (0, 86399, 1):
        house.clock.move(seconds)
        urls.append((await people.alice.files(pk))["attachments"][0]["file_url"])
    assert urls[0] == urls[1] != urls[2]


# --- Stored once ----------------------------------------------------------------------------------


async def test_equal_bytes_of_an_agent_are_one_object(house: House, people: People) -> None:
    """A hundred names, one object; each name keeps its own type and link."""
    before = house.objects()
    pk = await people.alice.conversation()
    for n in range(5):
        await upload(people.alice, pk, base64_file(b"same bytes", f"{n}.txt"))
    parts = [("conversation", str(pk)), ("attachment_0", "5.md", "text/markdown", b"same bytes")]
    assert (await people.alice.writer.form(UPLOAD, parts)).status == 201
    assert len(house.objects() - before) == 1
    agent = people.alice.access.agent_id
    assert await house.count("blobs", "agent_id = $1", agent) == 1
    files = (await people.alice.files(pk))["attachments"]
    assert [f["filename"] for f in files] == [*(f"{n}.txt" for n in range(5)), "5.md"]
    assert len({f["uid"] for f in files}) == 6


async def test_equal_bytes_of_two_agents_are_two_objects(house: House, people: People) -> None:
    """Nothing tells an agent that another has the same file."""
    before = house.objects()
    for person in (people.alice, people.bob, people.carol):
        await upload(person, await person.conversation(), base64_file(b"same for all"))
    assert len(house.objects() - before) == 3


async def test_lost_bytes_come_back_when_they_are_sent_again(house: House, people: People) -> None:
    """A file removed behind our back is 410; the same bytes, sent anew, mend every link to them."""
    before = house.objects()
    pk = await people.alice.conversation()
    [first] = (await upload(people.alice, pk, base64_file(b"lost", "1.txt")))["attachments"]
    [key] = house.objects() - before
    await house.parts.blobs.delete(key)
    assert (await house.stranger.get(path_of(first["file_url"]))).status == 410
    [again] = (await upload(people.alice, pk, base64_file(b"lost", "2.txt")))["attachments"]
    for file in (first, again):
        assert (await house.stranger.get(path_of(file["file_url"]))).body == b"lost"
    assert len(house.objects() - before) == 1


async def test_bytes_that_were_cut_come_back_when_they_are_sent_again(
    house: House, people: People
) -> None:
    """An object shorter than its row says is no file: nobody is told that it is here."""
    before = house.objects()
    pk = await people.alice.conversation()
    [first] = (await upload(people.alice, pk, base64_file(b"whole", "1.txt")))["attachments"]
    [key] = house.objects() - before
    path = house.parts.blobs.local_path(key)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"wh")
    announced = {"filename": "2.txt", "size_bytes": 5, "sha256": first["sha256"]}
    answer = await people.alice.post("/api/v1/uploads/", announced)
    assert (answer.status, answer.json()["state"]) == (201, "pending")
    [again] = (await upload(people.alice, pk, base64_file(b"whole", "2.txt")))["attachments"]
    for file in (first, again):
        assert (await house.stranger.get(path_of(file["file_url"]))).body == b"whole"


async def test_equal_bytes_at_once_are_one_object(house: House, people: People) -> None:
    """Side by side, one blob comes to be, and no upload is refused."""
    before = house.objects()
    pk = await people.alice.conversation()
    await asyncio.gather(
        *(upload(people.alice, pk, base64_file(b"at once", f"{n}.txt")) for n in range(8))
    )
    assert len(house.objects() - before) == 1
    assert (await people.alice.files(pk))["total_attachments"] == 8


async def test_a_file_twice_in_one_request(house: House, people: People) -> None:
    """Two attachments, one object."""
    before = house.objects()
    pk = await people.alice.conversation()
    shown = await upload(people.alice, pk, base64_file(b"twin", "a"), base64_file(b"twin", "b"))
    assert [f["filename"] for f in shown["attachments"]] == ["a", "b"]
    assert len(house.objects() - before) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation": 2**50},
        {"conversation": "None"},
        {"sender": "nobody"},
        {"metadata": "["},
        {"timestamp": "never"},
        {"message": str(2**50)},
        {"message": "abc"},
    ],
    ids=str,
)
async def test_refused_uploads_leave_no_object(
    house: House, people: People, fields: dict[str, str]
) -> None:
    """Bytes are durable before the row; where no row comes, they go again."""
    pk = await people.alice.conversation()
    before, objects = await house.counts(), house.objects()
    values = {"conversation": str(pk)} | {k: str(v) for k, v in fields.items()}
    parts = [*values.items(), ("attachment_0", "a.txt", "text/plain", b"to be dropped")]
    answer = await people.alice.writer.form(UPLOAD, parts)
    assert answer.status in (400, 404), answer.body
    assert (await house.counts(), house.objects()) == (before, objects)


async def test_a_standalone_upload_has_a_message_of_its_own(people: People) -> None:
    """It shows in the transcript with the sender and the time it came with."""
    pk = await people.alice.conversation(is_used=False)
    shown = await upload(
        people.alice, pk, base64_file(), sender="agent", timestamp="2026-09-01T10:00:00Z",
        metadata={"k": 1},
    )  # fmt: skip
    [message] = await people.alice.transcript(pk)
    assert (message["id"], message["kind"]) == (shown["message"], "attachments")
    assert (message["sender"], message["content"]) == ("agent", "[Attachments]")
    assert (message["timestamp"], message["metadata"]) == ("2026-09-01T10:00:00Z", {"k": 1})
    assert [a["filename"] for a in message["attachments"]] == ["a.txt"]


async def test_a_linked_upload_keeps_its_messages_time(people: People) -> None:
    """The files join the message; its own time and place stay."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk, timestamp="2026-09-01T10:00:00Z")
    await upload(people.alice, pk, base64_file(), message=message, timestamp="2026-09-02T10:00:00Z")
    [shown] = await people.alice.transcript(pk)
    assert (shown["timestamp"], len(shown["attachments"])) == ("2026-09-01T10:00:00Z", 1)


@pytest.mark.parametrize(
    ("declared", "filename", "type_name"),
    [
        ("image/svg+xml", "a.svg", "image"),
        ("text/csv", "a.json", "text"),
        ("text/html", "a.html", "text"),
        ("application/json", "a.json", "document"),
        ("audio/mpeg", "a", "audio"),
        ("video/mp4", "a", "video"),
        ("application/zip", "a.zip", "document"),
        ("font/woff2", "a", "document"),
        ("application/octet-stream", "q.pdf", "document"),
        ("application/octet-stream", "clip.mov", "video"),
    ],
)
async def test_types(people: People, declared: str, filename: str, type_name: str) -> None:
    """The rule is mechanical and the set of five closed; the sender's word counts."""
    pk = await people.alice.conversation()
    shown = await upload(people.alice, pk, base64_file(b"\x00\x01", filename, mime_type=declared))
    assert shown["attachments"][0]["type"] == type_name


@pytest.mark.parametrize("error", [StorageFull("full"), StorageUnavailable("away")])
async def test_a_store_that_fails_at_the_second_file_keeps_nothing_of_the_first(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A disk that is full must not be filled further by every resend."""
    pk = await people.alice.conversation()
    before, real, created = house.objects(), house.parts.blobs.create, []

    async def create(key: str) -> Any:
        created.append(key)
        if len(created) > 1:
            raise error
        return await real(key)

    monkeypatch.setattr(house.parts.blobs, "create", create)
    body = {"conversation": pk, "attachments": [base64_file(b"1"), base64_file(b"2")]}
    answer = await people.alice.post(UPLOAD, body)
    assert answer.status in (503, 507)
    assert (len(created), house.objects()) == (2, before)


async def test_a_full_database_keeps_no_file(
    house: House, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row names what was received."""
    pk = await people.alice.conversation()
    before = house.objects()

    async def insert_blob(*_args: Any, **_named: Any) -> None:
        raise DatabaseFull("no room left")

    monkeypatch.setattr(store, "insert_blob", insert_blob)
    answer = await people.alice.post(
        UPLOAD, {"conversation": pk, "attachments": [base64_file(b"of a full database")]}
    )
    assert answer.is_error(507, "storage_full")
    assert house.objects() == before
