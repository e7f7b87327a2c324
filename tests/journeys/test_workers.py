"""Several processes on one database: what one has answered, the others know."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from agentsight import AgentSightAPI, ConversationTracker
from tests.journeys.conftest import StartServer
from tests.journeys.dialogues import FILES, contents_of, load_dialogues, track
from tests.support.postgres import TestDatabases
from tests.support.server import LiveServer, open_link
from tests.support.soak import IS_SOAK

T = TypeVar("T")
N_BOTS = 6
N_TOGETHER = 10 if IS_SOAK else 5


def at_once(n: int, work: Callable[[int], T]) -> list[T]:
    """Run `work` in n threads that begin together."""
    barrier = threading.Barrier(n)

    def run(index: int) -> T:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, range(n)))


def children(pid: int) -> list[int]:
    """Return the serving processes of a server that was started with many."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in command:
            found.append(int(child))
    return found


def test_many_bots_on_two_workers(start_server: StartServer) -> None:
    """Six bots at once; every transcript and file is there, whoever is asked."""
    server = start_server(workers=2)
    assert len(children(server.pid)) == 2
    agent = server.make_agent()
    dialogues = load_dialogues()
    files = [FILES / "sample.png", FILES / "note.txt"]

    def be_a_bot(bot: int) -> None:
        with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
            for number, dialogue in enumerate(dialogues):
                track(tracker, dialogue, files, f"bot-{bot}-{number}")
                assert tracker.send_tracked_data()["summary"]["errors"] == 0

    at_once(N_BOTS, be_a_bot)

    def be_a_reader(bot: int) -> None:
        with AgentSightAPI(agent.read_key, endpoint=server.base_url) as api:
            assert api.fetch_conversations()["count"] == N_BOTS * len(dialogues)
            for number, dialogue in enumerate(dialogues):
                conversation = api.fetch_conversation(f"bot-{bot}-{number}")
                got = [(m["sender"], m["content"]) for m in conversation["messages"]]
                assert got == contents_of(dialogue)
                answer = api.fetch_conversation_attachments(conversation["id"])
                for path, file in zip(files, answer["attachments"], strict=True):
                    assert open_link(file["file_url"]).body == path.read_bytes()

    at_once(N_BOTS, be_a_reader)


def test_all_who_open_a_conversation_at_once_get_the_same(start_server: StartServer) -> None:
    """One row, one id, one 201."""
    server = start_server(workers=2)
    agent = server.make_agent()
    body = {"conversation_id": "race", "is_used": True, "metadata": {"a": 1}}
    answers = at_once(
        12, lambda _: server.post_json("/api/conversations/", body, key=agent.write_key)
    )
    assert {answer.json["id"] for answer in answers} == {answers[0].json["id"]}
    assert sorted(answer.status for answer in answers) == [200] * 11 + [201]
    listed = server.get_json("/api/conversations/", key=agent.read_key)
    assert (listed["count"], len(listed["results"])) == (1, 1)


def test_what_all_send_at_once_is_stored_once(start_server: StartServer) -> None:
    """The same body by twelve connections: one message, one file."""
    server = start_server(workers=2)
    agent = server.make_agent()
    body = {
        "conversation_id": "echo",
        "timestamp": "2026-01-01T00:00:00Z",
        "sender": "end_user",
        "metadata": {},
        "attachments": [{"filename": "a.txt", "mime_type": "text/plain", "data": "aGVsbG8="}],
    }
    answers = at_once(
        12, lambda _: server.post_json("/api/attachments/", body, key=agent.write_key)
    )
    assert {answer.status for answer in answers} == {200, 201}
    assert len({answer.json["message"] for answer in answers}) == 1
    assert len({answer.json["attachments"][0]["id"] for answer in answers}) == 1


@pytest.mark.sqlite_will_do
def test_a_worker_that_dies_is_not_missed(start_server: StartServer) -> None:
    """The other one answers, and has all that was answered before."""
    server = start_server(workers=2)
    agent = server.make_agent()
    for number in range(10):
        body = {"conversation_id": f"c{number}"}
        assert server.post_json("/api/conversations/", body, key=agent.write_key).status == 201
    os.kill(children(server.pid)[0], signal.SIGKILL)
    for number in range(10, 20):
        body = {"conversation_id": f"c{number}"}
        assert server.post_json("/api/conversations/", body, key=agent.write_key).status == 201
    assert server.get_json("/api/conversations/", key=agent.read_key)["count"] == 20


@pytest.mark.sqlite_will_do
def test_a_worker_that_hangs_does_not_keep_a_dead_one_from_being_replaced(
    start_server: StartServer,
) -> None:
    """Nobody waits for an answer of the one to look after the other."""
    server = start_server(workers=2)
    agent = server.make_agent()
    hanging, dying = children(server.pid)
    os.kill(hanging, signal.SIGSTOP)
    try:
        os.kill(dying, signal.SIGKILL)
        body = {"conversation_id": "c"}  # it waits in the listener's queue for the new worker
        assert server.post_json("/api/conversations/", body, key=agent.write_key).status == 201
    finally:
        os.kill(hanging, signal.SIGCONT)


@pytest.mark.slow
def test_servers_started_together_make_one_instance(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One schema, one organisation, one first key; and each of them serves."""
    url: str | None = None
    if dialect == "postgresql":
        databases: TestDatabases = request.getfixturevalue("postgres_databases")
        url = databases.create_empty("together")
    fleet = [LiveServer(tmp_path, url) for _ in range(N_TOGETHER)]
    try:
        for server in fleet:
            server.begin_start()
        for server in fleet:
            server.wait_until_ready()
        agent = fleet[0].make_agent()
        for number, server in enumerate(fleet):
            body = {"conversation_id": f"c{number}"}
            assert server.post_json("/api/conversations/", body, key=agent.write_key).status == 201
        for server in fleet:
            assert server.get_json("/api/conversations/", key=agent.read_key)["count"] == N_TOGETHER
        log = fleet[0].log_since(0)
        assert log.count("database: created") == 1
        assert log.count("first start:") == 1
    finally:
        for server in fleet:
            server.stop()
        print(fleet[0].log_since(0))
