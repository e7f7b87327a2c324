"""A store that is full refuses files, takes messages, and goes on by itself when there is room."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.journeys.test_object_storage import wait_until
from tests.support.seaweed import Seaweed
from tests.support.server import Agent, Answer, LiveServer, open_link
from tests.support.soak import only_in_soak

MIB = 1 << 20
SIZE_BYTES = 20 * MIB


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[Path]:
    """Mount memory of so many megabytes; only root may."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a disk that is full needs root, to be mounted: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def send(server: LiveServer, agent: Agent, size_bytes: int) -> Answer:
    """Upload a file that nothing compresses; return the last answer of it."""
    body = {"filename": "a.bin", "size_bytes": size_bytes}
    made = server.post_json("/api/v1/uploads/", body, key=agent.write_key)
    if made.status != 201:
        return made
    url, data = made.json["upload_url"], os.urandom(size_bytes)
    return server.ask("PUT", url, key=agent.write_key, body=data)


def tell(server: LiveServer, agent: Agent, *files: dict[str, str]) -> Answer:
    """Send a message."""
    item = {"type": "message", "content": "x" * 500, "sender": "end_user", "attachments": files}
    body = {"conversation": {"conversation_id": "c"}, "items": [item]}
    return server.post_json("/api/v1/batch/", body, key=agent.write_key)


def is_refused_for_now(answer: Answer) -> bool:
    """Say whether a file was refused as one that may come again later."""
    names = {name.lower() for name in answer.headers}
    return answer.status == 503 and "retry-after" in names


def check_full_and_free(server: LiveServer, agent: Agent, fill: Callable[[], None]) -> None:
    """Files are refused for now, messages are not, and what was there is there."""
    small = {"filename": "a.txt", "data": base64.b64encode(b"before").decode()}
    [before] = tell(server, agent, small).json["items"][0]["attachments"]
    fill()
    assert tell(server, agent).status == 200
    assert open_link(before["file_url"]).body == b"before"


def check_room(server: LiveServer, agent: Agent) -> None:
    """Files are taken again, by the same process, and no message is missing."""
    wait_until(lambda: send(server, agent, SIZE_BYTES).status == 200)
    assert tell(server, agent).status == 200
    messages = server.get_json("/api/conversations/", key=agent.read_key)["results"][0]["messages"]
    assert len(messages) == 3


def test_a_directory_on_a_full_disk(tmp_path: Path) -> None:
    """With the database on it, for which the last megabytes are kept."""
    keep = {"AGENTSIGHT_MIN_FREE_DISK_BYTES": str(32 * MIB)}
    with small_disk(tmp_path / "disk", 100) as disk, LiveServer(disk, settings=keep) as server:
        agent, filler = server.make_agent(), disk / "filler"

        def fill() -> None:
            room = os.statvfs(disk)
            filler.write_bytes(bytes(room.f_bavail * room.f_bsize - 16 * MIB))
            wait_until(lambda: is_refused_for_now(send(server, agent, 1)))

        check_full_and_free(server, agent, fill)
        filler.unlink()
        check_room(server, agent)


@only_in_soak
def test_a_bucket_that_is_full(tmp_path: Path) -> None:
    """The object store says so, in its own words, in the middle of an upload."""
    with small_disk(tmp_path / "disk", 300) as disk, Seaweed(disk / "weed") as seaweed:
        place = {"AGENTSIGHT_STORAGE_URL": seaweed.new_url(), **seaweed.environ}
        with LiveServer(tmp_path, settings=place) as server:
            agent = server.make_agent()

            def fill() -> None:
                while (answer := send(server, agent, SIZE_BYTES)).status == 200:
                    pass
                assert is_refused_for_now(answer), answer

            check_full_and_free(server, agent, fill)
            subprocess.run(["mount", "-o", "remount,size=900m", str(disk)], check=True)
            check_room(server, agent)
