"""All of a conversation's files in one ZIP: whole, safe, honest about what is not in it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agentsight.server.archives import service
from agentsight.server.archives.service import Archive
from agentsight.server.attachments.addresses import Addresses
from agentsight.server.blobs import StorageUnavailable
from agentsight.server.conversations.service import resolve_ref
from tests.server.conversations.test_filters import plain
from tests.server.conversations.worlds import START, a_file
from tests.server.library import Library, store
from tests.support.http import BASE, Answer, House, People, Person, base64_file, open_house
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.anyio


async def send(person: Person, pk: int, *files: tuple[str, bytes], **fields: Any) -> list[Any]:
    """Send files with one message, and return their rows."""
    body = {"conversation": pk, "attachments": [base64_file(data, name) for name, data in files]}
    answer = await person.post("/api/attachments/", body | fields)
    assert answer.status == 201, answer.body
    return answer.json()["attachments"]


async def fetch(person: Person, ref: int | str) -> Answer:
    """Ask for the ZIP."""
    return await person.get(f"/api/v1/conversations/{ref}/attachments/zip/")


def opened(body: bytes) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    """Open a ZIP, check all of its checksums, and read its manifest."""
    found = zipfile.ZipFile(io.BytesIO(body))
    assert found.testzip() is None
    assert len(set(found.namelist())) == len(found.namelist())
    return found, json.loads(found.read("manifest.json"))


def listed(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a manifest's files."""
    return [file for message in manifest["messages"] for file in message["attachments"]]


async def test_a_zip_holds_every_file_under_its_message(people: People) -> None:
    """Folders by message in order, bytes as sent, and the manifest says where each lies."""
    alice = people.alice
    pk = await alice.conversation("c-1")
    await send(alice, pk, ("a.txt", b"one"), ("leer.bin", b"\0"), timestamp="2026-01-31T10:30:00Z")
    await send(alice, pk, ("Straße.pdf", b"%PDF-" + b"x" * 300_000), sender="agent",
               timestamp="2026-01-31T10:31:00Z")  # fmt: skip
    answer = await fetch(alice, pk)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="c-1.zip"'
    assert answer.headers["cache-control"] == "no-store"
    found, manifest = opened(answer.body)
    one_call = await alice.files(pk)
    groups = one_call["messages"]
    folders = [
        f"000{n} 2026-01-31 10.{29 + n} {group['sender']} #{group['message_id']}"
        for n, group in enumerate(groups, start=1)
    ]
    assert found.namelist() == [
        f"{folders[0]}/a.txt", f"{folders[0]}/leer.bin", f"{folders[1]}/Straße.pdf",
        "manifest.json",
    ]  # fmt: skip
    for name in ("conversation_id", "conversation", "total_attachments"):
        assert manifest[name] == one_call[name]
    for packed, group in zip(manifest["messages"], groups, strict=True):
        assert {k: v for k, v in packed.items() if k != "attachments"} == {
            k: v for k, v in group.items() if k != "attachments"
        }
        for file, row in zip(packed["attachments"], group["attachments"], strict=True):
            assert {name: file[name] for name in row} == row
            assert hashlib.sha256(found.read(file["path"])).hexdigest() == file["sha256"]
            assert (file["missing"], file["withheld"]) == (False, None)
    assert found.getinfo(f"{folders[0]}/a.txt").date_time == (2026, 1, 31, 10, 30, 0)
    assert {entry.compress_type for entry in found.infolist()[:-1]} == {zipfile.ZIP_STORED}


async def test_other_programs_read_it(people: People, tmp_path: Path) -> None:
    """Info-ZIP tests and unpacks it, names and times too."""
    unzip = shutil.which("unzip")
    assert unzip, "install unzip"
    alice = people.alice
    pk = await alice.conversation("c")
    names = ["plain.txt", "日本 😀.txt", "e\u0301.txt", "nul.txt", "a:b.txt", "x" * 300 + ".txt"]
    await send(alice, pk, *[(name, name.encode()) for name in names])
    path = tmp_path / "c.zip"
    path.write_bytes((await fetch(alice, pk)).body)
    for command in (["-t", path], ["-q", path, "-d", tmp_path / "out"]):
        tested = await asyncio.to_thread(
            subprocess.run, [unzip, *command], capture_output=True, env={"LC_ALL": "C.UTF-8"}
        )
        assert tested.returncode == 0, tested.stdout
    _, manifest = opened(path.read_bytes())
    for file in listed(manifest):
        data = (tmp_path / "out" / file["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]


async def test_hostile_names_stay_inside(people: People) -> None:
    """No name leads out, is a device or equals another; the manifest keeps what was sent."""
    alice = people.alice
    pk = await alice.conversation("../../evil\r\n\"name'")
    names = [
        "..",
        "../../x",
        "C:\\a",
        "CON",
        "a.txt",
        "A.TXT",
        "a.txt",
        "é",
        "e\u0301",
        "\u202egpj",
    ]
    await send(alice, pk, *[(name, bytes([n])) for n, name in enumerate(names)])
    answer = await fetch(alice, pk)
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename=".._.._evil__')
    assert disposition.isprintable()
    found, manifest = opened(answer.body)
    packed = [name for name in found.namelist() if name != "manifest.json"]
    assert len({name.casefold() for name in packed}) == len(names)
    for name in packed:
        folder, _, last = name.partition("/")
        assert folder
        assert "/" not in last
        assert "\\" not in last
        assert last not in ("", ".", "..", "CON")
    one_call = (await alice.files(pk))["messages"][0]["attachments"]
    assert [file["filename"] for file in listed(manifest)] == [f["filename"] for f in one_call]


async def test_an_empty_conversation_is_a_manifest(people: People) -> None:
    """So is one whose files are all deleted; a deleted conversation still gives its files."""
    pk = await people.alice.conversation("c")
    found, manifest = opened((await fetch(people.alice, pk)).body)
    assert found.namelist() == ["manifest.json"]
    assert (manifest["total_attachments"], manifest["messages"]) == (0, [])
    await send(people.alice, pk, ("a.txt", b"a"))
    await people.alice.writer.send("DELETE", f"/api/conversations/{pk}/delete/")
    _, manifest = opened((await fetch(people.alice, pk)).body)
    assert manifest["total_attachments"] == 1


async def test_what_is_not_there_is_said(house: House, people: People) -> None:
    """Lost bytes and truncated ones are missing; the infected and the blocked are withheld."""
    alice = people.alice
    pk = await alice.conversation("c")
    sent = [(f"{n}.txt", f"{pk} {n} of alice".encode()) for n in range(6)]
    rows = await send(alice, pk, *sent)
    lost, cut, infected, blocked, gone = [row["sha256"] for row in rows[:5]]
    agent = alice.access.agent_id

    async def key_of(sha256: str) -> str:
        text = "SELECT object_key FROM blobs WHERE agent_id = $1 AND sha256 = $2"
        return (await house.rows(text, agent, sha256))[0][0]

    await house.parts.blobs.delete(await key_of(lost))
    path = house.parts.blobs.local_path(await key_of(cut))
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"x")
    where = "WHERE agent_id = $1 AND sha256 = $2"
    await house.run(f"UPDATE blobs SET scan = 'infected' {where}", agent, infected)
    await house.run("INSERT INTO quarantined_hashes VALUES ($1, 'test', 1)", blocked)
    await house.run(f"UPDATE blobs SET state = 'gone' {where}", agent, gone)
    found, manifest = opened((await fetch(alice, pk)).body)
    said = [(file["missing"], file["withheld"], file["path"] is None) for file in listed(manifest)]
    assert said == [
        (True, None, True), (True, None, True), (False, "infected", True),
        (False, "quarantined", True), (True, None, True), (False, None, False),
    ]  # fmt: skip
    assert len(found.namelist()) == 2
    counts = ("total_attachments", "missing_attachments", "withheld_attachments")
    assert [manifest[name] for name in counts] == [6, 3, 2]


async def test_it_is_named_in_three_ways_and_others_get_404(people: People) -> None:
    """Row id, uid and the caller's id; Carol, Bob and strangers hear nothing of it."""
    alice = people.alice
    pk = await alice.conversation("c/1 ü")
    plain_pk = await alice.conversation("c 2")
    await send(alice, plain_pk, ("a.txt", b"a"))
    looked = (await alice.get("/api/conversations/lookup/", {"conversation_id": "c 2"})).json()
    names = [opened((await fetch(alice, ref)).body)[0].namelist()
             for ref in (plain_pk, looked["uid"], "by-id/c%202")]  # fmt: skip
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 2
    for person in (people.bob, people.carol):
        for ref in (pk, plain_pk, looked["uid"], "by-id/c%202", 2**50, "x"):
            assert (await fetch(person, ref)).is_error(404, "not_found")
    reader = alice.reader
    assert (await reader.get(f"/api/v1/conversations/{pk}/attachments/zip/")).status == 200


# --- Ten thousand files, and what goes wrong on the way -------------------------------------------


async def a_conversation(library: Library, n_files: int, per_message: int = 4) -> tuple[Any, Any]:
    """Store a conversation of rows whose bytes are all one object of eight bytes."""
    parts, access = library.parts, await library.new_agent()
    name = f"big-{n_files}"
    files = [a_file(filename="same.txt", mime_type="text/plain", size_bytes=8)
             for _ in range(n_files)]  # fmt: skip
    messages = [
        {"type": "message", "content": "x", "timestamp": START, "files": files[n : n + per_message]}
        for n in range(0, n_files, per_message)
    ]
    world = plain(name, messages=messages)
    await store(parts, access, world, is_learned=False)
    head = await resolve_ref(parts, access, f"by-id/{name}")
    return access, head


async def put_bytes(library: Library, access: Any) -> None:
    """Put the bytes of the rows of `a_conversation` into the store."""
    text = "SELECT object_key FROM blobs WHERE agent_id = $1"
    ((key,),) = await library.house.rows(text, access.agent_id)
    async with await library.parts.blobs.create(key) as writer:
        await writer.write(b"8 bytes!")
        await writer.finish()


def archive(library: Library, access: Any, head: Any) -> Archive:
    """Make the ZIP of a conversation."""
    parts = library.parts
    return Archive(parts, access, head, Addresses(BASE, BASE, parts.clock(), has_previews=True))


async def test_rows_come_in_steps_and_none_twice(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of a step, each file is packed once, in order."""
    access, head = await a_conversation(library, 21)
    await put_bytes(library, access)
    names = []
    for step in (1, 2, 20, 21, 22, 256):
        monkeypatch.setattr(service, "_STEP_ROWS", step)
        body = b"".join([chunk async for chunk in archive(library, access, head).chunks()])
        found, manifest = opened(body)
        assert len(listed(manifest)) == 21
        names.append(found.namelist())
    assert all(each == names[0] for each in names)
    folders = [name.partition("/")[0] for name in names[0]]
    assert folders == sorted(folders)


@pytest.mark.sqlite_will_do
@pytest.mark.slow
async def test_ten_thousand_files(library: Library) -> None:
    """All are there, each message's under names of their own, and no chunk is large."""
    access, head = await a_conversation(library, 10_000, per_message=100)
    await put_bytes(library, access)
    chunks = [chunk async for chunk in archive(library, access, head).chunks()]
    found, manifest = opened(b"".join(chunks))
    assert len(found.namelist()) == 10_001
    assert manifest["total_attachments"] == 10_000
    assert max(len(chunk) for chunk in chunks[:-1]) < 256 * 1024


async def test_it_needs_zip64_and_says_so(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sizes, offsets or counts pass their 32 or 16 bits: the limits are lowered here."""
    access, head = await a_conversation(library, 9)
    await put_bytes(library, access)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 7)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    body = b"".join([chunk async for chunk in archive(library, access, head).chunks()])
    monkeypatch.undo()
    assert b"PK\x06\x06" in body
    found, _ = opened(body)
    assert len(found.namelist()) == 10


class FailingStream:
    """A stream that breaks off after its first chunk, as a store that goes away does."""

    size_bytes = 8

    def __init__(self) -> None:
        self.n_given = 0
        self.is_closed = False

    def __aiter__(self) -> FailingStream:
        return self

    async def __anext__(self) -> bytes:
        self.n_given += 1
        if self.n_given > 1:
            raise StorageUnavailable("The store went away.")
        return b"x" * 100_000

    async def __aenter__(self) -> FailingStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.is_closed = True


async def test_on_an_object_store(
    database_url: str, tmp_path: Path, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same from a bucket: more files than are opened ahead, one of many chunks, one lost."""
    for name, value in seaweed.environ.items():
        monkeypatch.setenv(name, value)
    async with open_house(database_url, tmp_path, storage_url=seaweed.new_url()) as house:
        alice = (await house.people()).alice
        pk = await alice.conversation("c")
        sizes = [0, 1, 3_000_000, *range(1000, 1020)]
        rows = await send(
            alice, pk, *[(f"{size}.bin", bytes([size % 251]) * size) for size in sizes]
        )
        lost = rows[-1]
        ((key,),) = await house.rows(
            "SELECT object_key FROM blobs WHERE sha256 = $1", lost["sha256"]
        )
        await house.parts.blobs.delete(key)
        found, manifest = opened((await fetch(alice, pk)).body)
        assert [file["filename"] for file in listed(manifest)] == [f"{size}.bin" for size in sizes]
        for file in listed(manifest):
            assert file["missing"] == (file["uid"] == lost["uid"])
            if not file["missing"]:
                assert hashlib.sha256(found.read(file["path"])).hexdigest() == file["sha256"]


async def test_a_store_that_fails_midway_cuts_the_zip(
    people: People, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has begun, so it ends without its end; streams that wait are closed."""
    alice = people.alice
    pk = await alice.conversation("c")
    await send(alice, pk, *[(f"{n}.txt", f"{n:08}".encode()) for n in range(9)])
    streams: list[FailingStream] = []

    async def read(_self: object, _key: str, *_range: object) -> FailingStream:
        streams.append(FailingStream())
        return streams[-1]

    monkeypatch.setattr(type(house.parts.blobs), "read", read)
    with pytest.raises(AssertionError, match="ended without an answer"):
        await fetch(alice, pk)
    assert streams
    assert all(stream.is_closed for stream in streams)


async def test_a_store_that_is_away_is_503(
    people: People, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the answer has begun there is still a status to tell it."""
    alice = people.alice
    pk = await alice.conversation("c")
    await send(alice, pk, ("a.txt", b"a"), ("b.txt", b"b"))

    async def read(_self: object, _key: str, *_range: object) -> FailingStream:
        raise StorageUnavailable("The store is away.")

    monkeypatch.setattr(type(house.parts.blobs), "read", read)
    assert (await fetch(alice, pk)).is_error(503, "storage_unavailable")


async def test_a_client_that_goes_away_stops_the_reading(people: People, house: House) -> None:
    """What it will not hear is not read: no more than what was opened ahead."""
    alice = people.alice
    pk = await alice.conversation("c")
    for n in range(10):
        await send(alice, pk, *[(f"{i}.bin", bytes([n, i]) * 50_000) for i in range(4)])
    n_sent = 0
    is_gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send_message(message: dict[str, Any]) -> None:
        nonlocal n_sent
        n_sent += len(message.get("body", b""))
        if n_sent > 150_000:
            is_gone.set()
        await asyncio.sleep(0)

    path = f"/api/v1/conversations/{pk}/attachments/zip/"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
        "headers": [(b"host", b"127.0.0.1:8000"),
                    (b"authorization", f"Api-Key {alice.write_key}".encode())],
        "extensions": {},
    }  # fmt: skip
    await house.app(scope, receive, send_message)
    assert 150_000 < n_sent < 1_500_000


async def test_giving_up_early_closes_everything(library: Library) -> None:
    """Whoever stops iterating leaves no open file and no task behind."""
    access, head = await a_conversation(library, 40)
    await put_bytes(library, access)
    before = len(asyncio.all_tasks())
    async with contextlib.aclosing(archive(library, access, head).chunks()) as chunks:
        assert await anext(chunks)
    assert len(asyncio.all_tasks()) == before
