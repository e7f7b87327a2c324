"""Files go the whole way, through cuts and crashes: up and down in pieces, and whole in the end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from agentsight import AgentSightAPI, AsyncAgentSightAPI, ConversationManager, ConversationTracker
from agentsight._base import Runtime
from agentsight._contract import UPLOADS_PATH
from agentsight._flow import Reply, Request, Unreachable
from agentsight.exceptions import NotFoundException
from agentsight.types import DownloadedFile
from tests.journeys.conftest import StartServer
from tests.support.cutting import Cut, CuttingRelay
from tests.support.raw_sql import read_rows, run_statements
from tests.support.server import LiveServer, bare_environment

MB = 1_000_000


def random_file(path: Path, n_bytes: int) -> Path:
    path.write_bytes(os.urandom(n_bytes))
    return path


def send(url: str, key: str, conversation_id: str, *paths: Path) -> int:
    """Send files; return how many things went wrong."""
    with ConversationTracker(key, endpoint=url) as tracker:
        tracker.get_or_create_conversation(conversation_id)
        tracker.track_human_message("see", paths)
        return tracker.send_tracked_data()["summary"]["errors"]


def same(files: list[DownloadedFile], *paths: Path) -> bool:
    return [file.path.read_bytes() for file in files] == [path.read_bytes() for path in paths]


class _Watched:
    """A tracker's transport that notes what is sent, and does something before the first batch."""

    def __init__(
        self, tracker: ConversationTracker, deed: Callable[[], None] | None = None
    ) -> None:
        self._transport = tracker._open_transport()
        self._deed = deed
        self.offsets: list[int] = []
        self.n_batches = 0
        tracker._transport = self  # type: ignore[assignment]

    def send(self, request: Request) -> Reply | Unreachable:
        self.offsets += [int(value) for name, value in request.headers if name == "Upload-Offset"]
        if request.path.endswith("/batch/"):
            self.n_batches += 1
            deed, self._deed = self._deed, None
            if deed is not None:
                deed()
        return self._transport.send(request)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def test_a_large_file_goes_up_and_comes_down_and_its_copy_costs_nothing(
    server: LiveServer, tmp_path: Path
) -> None:
    """The same bytes are not sent again, whoever sends them and under whatever name."""
    agent = server.make_agent()
    first, second = random_file(tmp_path / "a.bin", 8 * MB), tmp_path / "b.bin"
    second.write_bytes(first.read_bytes())
    with CuttingRelay(server.base_url) as relay:
        assert send(relay.url, agent.write_key, "c", first) == 0
        assert relay.n_passed["up"] > 8 * MB
        n_before = relay.n_passed["up"]
        assert send(relay.url, agent.write_key, "d", second) == 0
        assert relay.n_passed["up"] - n_before < 10_000
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        assert same(api.download_attachments("d", tmp_path / "out"), first)
        [row] = api.iter_attachments(filename_contains="B.BIN")
        assert api.fetch_attachment(row["uid"])["sha256"] == row["sha256"]
        assert row["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()


def test_another_agent_s_bytes_are_not_here(server: LiveServer, tmp_path: Path) -> None:
    """That they are known would tell a stranger that somebody has them."""
    path = random_file(tmp_path / "a.bin", MB)
    assert send(server.base_url, server.make_agent().write_key, "c", path) == 0
    stranger = server.make_stranger()
    with CuttingRelay(server.base_url) as relay:
        assert send(relay.url, stranger.write_key, "c", path) == 0
        assert relay.n_passed["up"] > MB


def test_an_upload_goes_on_where_it_was_cut(server: LiveServer, tmp_path: Path) -> None:
    """Three cuts cost what was on its way: what the server had taken is never sent again, and its
    first answer says how much that was.
    """
    waits: list[float] = []
    agent = server.make_agent()
    path = random_file(tmp_path / "a.bin", 20 * MB)
    cuts = [Cut("up", 15 * MB), Cut("up", 2 * MB), Cut("up", MB)]
    with (
        CuttingRelay(server.base_url, cuts) as relay,
        ConversationTracker(agent.write_key, endpoint=relay.url) as tracker,
    ):
        watched = _Watched(tracker)
        tracker.runtime = Runtime(sleep=waits.append)
        tracker.get_or_create_conversation("c")
        tracker.track_attachments([path])
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
        assert relay.cuts == []
    assert max(waits, default=0) < 2
    assert watched.offsets == sorted(watched.offsets)
    assert watched.offsets[1] > 8 * MB
    assert relay.n_passed["up"] < 30 * MB
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        assert same(api.download_attachments("c", tmp_path / "out"), path)


@pytest.mark.sqlite_will_do
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_was_stopped_goes_on_where_it_stopped(
    server: LiveServer, tmp_path: Path, how: signal.Signals
) -> None:
    """The same command again sends the rest, as Ctrl-C says; so does any process of the SDK."""
    agent = server.make_agent()
    path = random_file(tmp_path / "a.bin", 30 * MB)
    with CuttingRelay(server.base_url) as relay:
        relay.hold_after = 20 * MB
        with run_upload(relay.url, agent.write_key, path) as client:
            assert relay.stopped.wait(60)
            client.send_signal(how)
            said = client.communicate(timeout=60)[1]
    if how is signal.SIGINT:
        assert client.returncode == 130
        assert "the same command goes on with what is missing" in said
    with (
        CuttingRelay(server.base_url) as relay,
        run_upload(relay.url, agent.write_key, path) as client,
    ):
        said = client.communicate(timeout=60)[1]
        assert client.returncode == 0, said
        assert relay.n_passed["up"] < 14 * MB
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        assert same(api.download_attachments("c", tmp_path / "out", check=True), path)


def run_upload(url: str, key: str, path: Path) -> subprocess.Popen[str]:
    """Start `agentsight attachments upload`."""
    program = str(Path(sys.executable).with_name("agentsight"))
    return subprocess.Popen(
        [program, "attachments", "upload", "c", str(path), "--endpoint", url],
        env=bare_environment() | {"AGENTSIGHT_API_KEY": key},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.sqlite_will_do
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_download_goes_on_where_it_was_cut(server: LiveServer, tmp_path: Path, kind: str) -> None:
    """Each byte comes once, but for what was on its way."""
    agent = server.make_agent()
    path = random_file(tmp_path / "a.bin", 20 * MB)
    assert send(server.base_url, agent.write_key, "c", path) == 0

    async def wait(url: str) -> list[DownloadedFile]:
        async with AsyncAgentSightAPI(agent.read_key, url) as api:
            return await api.download_attachments("c", tmp_path / "out", check=True)

    def block(url: str) -> list[DownloadedFile]:
        with AgentSightAPI(agent.read_key, url) as api:
            return api.download_attachments("c", tmp_path / "out", check=True)

    cuts = [Cut("down", 15 * MB), Cut("down", 2 * MB), Cut("down", MB)]
    with CuttingRelay(server.base_url, cuts) as relay:
        files = asyncio.run(wait(relay.url)) if kind == "async" else block(relay.url)
        assert relay.cuts == []
        assert relay.n_passed["down"] < 30 * MB
    assert same(files, path)


@pytest.mark.sqlite_will_do
def test_two_hundred_files_come_side_by_side(server: LiveServer, tmp_path: Path) -> None:
    """All of one name, and the ZIP has them too."""
    agent = server.make_agent()
    paths = [random_file(tmp_path / f"{n}.bin", 2_000 * (n % 50)) for n in range(200)]
    with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
        tracker.get_or_create_conversation("many")
        for start in range(0, 200, 50):
            tracker.track_attachments(
                [{"path": path, "filename": "a.bin"} for path in paths[start : start + 50]]
            )
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        files = api.download_attachments("many", tmp_path / "out", max_workers=8, check=True)
        assert same(files, *paths)
        assert len({file.path.name for file in files}) == 200
        again = api.download_attachments("many", tmp_path / "out")
        assert {file.status for file in again} == {"present"}
        api.download_attachments_zip("many", tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 201


def test_an_upload_that_expires_before_its_message_is_made_again(
    server: LiveServer, tmp_path: Path
) -> None:
    """The message arrives with its file, and nobody has to do anything."""
    agent = server.make_agent()
    path = random_file(tmp_path / "a.bin", MB)

    def expire() -> None:
        [(uid,)] = read_rows(
            server.database_url,
            f"SELECT uid FROM uploads WHERE filename = 'a.bin' AND sha256 = '{_hash(path)}'",
        )
        assert server.ask("DELETE", f"{UPLOADS_PATH}{uid}/", key=agent.write_key).status == 204

    with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
        watched = _Watched(tracker, expire)
        tracker.get_or_create_conversation("c")
        tracker.track_human_message("see", [path])
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
        assert watched.n_batches == 2
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        assert same(api.download_attachments("c", tmp_path / "out", check=True), path)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.sqlite_will_do
def test_a_file_whose_bytes_are_gone_does_not_stop_the_others(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Somebody has removed an object behind the server's back."""
    server = start_server()
    agent = server.make_agent()
    lost, kept = random_file(tmp_path / "lost.bin", MB), random_file(tmp_path / "kept.bin", MB)
    assert send(server.base_url, agent.write_key, "c", lost, kept) == 0
    objects = [path for path in server.data_dir.rglob("*") if path.is_file()]
    [found] = [path for path in objects if path.stat().st_size == MB and _hash(path) == _hash(lost)]
    found.unlink()
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        gone, here = api.download_attachments("c", tmp_path / "out")
    assert (gone.status, here.status) == ("refused", "downloaded")
    assert "no longer there" in str(gone.error)


def test_a_server_that_is_killed_while_a_file_comes_goes_on_with_it(
    start_server: StartServer, tmp_path: Path
) -> None:
    """What it had on its disk it need not be sent again; and a dead writer's lease ends."""
    server = start_server()
    agent = server.make_agent()
    path = random_file(tmp_path / "a.bin", 40 * MB)
    reports: list[int] = []
    half, is_again = threading.Event(), threading.Event()

    def end_leases(_seconds: float) -> None:
        assert is_again.wait(timeout=60)
        run_statements(server.database_url, ["UPDATE uploads SET leased_until = 0"])

    def tell(_name: str, n_done: int, _n_all: int) -> None:
        if n_done > 20 * MB:
            half.set()

    with (
        CuttingRelay(server.base_url) as relay,
        ConversationTracker(agent.write_key, endpoint=relay.url) as tracker,
    ):
        tracker.runtime = Runtime(sleep=end_leases)
        tracker._outbox.uploads.tell = tell
        tracker.get_or_create_conversation("c")
        tracker.track_attachments([path])
        sending = threading.Thread(
            target=lambda: reports.append(tracker.send_tracked_data()["summary"]["errors"])
        )
        sending.start()
        assert half.wait(timeout=60)
        server.kill()
        server.start()
        is_again.set()
        sending.join()
        assert reports == [0]
        assert relay.n_passed["up"] < 75 * MB
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        assert same(api.download_attachments("c", tmp_path / "out", check=True), path)


def test_what_is_deleted_comes_back_and_what_is_erased_does_not(
    server: LiveServer, tmp_path: Path
) -> None:
    """The manager's half: a file, then its conversation."""
    agent = server.make_agent()
    path = random_file(tmp_path / "a.bin", MB)
    assert send(server.base_url, agent.write_key, "c", path) == 0
    with (
        AgentSightAPI(agent.read_key, server.base_url) as api,
        ConversationManager(agent.write_key, server.base_url) as manager,
    ):
        [row] = api.iter_attachments()
        manager.delete_attachment(row["uid"])
        assert api.fetch_conversation_attachments("c")["total_attachments"] == 0
        manager.restore_attachment(row["uid"])
        assert api.fetch_conversation_attachments("c")["total_attachments"] == 1
        manager.delete_conversation("c")
        manager.restore_conversation("c")
        assert api.fetch_conversations(conversation_id="c")["count"] == 1
        manager.delete_attachment(row["uid"], erase=True)
        with pytest.raises(NotFoundException):
            manager.restore_attachment(row["uid"])
        manager.erase_conversation("c")
        with pytest.raises(NotFoundException):
            api.fetch_conversation("c")
