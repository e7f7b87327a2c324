"""Uploads over real connections: a stock client, plain PUT, cuts, crashes, many at once."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from agentsight import _contract as contract
from agentsight.server.db import open_database, sql
from tests.journeys.conftest import StartServer
from tests.support.server import Agent, Answer, LiveServer, open_link
from tests.support.soak import only_in_soak

MIB = 1 << 20
DEADLINE_S = 60
OFFSET_TYPE = "application/offset+octet-stream"


def announce(server: LiveServer, agent: Agent, data: bytes, **fields: Any) -> Any:
    """Announce bytes and return what the server says."""
    sha256 = hashlib.sha256(data).hexdigest()
    body = {"filename": "film.bin", "size_bytes": len(data), "sha256": sha256} | fields
    answer = server.post_json(contract.UPLOADS_PATH, body, key=agent.write_key)
    assert answer.status in (200, 201), answer
    return answer.json


def refer(server: LiveServer, agent: Agent, uid: str) -> Any:
    """Store a message with the upload, and return its file's row."""
    item = {"type": "attachments", "attachments": [{"upload": uid}]}
    body = {"conversation": {"conversation_id": "films"}, "items": [item]}
    answer = server.post_json(contract.BATCH_PATH, body, key=agent.write_key)
    assert answer.status == 200, answer
    return answer.json["items"][0]["attachments"][0]


def send(
    server: LiveServer, agent: Agent, url: str, offset: int, data: bytes, method: str = "PATCH"
) -> Answer:
    """Send bytes from `offset` on."""
    headers = {"Content-Type": OFFSET_TYPE, "Upload-Offset": str(offset)}
    return server.ask(method, url, key=agent.write_key, body=data, headers=headers)


def offset_of(server: LiveServer, agent: Agent, url: str) -> int:
    """Ask where to go on; whoever still sends is stopped."""
    answer = server.ask("HEAD", url, key=agent.write_key)
    assert answer.status == 200, answer
    return int(answer.headers["upload-offset"])


def wait_for_offset(server: LiveServer, agent: Agent, url: str, least: int) -> int:
    """Look until so many bytes are safe."""
    deadline = time.monotonic() + DEADLINE_S
    path = urlsplit(url).path
    while (offset := server.get_json(path, key=agent.write_key)["offset"]) < least:
        assert time.monotonic() < deadline, f"only {offset} bytes are safe"
    return int(offset)


async def wait_for_lease(server: LiveServer, url: str) -> None:
    """Wait until a request writes this upload."""
    statement = sql("SELECT lease FROM uploads WHERE uid = $1")
    deadline = time.monotonic() + DEADLINE_S
    async with await open_database(server.database_url) as db:
        while await db.read(lambda tx: tx.value(statement, url.split("/")[-2])) is None:
            assert time.monotonic() < deadline, "nobody writes"


@contextlib.contextmanager
def half_sent(server: LiveServer, agent: Agent, url: str, data: bytes, n_sent: int) -> Any:
    """Keep a connection open that has sent a part of its PATCH."""
    parts = urlsplit(server.base_url)
    lines = [
        f"PATCH {urlsplit(url).path} HTTP/1.1", f"Host: {parts.netloc}",
        f"Authorization: Api-Key {agent.write_key}", f"Content-Type: {OFFSET_TYPE}",
        "Upload-Offset: 0", f"Content-Length: {len(data)}", "", "",
    ]  # fmt: skip
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode() + data[:n_sent])
        yield connection


# --- Other people's clients -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 1])
def test_a_stock_tus_client_uploads(server: LiveServer, size: int) -> None:
    """`tuspy` announces, sends in chunks and verifies offsets, as it does with any server."""
    agent, data = server.make_agent(), os.urandom(size)
    client = TusClient(
        server.base_url + contract.UPLOADS_PATH,
        headers={"Authorization": f"Api-Key {agent.write_key}"},
    )
    metadata = {"filename": "grüße.txt", "filetype": "text/plain"}
    uploader = client.uploader(file_stream=io.BytesIO(data), chunk_size=MIB, metadata=metadata)
    uploader.upload()
    if size == 0:  # it sends nothing of an empty file, not even the announcement
        return
    uid = str(uploader.url).rstrip("/").rpartition("/")[2]
    row = refer(server, agent, uid)
    assert (row["filename"], row["mime_type"]) == ("grüße.txt", "text/plain")
    assert open_link(row["file_url"]).body == data


def test_a_stock_tus_client_goes_on_where_it_was_cut(server: LiveServer) -> None:
    """A new uploader with the old address asks for the offset and sends the rest only."""
    agent, data = server.make_agent(), os.urandom(2 * MIB)
    headers = {"Authorization": f"Api-Key {agent.write_key}"}
    client = TusClient(server.base_url + contract.UPLOADS_PATH, headers=headers)
    first = client.uploader(file_stream=io.BytesIO(data), chunk_size=MIB // 2)
    first.upload_chunk()
    again = client.uploader(file_stream=io.BytesIO(data), chunk_size=MIB // 2, url=first.url)
    assert again.offset == MIB // 2
    again.upload()
    row = refer(server, agent, str(first.url).rstrip("/").rpartition("/")[2])
    assert open_link(row["file_url"]).body == data
    bad = TusClient(server.base_url + contract.UPLOADS_PATH, headers={"Authorization": "Api-Key x"})
    with pytest.raises(TusCommunicationError):
        bad.uploader(file_stream=io.BytesIO(data)).upload()


def test_two_requests_of_plain_http_are_enough(server: LiveServer) -> None:
    """One POST, one PUT, as `curl` makes them; the second time the POST alone."""
    agent, data = server.make_agent(), os.urandom(300_000)
    told = announce(server, agent, data)
    answer = server.ask("PUT", told["upload_url"], key=agent.write_key, body=data)
    assert (answer.status, answer.json["state"]) == (200, "stored")
    again = announce(server, agent, data)
    assert (again["state"], again["upload_url"]) == ("stored", None)
    for uid in (told["uid"], again["uid"]):
        assert open_link(refer(server, agent, uid)["file_url"]).body == data


@pytest.mark.parametrize("name", ["scan.bin", "Ärger & Söhne 50%.bin", "a?b#c.bin"])
def test_curl_sends_a_file_to_the_address_it_was_told(
    server: LiveServer, tmp_path: Path, name: str
) -> None:
    """`curl -T` puts the file's name behind an address that ends in a slash."""
    agent, data = server.make_agent(), os.urandom(100_000)
    told = announce(server, agent, data)
    (tmp_path / name).write_bytes(data)
    authorization = f"Authorization: Api-Key {agent.write_key}"
    command = ["curl", "-sS", "--fail", "-T", name, "-H", authorization, told["upload_url"]]
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    assert json.loads(said)["state"] == "stored"
    assert open_link(refer(server, agent, told["uid"])["file_url"]).body == data


# --- What goes wrong ------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed(server: LiveServer) -> None:
    """The first answer tells all that came before the cut, and the rest is taken at once."""
    agent, data = server.make_agent(), os.urandom(4 * MIB)
    url = announce(server, agent, data)["upload_url"]
    with half_sent(server, agent, url, data, 3 * MIB):
        wait_for_offset(server, agent, url, 1)
    offset = offset_of(server, agent, url)
    assert 0 < offset <= 3 * MIB
    assert send(server, agent, url, offset, data[offset:]).status == 204
    row = refer(server, agent, url.split("/")[-2])
    assert open_link(row["file_url"]).body == data


@pytest.mark.anyio
@pytest.mark.parametrize("n_workers", [pytest.param(1, marks=only_in_soak), 2])
async def test_two_writers_at_once_never_mix(start_server: StartServer, n_workers: int) -> None:
    """The newer one takes over from a connection that hangs, in whatever process that is, and the
    older one, when it comes to life again, changes nothing.
    """
    server = start_server(n_workers)
    agent, data = server.make_agent(), os.urandom(2 * MIB)
    for _ in range(3 if n_workers > 1 else 1):  # the kernel chooses who of the workers is asked
        url = announce(server, agent, data, sha256=None)["upload_url"]
        with half_sent(server, agent, url, data, MIB) as connection:
            await wait_for_lease(server, url)
            offset = offset_of(server, agent, url)
            assert 0 < offset <= MIB
            connection.sendall(os.urandom(MIB))
            assert send(server, agent, url, offset, data[offset:]).status == 204
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert response.status == 409
        row = refer(server, agent, url.split("/")[-2])
        assert open_link(row["file_url"]).body == data


@pytest.mark.anyio
async def test_a_crash_in_the_middle_costs_a_few_megabytes(start_server: StartServer) -> None:
    """After SIGKILL and a restart the upload stands at what was synced, and goes on from there."""
    server = start_server()
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
    assert 8 * MIB <= offset < len(data)
    assert send(server, agent, url, offset, data[offset:]).status == 204
    assert open_link(refer(server, agent, url.split("/")[-2])["file_url"]).body == data


def test_sixty_four_at_once(server: LiveServer) -> None:
    """All are stored, each with its own bytes; equal ones are stored once."""
    agent = server.make_agent()
    contents = [os.urandom(512 * 1024) for _ in range(56)] + [os.urandom(512 * 1024)] * 8

    def bring(data: bytes) -> str:
        url = announce(server, agent, data)["upload_url"]
        if url is None:  # somebody else's equal bytes were quicker
            return "stored"
        answer = send(server, agent, url, 0, data, "PUT")
        assert answer.status == 200, answer
        return str(answer.json["sha256"])

    with ThreadPoolExecutor(64) as pool:
        hashes = list(pool.map(bring, contents))
    assert {hashlib.sha256(c).hexdigest() for c in contents} == set(hashes) - {"stored"}
    usage = server.get_json(contract.STORAGE_USAGE_PATH, key=agent.write_key)
    assert (usage["blobs"], usage["stored_bytes"]) == (57, 57 * 512 * 1024)
    assert usage["pending"]["uploads"] == 0
