"""Files come down side by side, whole or not at all, and never outside of their directory.

The scripted server stands in for bad networks; the real one is asked in `tests/journeys`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentsight import AgentSightAPI, AsyncAgentSightAPI
from agentsight.exceptions import (
    ConversationNetworkException,
    DownloadException,
    NotFoundException,
)
from agentsight.types import DownloadedFile
from tests.sdk.conftest import World
from tests.sdk.support import CUT, KEY, Answer, ScriptServer, Seen

LARGE = bytes(range(256)) * 4096
"""1 MiB."""


class Files:
    """Lists files and serves their bytes with ranges; `faults` are asked first, by the file."""

    def __init__(self, *files: tuple[str, bytes]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.data_by_uid: dict[str, bytes] = {}
        self.faults: dict[str, list[Callable[[Seen, bytes], Answer]]] = {}
        for name, data in files:
            self.add(name, data)

    def add(self, name: str, data: bytes, **more: Any) -> str:
        uid = str(uuid.uuid4())
        sha256 = hashlib.sha256(data).hexdigest()
        row = {"uid": uid, "filename": name, "size_bytes": len(data), "sha256": sha256, "id": 1}
        self.rows.append(row | more)
        self.data_by_uid[uid] = data
        return uid

    def __call__(self, seen: Seen) -> Answer:
        if seen.path == "/api/conversations/1/attachments/":
            message = {"message_id": 7, "attachments": self.rows}
            return Answer(200, {"conversation": 1, "messages": [message]})
        parts = seen.path.split("/")
        if parts[1:4] != ["api", "v1", "attachments"] or parts[5] != "content":
            return Answer(404, {"detail": "Not found.", "code": "not_found"})
        uid = parts[4]
        data = self.data_by_uid[uid]
        faults = self.faults.get(uid)
        return faults.pop(0)(seen, data) if faults else serve(seen, data)


def serve(seen: Seen, data: bytes) -> Answer:
    """Answer as the contract says."""
    wanted = seen.headers.get("range")
    if wanted is None:
        return Answer(200, data)
    start = int(wanted.removeprefix("bytes=").rstrip("-"))
    if start >= len(data):
        return Answer(416, {"detail": "no", "code": "range_not_satisfiable"})
    headers = (("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"),)
    return Answer(206, data[start:], headers)


def cut_after(n_bytes: int) -> Callable[[Seen, bytes], Answer]:
    """Return a fault: so many bytes of what was asked come, then the connection is gone."""

    def fault(seen: Seen, data: bytes) -> Answer:
        answer = serve(seen, data)
        return answer._replace(body=answer.body[:n_bytes], short=True)

    return fault


def refuse(status: int, code: str) -> Callable[[Seen, bytes], Answer]:
    return lambda *_: Answer(status, {"detail": f"it is {code}", "code": code})


@pytest.fixture
def files(server: ScriptServer) -> Files:
    server.script = files = Files()
    return files


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def statuses(results: list[DownloadedFile]) -> list[str]:
    return [file.status for file in results]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def n_fetched(server: ScriptServer) -> int:
    return sum("content" in seen.path for seen in server.seen)


def test_files_come_with_their_names_and_a_second_run_fetches_nothing(
    api: AgentSightAPI, server: ScriptServer, files: Files, out: Path
) -> None:
    """What is there is verified in place of fetched."""
    for name, data in (("a.txt", b"one"), ("A.txt", b"two"), ("b.bin", LARGE), ("empty", b"")):
        files.add(name, data)
    first = api.download_attachments(1, out / "deep")
    assert statuses(first) == ["downloaded"] * 4
    assert contents(out / "deep") == {
        "a.txt": b"one", "A (2).txt": b"two", "b.bin": LARGE, "empty": b""
    }  # fmt: skip
    assert [file.path.name for file in first] == ["a.txt", "A (2).txt", "b.bin", "empty"]
    assert {file.message_id for file in first} == {7}
    server.seen.clear()
    second = api.download_attachments(1, out / "deep")
    assert statuses(second) == ["present"] * 4
    assert [file.path for file in second] == [file.path for file in first]
    assert n_fetched(server) == 0


def test_a_file_that_is_gone_or_new_between_two_runs_moves_no_other_name(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """Each is found again by its content, not by its place in the list."""
    for data in (b"one", b"two", b"three"):
        files.add("a.txt", data)
    api.download_attachments(1, out)
    del files.rows[0]
    files.add("a.txt", b"four")
    files.rows.insert(0, files.rows.pop())
    results = api.download_attachments(1, out)
    assert [(file.status, file.path.name) for file in results] == [
        ("downloaded", "a (4).txt"), ("present", "a (2).txt"), ("present", "a (3).txt")
    ]  # fmt: skip


def test_what_lies_there_is_left_alone_unless_it_may_be_replaced(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """Nobody's own file is lost."""
    files.add("a.txt", b"theirs")
    out.mkdir()
    (out / "a.txt").write_bytes(b"mine")
    [file] = api.download_attachments(1, out)
    assert file.path == out / "a (2).txt"
    [file] = api.download_attachments(1, out, overwrite=True)
    assert (file.status, file.path) == ("downloaded", out / "a.txt")
    assert (out / "a.txt").read_bytes() == b"theirs"
    assert statuses(api.download_attachments(1, out, overwrite=True)) == ["present"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_is_cut_goes_on_where_it_stopped(
    server: ScriptServer, files: Files, out: Path, world: World, kind: str
) -> None:
    """Each byte comes once, however often the connection is gone."""
    uid = files.add("a.bin", LARGE)
    files.faults[uid] = [cut_after(300_000), cut_after(1), lambda *_: CUT, cut_after(400_000)]
    with_client = {"sync": _download, "async": _download_async}[kind]
    [file] = with_client(server, world, out)
    assert file.status == "downloaded"
    assert contents(out) == {"a.bin": LARGE}
    ranges = [seen.headers.get("range") for seen in server.seen if "content" in seen.path]
    assert ranges == [
        None, "bytes=300000-", "bytes=300001-", "bytes=300001-", "bytes=700001-"
    ]  # fmt: skip


def _download(server: ScriptServer, world: World, out: Path) -> list[DownloadedFile]:
    with AgentSightAPI(KEY, server.url) as api:
        api.runtime = world.runtime
        return api.download_attachments(1, out)


def _download_async(server: ScriptServer, world: World, out: Path) -> list[DownloadedFile]:
    async def main() -> list[DownloadedFile]:
        async with AsyncAgentSightAPI(KEY, server.url) as api:
            api.runtime = world.runtime
            return await api.download_attachments(1, out)

    return asyncio.run(main())


def test_a_run_that_was_given_up_is_taken_up_by_the_next(
    api: AgentSightAPI, server: ScriptServer, files: Files, out: Path
) -> None:
    """Of a part, only what is missing is fetched."""
    uid = files.add("a.bin", LARGE)
    files.faults[uid] = [cut_after(500_000), *[lambda *_: CUT] * 30]
    [file] = api.download_attachments(1, out)
    assert file.status == "failed"
    assert not file.is_here
    assert not file.path.exists()
    files.faults.clear()
    server.seen.clear()
    assert statuses(api.download_attachments(1, out)) == ["downloaded"]
    assert [seen.headers.get("range") for seen in server.seen][1:] == ["bytes=500000-"]
    assert contents(out) == {"a.bin": LARGE}


def test_a_server_that_knows_no_ranges_sends_all_again(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """A proxy may have taken them away."""
    uid = files.add("a.bin", LARGE)
    files.faults[uid] = [cut_after(500_000), lambda _, data: Answer(200, data)]
    assert statuses(api.download_attachments(1, out)) == ["downloaded"]
    assert contents(out) == {"a.bin": LARGE}


@pytest.mark.parametrize("n_bytes", [10, len(LARGE), len(LARGE) + 5])
def test_a_part_that_is_not_of_this_file_is_thrown_away(
    api: AgentSightAPI, files: Files, out: Path, n_bytes: int
) -> None:
    """The hash decides, and the file is fetched whole."""
    uid = files.add("a.bin", LARGE)
    out.mkdir()
    (out / f".agentsight-{uid}.part").write_bytes(b"x" * n_bytes)
    assert statuses(api.download_attachments(1, out)) == ["downloaded"]
    assert contents(out) == {"a.bin": LARGE}


def test_bytes_that_are_not_those_announced_never_get_a_name(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """Twice wrong is wrong."""
    uid = files.add("a.bin", b"right")
    files.faults[uid] = [lambda *_: Answer(200, b"wrong")] * 9
    [file] = api.download_attachments(1, out)
    assert (file.status, file.error) == ("failed", "its bytes are not those of its SHA-256, twice")
    assert not (out / "a.bin").exists()


def test_more_bytes_than_announced_are_not_kept(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """A server cannot fill the disk."""
    uid = files.add("a.bin", b"right")
    files.faults[uid] = [lambda *_: Answer(200, LARGE)]
    [file] = api.download_attachments(1, out)
    assert file.error == "the server sent more bytes than the file has"
    assert sum(path.stat().st_size for path in out.iterdir()) <= 5


@pytest.mark.parametrize(("status", "code"), [(410, "gone"), (403, "infected"), (404, "not_found")])
def test_one_file_that_is_refused_does_not_stop_the_others(
    api: AgentSightAPI, files: Files, out: Path, status: int, code: str
) -> None:
    """It says why."""
    uid = files.add("bad.bin", LARGE)
    files.add("good.bin", LARGE)
    files.faults[uid] = [refuse(status, code)]
    bad, good = api.download_attachments(1, out)
    assert (bad.status, good.status) == ("refused", "downloaded")
    assert f"it is {code}" in str(bad.error)
    assert [path.name for path in out.iterdir()] == ["good.bin"]
    files.faults[uid] = [refuse(status, code)]
    with pytest.raises(DownloadException, match=r"1 of 2 files are not here; 'bad\.bin'") as caught:
        api.download_attachments(1, out, check=True)
    assert statuses(caught.value.files) == ["refused", "present"]


def test_a_server_that_is_gone_is_not_asked_for_every_file(
    api: AgentSightAPI, server: ScriptServer, files: Files, out: Path
) -> None:
    """The rest says that it was not tried."""
    for n in range(50):
        uid = files.add(f"{n}.bin", b"data")
        files.faults[uid] = [lambda *_: CUT] * 9
    results = api.download_attachments(1, out, max_workers=2)
    assert statuses(results) == ["failed"] * 50
    assert n_fetched(server) <= 8
    assert results[-1].error == "not tried: the server does not answer"


def test_no_name_leaves_the_directory_and_no_link_is_followed(
    api: AgentSightAPI, files: Files, out: Path, tmp_path: Path
) -> None:
    """Neither by the sender's choice nor by what lies in the directory."""
    victim = tmp_path / "victim.txt"
    victim.write_bytes(b"untouched")
    out.mkdir()
    uid = files.add("link.txt", b"data")
    (out / "link.txt").symlink_to(victim)
    (out / f".agentsight-{uid}.part").symlink_to(victim)
    for name in ("../victim.txt", "/etc/x", "..", "a/b.txt", "con.txt"):
        files.add(name, b"data")
    results = api.download_attachments(1, out)
    assert all(file.path.parent == out for file in results)
    assert results[0].status == "failed"  # its part is a link
    assert statuses(results[1:]) == ["downloaded"] * 5
    (out / f".agentsight-{uid}.part").unlink()
    assert api.download_attachments(1, out)[0].path == out / "link (2).txt"
    assert api.download_attachments(1, out, overwrite=True)[0].path == out / "link.txt"
    assert not (out / "link.txt").is_symlink()
    assert victim.read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "victim.txt"]


@pytest.mark.parametrize("row", [{"uid": "../../x"}, {"sha256": None}, {"size_bytes": "9"}])
def test_a_list_that_is_not_our_server_s_is_refused(
    api: AgentSightAPI, files: Files, out: Path, row: dict[str, Any]
) -> None:
    """Nothing is made of its values."""
    files.add("a.txt", b"data", **row)
    with pytest.raises(ConversationNetworkException, match="is it an AgentSight server"):
        api.download_attachments(1, out)


def test_progress_counts_up_to_the_whole(api: AgentSightAPI, files: Files, out: Path) -> None:
    """Also what was there already counts, and what is taken up again is not counted twice."""
    uid = files.add("a.bin", LARGE)
    files.add("b.bin", b"data")
    files.faults[uid] = [cut_after(500_000), lambda _, data: Answer(200, data)]
    told: list[tuple[int, int, str]] = []
    api.download_attachments(1, out, progress=lambda *one: told.append(one), max_workers=1)
    n_all = len(LARGE) + 4
    assert told[-1] == (n_all, n_all, "b.bin")
    assert all(0 <= n_done <= n_all for n_done, _, _ in told)
    told.clear()
    api.download_attachments(1, out, progress=lambda *one: told.append(one))
    assert told[-1][:2] == (n_all, n_all)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_progress_raises_ends_all_and_leaves_parts(
    server: ScriptServer, files: Files, out: Path, kind: str
) -> None:
    """A window that is closed stops the work behind it."""
    files.add("a.bin", LARGE)

    def stop(n_done: int, _n_all: int, _name: str) -> None:
        if n_done > 100_000:
            raise RuntimeError("enough")

    async def wait() -> None:
        async with AsyncAgentSightAPI(KEY, server.url) as api:
            await api.download_attachments(1, out, progress=stop)

    def block() -> None:
        with AgentSightAPI(KEY, server.url) as api:
            api.download_attachments(1, out, progress=stop)

    with pytest.raises(RuntimeError, match="enough"):
        asyncio.run(wait()) if kind == "async" else block()
    [part] = out.iterdir()
    assert part.suffix == ".part"
    assert part.stat().st_size > 100_000


def test_two_at_once_do_not_write_into_the_same_part(
    api: AgentSightAPI, server: ScriptServer, files: Files, out: Path
) -> None:
    """The second says so, and both leave a whole file."""
    uid = files.add("a.bin", LARGE)
    others: list[DownloadedFile] = []

    def meanwhile(seen: Seen, data: bytes) -> Answer:
        with AgentSightAPI(KEY, server.url) as other:
            others.extend(other.download_attachments(1, out))
        return serve(seen, data)

    files.faults[uid] = [meanwhile]
    assert statuses(api.download_attachments(1, out)) == ["downloaded"]
    assert [file.error for file in others] == [
        "another process is fetching it into this directory just now"
    ]
    assert contents(out) == {"a.bin": LARGE}


def test_a_name_that_appears_meanwhile_is_not_replaced(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """Planning and naming are two moments."""
    uid = files.add("a.txt", b"theirs")

    def meanwhile(seen: Seen, data: bytes) -> Answer:
        (out / "a.txt").write_bytes(b"mine")
        return serve(seen, data)

    files.faults[uid] = [meanwhile]
    [file] = api.download_attachments(1, out)
    assert file.error == "something of the name a.txt has appeared meanwhile"
    assert (out / "a.txt").read_bytes() == b"mine"
    assert api.download_attachments(1, out)[0].path == out / "a (2).txt"


def test_a_crash_while_a_file_gets_its_name_spoils_nothing(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """The part and the file were for a moment one, and the file has been changed since."""
    uid = files.add("a.txt", b"theirs")
    out.mkdir()
    part = out / f".agentsight-{uid}.part"
    part.write_bytes(b"edited")
    os.link(part, out / "a.txt")
    [file] = api.download_attachments(1, out)
    assert (file.status, file.path.name) == ("downloaded", "a (2).txt")
    assert (out / "a.txt").read_bytes() == b"edited"


@pytest.mark.slow
def test_many_small_files_come_side_by_side(
    api: AgentSightAPI, server: ScriptServer, files: Files, out: Path
) -> None:
    """As many at a time as are asked for."""
    n_now, n_most = 0, 0
    lock, all_here = threading.Lock(), threading.Barrier(4, timeout=10)

    def count(seen: Seen, data: bytes) -> Answer:
        nonlocal n_now, n_most
        with lock:
            n_now += 1
            n_most = max(n_most, n_now)
        all_here.wait()
        with lock:
            n_now -= 1
        return serve(seen, data)

    for n in range(200):
        uid = files.add("same.txt", b"%d" % n)
        if n < 4:
            files.faults[uid] = [count]
    results = api.download_attachments(1, out, max_workers=4)
    assert statuses(results) == ["downloaded"] * 200
    assert n_most == 4
    assert [file.path.read_bytes() for file in results] == [b"%d" % n for n in range(200)]
    assert statuses(api.download_attachments(1, out)) == ["present"] * 200


def test_a_conversation_without_files_makes_the_directory(
    api: AgentSightAPI, files: Files, out: Path
) -> None:
    """Nothing is nothing, and no error."""
    assert api.download_attachments(1, out, check=True) == []
    assert out.is_dir()


def test_what_cannot_begin_raises(
    api: AgentSightAPI, server: ScriptServer, files: Files, tmp_path: Path
) -> None:
    """No conversation, no directory, no worker."""
    with pytest.raises(NotFoundException):
        api.download_attachments(2, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"Not a directory: .*/file'"):
        api.download_attachments(1, tmp_path / "file")
    with pytest.raises(ValueError, match="max_workers"):
        api.download_attachments(1, tmp_path, max_workers=0)


def test_a_directory_that_may_not_be_written_is_named_once(
    api: AgentSightAPI, files: Files, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no file's fault, so that the others are not tried."""
    for n in range(3):
        files.add(f"{n}.bin", b"data")
    really_open = os.open

    def refuse(path: Any, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith(".part"):
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    first, *others = api.download_attachments(1, out, max_workers=1)
    said = f"nothing may be written in {out}: change its permissions, or choose another"
    assert (first.status, first.error) == ("failed", said)
    assert [file.error for file in others] == [f"not tried: {said}"] * 2


def test_the_key_does_not_follow_a_redirect_to_the_store(
    api: AgentSightAPI, server: ScriptServer, files: Files, out: Path
) -> None:
    """A presigned link carries its permission in itself, and the store must not learn the key."""
    uid = files.add("a.bin", LARGE)
    with ScriptServer() as store:
        store.script = lambda seen: serve(seen, LARGE)
        link = f"{store.url}/bucket/key?signature=x"
        files.faults[uid] = [lambda *_: Answer(307, headers=(("Location", link),))]
        assert statuses(api.download_attachments(1, out)) == ["downloaded"]
        [seen] = store.seen
    assert "authorization" not in seen.headers
    assert contents(out) == {"a.bin": LARGE}


@pytest.fixture
def zip_script(server: ScriptServer) -> list[Answer]:
    """Answer for the ZIP of the conversation `a/b`."""
    answers: list[Answer] = []
    server.script = lambda seen: (
        answers.pop(0)
        if seen.path == "/api/v1/conversations/by-id/a%2Fb/attachments/zip/"
        else Answer(404, {"detail": "Not found.", "code": "not_found"})
    )
    return answers


def test_a_zip_appears_when_it_is_whole(
    api: AgentSightAPI, zip_script: list[Answer], tmp_path: Path
) -> None:
    """One that was cut is begun again."""
    zip_script += [Answer(200, b"half", short=True), Answer(200, b"the whole")]
    told: list[int] = []
    n_bytes = api.download_attachments_zip("a/b", tmp_path / "a.zip", progress=told.append)
    assert n_bytes == 9
    assert told[-1] == 9
    assert contents(tmp_path) == {"a.zip": b"the whole"}


def test_a_zip_that_never_comes_leaves_nothing(
    api: AgentSightAPI, zip_script: list[Answer], tmp_path: Path
) -> None:
    """What was there before stays."""
    (tmp_path / "a.zip").write_bytes(b"before")
    zip_script += [Answer(200, b"half", short=True)] * 9
    with pytest.raises(ConversationNetworkException):
        api.download_attachments_zip("a/b", tmp_path / "a.zip")
    with pytest.raises(NotFoundException, match="conversation_id 'c' not found"):
        api.download_attachments_zip("c", tmp_path / "a.zip")
    assert contents(tmp_path) == {"a.zip": b"before"}


def test_where_a_zip_cannot_go_is_named_as_it_was_given(
    api: AgentSightAPI, zip_script: list[Answer], tmp_path: Path
) -> None:
    """The file that is written first has a name that nobody knows."""
    with pytest.raises(IsADirectoryError) as caught:
        api.download_attachments_zip("a/b", tmp_path)
    assert caught.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        api.download_attachments_zip("a/b", tmp_path / "nowhere" / "a.zip")
    assert missing.value.filename == str(tmp_path / "nowhere")
    assert zip_script == []


def test_a_zip_on_its_way_writes_over_nothing(
    api: AgentSightAPI, zip_script: list[Answer], tmp_path: Path
) -> None:
    """Neither what has a name like its own, nor what a link of such a name leads to."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "a.zip.part").symlink_to(tmp_path / "victim")
    zip_script.append(Answer(200, b"the whole"))
    api.download_attachments_zip("a/b", tmp_path / "a.zip")
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert (tmp_path / "a.zip.part").is_symlink()
    assert (tmp_path / "a.zip").read_bytes() == b"the whole"


def test_a_zip_comes_awaited_too(
    server: ScriptServer, zip_script: list[Answer], tmp_path: Path
) -> None:
    """The same operation."""
    zip_script.append(Answer(200, b"the whole"))

    async def main() -> int:
        async with AsyncAgentSightAPI(KEY, server.url) as api:
            return await api.download_attachments_zip("a/b", tmp_path / "a.zip")

    assert asyncio.run(main()) == 9
