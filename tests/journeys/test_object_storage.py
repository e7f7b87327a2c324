"""A server whose files are in a bucket: every link opens, and the bucket may go and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest

from agentsight import AgentSightAPI, ConversationTracker
from agentsight._base import Runtime
from agentsight.server.db import open_database, sql
from tests.journeys.test_uploads import (
    MIB,
    announce,
    half_sent,
    offset_of,
    refer,
    wait_for_offset,
)
from tests.journeys.test_uploads import send as put_piece
from tests.support.cutting import Cut, CuttingRelay
from tests.support.postgres import TestDatabases
from tests.support.seaweed import Seaweed
from tests.support.server import Answer, LiveServer, bare_environment, open_link

FILES = Path(__file__).parents[1] / "data" / "files"
MB = 1_000_000

StartOnS3 = Callable[..., LiveServer]


@pytest.fixture
def start_on_s3(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[StartOnS3]:
    """Start servers for this test alone, on a fresh database of each kind and a fresh folder."""
    made: list[LiveServer] = []
    url: str | None = None
    if dialect == "postgresql":
        databases: TestDatabases = request.getfixturevalue("postgres_databases")
        url = databases.create_empty(f"bucket_{abs(hash(request.node.nodeid)):x}")

    def start(seaweed: Seaweed, *, workers: int = 1, **settings: str) -> LiveServer:
        told = {"AGENTSIGHT_STORAGE_URL": seaweed.new_url(), **seaweed.environ}
        told |= {f"AGENTSIGHT_{name.upper()}": value for name, value in settings.items()}
        made.append(LiveServer(tmp_path, url, settings=told, workers=workers))
        return made[-1].start()

    yield start
    for one in made:
        one.stop()
        print(one.log_since(0))
    if url is not None:
        databases.drop(url)


def send(server: LiveServer, key: str, conversation_id: str, *paths: Path) -> int:
    """Send files in one message; return how many things went wrong."""
    with ConversationTracker(key, endpoint=server.base_url) as tracker:
        tracker.get_or_create_conversation(conversation_id)
        tracker.track_human_message("see", paths)
        return tracker.send_tracked_data()["summary"]["errors"]


def files_of(server: LiveServer, key: str, conversation_id: str) -> list[dict[str, Any]]:
    """Fetch the rows of a conversation's files."""
    with AgentSightAPI(key, server.base_url) as api:
        return list(api.fetch_conversation_attachments(conversation_id)["attachments"])


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def look(url: str, method: str = "GET", **headers: str) -> Answer:
    """Ask for a link and follow nothing."""
    request = Request(url, method=method, headers=headers)
    try:
        with build_opener(_Stay).open(request, timeout=30) as answer:
            return Answer(answer.status, _lower(answer.headers), answer.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, _lower(error.headers), error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


@pytest.mark.parametrize(
    ("dialect", "downloads"), [("sqlite", "redirect"), ("postgresql", "stream")]
)
def test_every_file_goes_in_and_comes_out(
    start_on_s3: StartOnS3, seaweed: Seaweed, tmp_path: Path, downloads: str
) -> None:
    """Small and large, two workers, by link and by the SDK; ranges are passed on to the store."""
    server = start_on_s3(seaweed, workers=2, downloads=downloads)
    agent = server.make_agent()
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(30 * MB))
    paths = [*sorted(FILES.iterdir()), large]
    assert send(server, agent.write_key, "c", *paths) == 0
    rows = files_of(server, agent.read_key, "c")
    assert [row["filename"] for row in rows] == [path.name for path in paths]
    for row, path in zip(rows, paths, strict=True):
        content = path.read_bytes()
        assert open_link(row["file_url"]).body == content
        part = look(row["file_url"], Range="bytes=3-9")
        if part.status == 302:
            part = look(part.headers["location"], Range="bytes=3-9")
        assert (part.status, part.body) == (206, content[3:10])
        assert part.headers["content-range"] == f"bytes 3-9/{len(content)}"
    out = tmp_path / "out"
    with AgentSightAPI(agent.read_key, server.base_url) as api:
        found = api.download_attachments("c", out)
    assert [file.path.read_bytes() for file in found] == [path.read_bytes() for path in paths]
    assert not (server.data_dir / "files").exists()


@pytest.mark.parametrize(("dialect", "n_workers"), [("sqlite", 1), ("postgresql", 2)])
def test_an_upload_goes_on_where_it_was_cut(
    start_on_s3: StartOnS3, seaweed: Seaweed, tmp_path: Path, n_workers: int
) -> None:
    """What the server had taken is in the bucket, parts and the tail after them, whoever of the
    workers took it: it is not sent again.
    """
    server = start_on_s3(seaweed, workers=n_workers)
    agent = server.make_agent()
    path = tmp_path / "a.bin"
    path.write_bytes(os.urandom(30 * MB))
    waits: list[float] = []
    cuts = [Cut("up", 20 * MB), Cut("up", 3 * MB)]
    with (
        CuttingRelay(server.base_url, cuts) as relay,
        ConversationTracker(agent.write_key, endpoint=relay.url) as tracker,
    ):
        tracker.runtime = Runtime(sleep=waits.append)
        tracker.get_or_create_conversation("c")
        tracker.track_attachments([path])
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
        assert relay.cuts == []
        assert relay.n_passed["up"] < 45 * MB
    assert max(waits, default=0) < 2
    [row] = files_of(server, agent.read_key, "c")
    assert open_link(row["file_url"]).body == path.read_bytes()


@pytest.mark.anyio
@pytest.mark.parametrize("dialect", ["sqlite"])
async def test_a_crash_in_the_middle_of_an_upload_costs_a_part(
    start_on_s3: StartOnS3, seaweed: Seaweed
) -> None:
    """After SIGKILL and a restart the upload stands at its last whole part, and goes on there."""
    server = start_on_s3(seaweed)
    agent, data = server.make_agent(), os.urandom(24 * MIB)
    url = announce(server, agent, data)["upload_url"]
    with half_sent(server, agent, url, data, 20 * MIB):
        wait_for_offset(server, agent, url, 8 * MIB)
        server.kill()
    server.start()
    async with await open_database(server.database_url) as db:  # ten seconds later
        statement = sql("UPDATE uploads SET leased_until = 0 WHERE uid = $1")
        await db.write(lambda tx: tx.execute(statement, url.split("/")[-2]))
    offset = offset_of(server, agent, url)
    assert offset in (8 * MIB, 16 * MIB)
    assert put_piece(server, agent, url, offset, data[offset:]).status == 204
    row = refer(server, agent, url.split("/")[-2])
    assert open_link(row["file_url"]).body == data


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_only_what_runs_nothing_is_redirected(start_on_s3: StartOnS3, seaweed: Seaweed) -> None:
    """Pictures and downloads go to the store for a minute, under their types and names; what needs
    our policies is streamed, and HEAD, validators and refusals are answered by us.
    """
    server = start_on_s3(seaweed, downloads="redirect")
    agent = server.make_agent()
    names = ["sample.png", "hostile.svg", "hostile.html", "sample.pdf", "sample.mp4", "note.txt"]
    assert send(server, agent.write_key, "c", *(FILES / name for name in names)) == 0
    rows = {row["filename"]: row for row in files_of(server, agent.read_key, "c")}
    statuses = {name: look(rows[name]["file_url"]).status for name in names}
    assert statuses == {
        "sample.png": 302,
        "hostile.svg": 302,
        "hostile.html": 302,
        "sample.pdf": 200,
        "sample.mp4": 200,
        "note.txt": 200,
    }
    for name in ("sample.png", "hostile.svg", "hostile.html"):
        told = look(rows[name]["file_url"])
        assert told.headers["cache-control"] == "private, max-age=30"
        assert told.body == b""
        there = look(told.headers["location"])
        assert there.body == (FILES / name).read_bytes()
        is_picture = name == "sample.png"
        kind = "inline" if is_picture else "attachment"
        assert there.headers["content-disposition"].startswith(f"{kind}; filename=")
        assert name in there.headers["content-disposition"]
        expected = "image/png" if is_picture else "application/octet-stream"
        assert there.headers["content-type"] == expected
        bare = urlsplit(told.headers["location"])._replace(query="").geturl()
        assert look(bare).status == 403
    url = rows["sample.png"]["file_url"]
    head = look(url, "HEAD")
    assert head.status == 200
    assert head.headers["content-length"] == str((FILES / "sample.png").stat().st_size)
    assert look(url, **{"If-None-Match": head.headers["etag"]}).status == 304
    assert look(url.replace("sample.png", "x").replace("/files/", "/files/0")).status == 404
    assert look(server.base_url + urlsplit(rows["sample.png"]["url"]).path).status == 401


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_store_away_costs_nobody_a_message(start_on_s3: StartOnS3, own_seaweed: Seaweed) -> None:
    """503 with Retry-After while it is away, nothing half-visible, texts go on; then all is well
    without a restart, and what the SDK kept is sent.
    """
    server = start_on_s3(own_seaweed)
    agent = server.make_agent()
    picture = FILES / "sample.png"
    assert send(server, agent.write_key, "before", picture) == 0
    [row] = files_of(server, agent.read_key, "before")
    own_seaweed.kill()
    told = look(row["file_url"])
    assert (told.status, told.headers["retry-after"]) == (503, "5")
    assert server.ask("GET", "/readyz").status == 503
    body = {"conversation": {"conversation_id": "during"}, "items": [
        {"type": "message", "sender": "end_user", "content": "with a file",
         "attachments": [{"filename": "a.txt", "data": "YWJj"}]}]}  # fmt: skip
    refused = server.post_json("/api/v1/batch/", body, key=agent.write_key)
    assert (refused.status, refused.json["code"]) == (503, "storage_unavailable")
    assert "retry-after" in {name.lower() for name in refused.headers}
    with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
        tracker.get_or_create_conversation("during")
        tracker.track_human_message("see", [picture])
        with suppress(Exception):  # whatever it says: it keeps the message
            tracker.send_tracked_data()
        lookup = "/api/conversations/lookup/?conversation_id=during"
        assert server.ask("GET", lookup, key=agent.read_key).status == 404
        assert send(server, agent.write_key, "text-only") == 0
        own_seaweed.start()
        wait_until(lambda: server.ask("GET", "/readyz").status == 200)
        # The client waits for a while after a failure before it asks again.
        wait_until(lambda: tracker.send_tracked_data()["summary"]["errors"] == 0)
    [late] = files_of(server, agent.read_key, "during")
    for found in (row, late):
        assert open_link(found["file_url"]).body == picture.read_bytes()


@pytest.mark.sqlite_will_do
def test_a_restart_finds_its_bucket_and_refuses_another(
    start_on_s3: StartOnS3, seaweed: Seaweed
) -> None:
    """A server knows its own bucket again, and does not start with somebody else's."""
    server = start_on_s3(seaweed)
    agent = server.make_agent()
    assert send(server, agent.write_key, "c", FILES / "sample.png") == 0
    server.kill()
    server.start()
    [row] = files_of(server, agent.read_key, "c")
    assert open_link(row["file_url"]).body == (FILES / "sample.png").read_bytes()
    server.stop()
    refused = serve_once(server, {**seaweed.environ, "AGENTSIGHT_STORAGE_URL": seaweed.new_url()})
    assert refused.returncode == 1
    assert "the objects agentsight-instance" in refused.stderr


def test_what_can_be_wrong_at_the_start_is_one_line(tmp_path: Path, seaweed: Seaweed) -> None:
    """A store that is away, a wrong secret: `serve` says what to mend, and no secret."""
    server = LiveServer(tmp_path)
    place = {"AGENTSIGHT_STORAGE_URL": seaweed.new_url()}
    for changes, words in (
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "mend AWS_ENDPOINT_URL"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-and-hush"}, "mend AWS_ACCESS_KEY_ID"),
    ):
        failed = serve_once(server, seaweed.environ | place | changes)
        assert failed.returncode == 1
        last = failed.stderr.strip().splitlines()[-1]
        assert last.startswith("agentsight: the file store does not work:")
        assert words in last
        assert "hush" not in failed.stderr


def serve_once(server: LiveServer, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `agentsight serve` where it is expected to refuse."""
    command = [str(Path(sys.executable).with_name("agentsight")), "serve", "--port", "0"]
    command += ["--data", str(server.data_dir), "--database-url", server.database_url]
    return subprocess.run(
        command, env=bare_environment() | settings, capture_output=True, text=True, timeout=60,
        check=False, cwd=server.directory,
    )  # fmt: skip


def test_the_doctor_looks_at_the_bucket(tmp_path: Path, seaweed: Seaweed) -> None:
    """It writes, reads and removes an object, and asks as a stranger, who must be refused."""
    settings = seaweed.environ | {"AGENTSIGHT_STORAGE_URL": seaweed.new_url()}
    with LiveServer(tmp_path, settings=settings) as server:
        command = [str(Path(sys.executable).with_name("agentsight")), "doctor"]
        command += ["--data", str(server.data_dir)]
        done = subprocess.run(
            command, env=bare_environment() | settings, capture_output=True, text=True, check=False
        )
    assert "takes, gives back and removes bytes" in done.stdout, done.stdout + done.stderr
    assert "the bucket is private" in done.stdout
