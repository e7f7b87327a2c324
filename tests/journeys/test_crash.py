"""Crashes: what was answered is on the disk, what was not is sent again, and nothing is twice."""

from __future__ import annotations

import base64
import http.client
import threading
import time
import uuid
from typing import Any

from agentsight import AgentSightAPI, ConversationTracker
from agentsight._base import Runtime
from tests.journeys.conftest import StartServer
from tests.journeys.dialogues import FILES, contents_of, load_dialogues, track
from tests.support.server import Agent, LiveServer, open_link

N_WRITERS = 4
N_ANSWERED = 40
BATCH = "/api/v1/batch/"


def batch_of(conversation_id: str, number: int) -> dict[str, Any]:
    """Make one batch: a question with a file, an action, an answer."""
    content = f"{conversation_id} file {number}".encode() * 100
    file = {"filename": f"{number}.txt", "data": base64.b64encode(content).decode()}
    at = f"2026-01-01T00:{number // 60:02}:{number % 60:02}"
    items = [
        {"type": "message", "sender": "end_user", "content": f"question {number}",
         "timestamp": f"{at}.1Z", "attachments": [{**file, "item_key": str(uuid.uuid4())}]},
        {"type": "action", "action_name": f"action {number}", "timestamp": f"{at}.2Z"},
        {"type": "message", "sender": "agent", "content": f"answer {number}",
         "timestamp": f"{at}.3Z"},
    ]  # fmt: skip
    keyed = [{**item, "item_key": str(uuid.uuid4())} for item in items]
    return {"conversation": {"conversation_id": conversation_id}, "items": keyed}


class Writers:
    """Threads that send batch after batch until the server is gone."""

    def __init__(self, server: LiveServer, agent: Agent) -> None:
        self.sent: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.unexpected: list[object] = []
        self._server, self._agent = server, agent
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(N_WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, writer: int) -> None:
        number = 0
        while True:
            batch = batch_of(f"writer-{writer}", number)
            self.sent.append(batch)
            try:
                answer = self._server.post_json(BATCH, batch, key=self._agent.write_key)
            except (OSError, http.client.HTTPException):
                return  # the crash
            if answer.status != 200:
                self.unexpected.append(answer)
                return
            self.answered.append(batch)
            number += 1
            if len(self.answered) >= N_ANSWERED:
                self._enough.set()

    def crash_in_full_swing(self) -> None:
        """Kill the server when enough was answered, while the threads go on sending."""
        assert self._enough.wait(timeout=60)
        self._server.kill()
        for thread in self._threads:
            thread.join(timeout=60)
        assert self.unexpected == []


def transcripts(server: LiveServer, agent: Agent) -> dict[str, list[str]]:
    """Read what the server has, by conversation."""
    listed = server.get_json("/api/conversations/?page_size=100", key=agent.read_key)
    return {
        row["conversation_id"]: [message["content"] for message in row["messages"]]
        for row in listed["results"]
    }


def contents(batch: dict[str, Any]) -> list[str]:
    number = batch["items"][0]["content"].removeprefix("question ")
    return [f"question {number}", f"Action action {number} performed", f"answer {number}"]


def test_what_was_answered_is_there_after_kill_9(start_server: StartServer) -> None:
    """Whole batches, with the bytes of their files; and no half of one that was not answered."""
    server = start_server()
    agent = server.make_agent()
    writers = Writers(server, agent)
    writers.crash_in_full_swing()
    server.start()
    kept = transcripts(server, agent)
    for batch in writers.answered:
        there = kept[batch["conversation"]["conversation_id"]]
        assert set(contents(batch)) <= set(there)
    for batch in writers.sent:
        there = kept.get(batch["conversation"]["conversation_id"], [])
        assert len(set(contents(batch)) & set(there)) in (0, 3)
    for conversation_id in kept:
        found = server.get_json(
            f"/api/conversations/lookup/?conversation_id={conversation_id}", key=agent.read_key
        )
        path = f"/api/conversations/{found['id']}/attachments/"
        for file in server.get_json(path, key=agent.read_key)["attachments"]:
            number = file["filename"].removesuffix(".txt")
            content = f"{conversation_id} file {number}".encode() * 100
            assert open_link(file["file_url"]).body == content


def test_sending_everything_again_after_a_crash_makes_everything_once(
    start_server: StartServer,
) -> None:
    """What was answered is known, what was not is stored now."""
    server = start_server()
    agent = server.make_agent()
    writers = Writers(server, agent)
    writers.crash_in_full_swing()
    server.start()
    for batch in writers.sent:
        answer = server.post_json(BATCH, batch, key=agent.write_key)
        assert answer.status == 200, answer
        if batch in writers.answered:
            assert [item["status"] for item in answer.json["items"]] == ["repeated"] * 3
    kept = transcripts(server, agent)
    for conversation_id, there in kept.items():
        sent = [b for b in writers.sent if b["conversation"]["conversation_id"] == conversation_id]
        assert there == [text for batch in sent for text in contents(batch)]


def test_a_bot_outlives_its_server(start_server: StartServer) -> None:
    """The client keeps what it could not deliver, and delivers it once when the server is back."""
    server = start_server()
    agent = server.make_agent()
    first, second = load_dialogues()[:2]
    files = [FILES / "sample.png", FILES / "sample.pdf"]
    with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
        tracker.runtime = Runtime(sleep=lambda seconds: None)
        track(tracker, first, files)
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
        server.kill()
        track(tracker, second, files)
        n_tracked = tracker.n_waiting
        assert n_tracked == tracker.send_tracked_data()["summary"]["errors"]
        assert tracker.n_waiting == n_tracked
        server.start()
        [report] = tracker.flush().values()  # a send would leave the server alone for 5 s
        assert report["summary"]["errors"] == 0
        assert tracker.n_waiting == 0
    with AgentSightAPI(agent.read_key, endpoint=server.base_url) as api:
        for dialogue in (first, second):
            conversation = api.fetch_conversation(dialogue["conversation_id"])
            got = [(m["sender"], m["content"]) for m in conversation["messages"]]
            assert got == contents_of(dialogue)
            answer = api.fetch_conversation_attachments(dialogue["conversation_id"])
            for path, file in zip(files, answer["attachments"], strict=True):
                assert open_link(file["file_url"]).body == path.read_bytes()


def test_links_of_before_open_after_a_restart(start_server: StartServer) -> None:
    """A link is good for its week, whatever happens to the process that made it."""
    server = start_server()
    agent = server.make_agent()
    batch = batch_of("links", 0)
    (message, *_) = server.post_json(BATCH, batch, key=agent.write_key).json["items"]
    url = message["attachments"][0]["file_url"]
    before = open_link(url)
    server.kill()
    server.start()
    assert open_link(url).body == before.body == b"links file 0" * 100


def test_a_stop_in_order_ends_with_0_and_leaves_nothing(start_server: StartServer) -> None:
    """SIGTERM: answers under way end, the process says that it went well."""
    server = start_server()
    agent = server.make_agent()
    assert server.post_json(BATCH, batch_of("c", 0), key=agent.write_key).status == 200
    began = time.monotonic()
    assert server.stop() == 0
    print(f"stopped in {time.monotonic() - began:.2f} s")
    server.start()
    assert list(transcripts(server, agent)) == ["c"]
