"""Clients that ask and do not read: what they hold is taken back, and others go on."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.server import Agent, LiveServer, open_link

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
FILE_BYTES = 8_000_000
Silent = Callable[..., None]


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[LiveServer]:
    """Start a server that waits some seconds for who does not read."""
    with LiveServer(tmp_path, settings={"AGENTSIGHT_SEND_TIMEOUT_S": "6"}) as server:
        yield server


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def send_file(server: LiveServer, agent: Agent) -> dict[str, str]:
    """Send a file of some megabytes, and return its row."""
    announced = server.post_json(
        "/api/v1/uploads/", {"filename": "film.bin", "size_bytes": FILE_BYTES}, key=agent.write_key
    ).json
    body = bytes(FILE_BYTES)
    sent = server.ask("PUT", announced["upload_url"], key=agent.write_key, body=body)
    assert sent.status == 200, sent
    batch = {
        "conversation_id": "silence",
        "attachments": [{"upload": announced["uid"]}],
    }
    return server.post_json("/api/attachments/", batch, key=agent.write_key).json["attachments"][0]


@contextlib.contextmanager
def silent_clients() -> Iterator[Silent]:
    """Lend what asks for an address and reads nothing of the answer; all hang up in the end."""
    with contextlib.ExitStack() as clients:

        def ask(url: str, key: str | None = None) -> None:
            parts = urlsplit(url)
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((str(parts.hostname), int(parts.port or 0)))
            said = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            said += f"Authorization: Api-Key {key}\r\n" if key else ""
            client.sendall(f"{said}\r\n".encode())

        yield ask


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Ask for an address, and read nothing of the answer."""
    with silent_clients() as ask:
        yield ask


def n_open(server: LiveServer) -> int:
    """Count the server's descriptors."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def n_open_files(server: LiveServer) -> int:
    """Count the stored files that the server has open."""
    n_files = 0
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            n_files += "/blobs/" in str(descriptor.readlink())
    return n_files


def test_who_reads_nothing_is_let_go(impatient: LiveServer, silent: Silent) -> None:
    """Connection, file and memory are given back, of a link as of a ZIP; the link works on."""
    agent = impatient.make_agent()
    row = send_file(impatient, agent)
    zip_url = f"{impatient.base_url}/api/v1/conversations/by-id/silence/attachments/zip/"
    assert impatient.ask("GET", "/healthz").status == 200
    before = n_open(impatient)
    for _ in range(20):
        silent(row["file_url"])
    for _ in range(5):
        silent(zip_url, agent.read_key)
    wait_until(lambda: n_open_files(impatient) >= 25)
    wait_until(lambda: n_open(impatient) <= before + 1)
    assert open_link(row["file_url"]).body == bytes(FILE_BYTES)


@pytest.mark.sqlite_will_do
def test_too_many_zips_of_one_agent_wait_for_their_turn(server: LiveServer) -> None:
    """The ninth is told to come again, another agent's begins, and so does the next afterwards."""
    agent, other = server.make_agent(), server.make_stranger()
    send_file(server, agent)
    send_file(server, other)
    path = "/api/v1/conversations/by-id/silence/attachments/zip/"
    with silent_clients() as silent:
        for _ in range(8):
            silent(server.base_url + path, agent.read_key)
        wait_until(lambda: n_open_files(server) == 8)
        refused = server.ask("GET", path, key=agent.read_key)
        assert (refused.status, json.loads(refused.body)["code"]) == (503, "busy")
        assert refused.headers["retry-after"]
        assert server.ask("GET", path, key=other.read_key).status == 200
    wait_until(lambda: server.ask("GET", path, key=agent.read_key).status == 200)


def test_as_many_files_may_be_open_as_the_system_allows(impatient: LiveServer) -> None:
    """A shell's 1,024 would be used up by some hundred readers."""
    limits = Path(f"/proc/{impatient.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert int(soft) == min(int(hard), 65_536)
