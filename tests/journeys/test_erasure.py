"""Erasure with a real server: killed half-way, restored from a backup, resent by the client."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

from agentsight import ConversationTracker
from tests.journeys.conftest import StartServer
from tests.journeys.test_crash import BATCH, batch_of
from tests.support.raw_sql import read_rows
from tests.support.server import Agent, LiveServer, open_link

CONVERSATIONS = "/api/v1/conversations/"
N_MESSAGES = 6_000
PATIENCE_S = 60


def objects(server: LiveServer) -> set[str]:
    """Return the files' objects in the server's store."""
    root = server.data_dir / "files" / "blobs"
    return {path.name for path in root.rglob("*") if path.is_file()}


def erase(server: LiveServer, agent: Agent, conversation_id: str) -> Any:
    """Erase a conversation and return its receipt."""
    path = f"{CONVERSATIONS}by-id/{conversation_id}/?erase=true"
    answer = server.ask("DELETE", path, key=agent.write_key)
    assert answer.status in (200, 202), answer
    return answer.json


def wait_until_complete(server: LiveServer, agent: Agent, uid: str) -> Any:
    """Ask for a receipt until it is complete."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        receipt = server.get_json(f"/api/v1/receipts/{uid}/", key=agent.read_key)
        if receipt["state"] == "complete":
            return receipt
        assert time.monotonic() < deadline, receipt


def test_an_erasure_that_was_killed_is_finished_by_the_next_start(
    start_server: StartServer,
) -> None:
    """Whatever was done when the process died, nothing is left in the end; all is counted once."""
    server = start_server()
    agent = server.make_agent()
    items = [
        {"type": "message", "content": f"m {n}", "item_key": f"k{n}",
         "timestamp": "2026-01-01T00:00:00Z"}
        for n in range(N_MESSAGES)
    ]  # fmt: skip
    body = {"conversation": {"conversation_id": "long"}, "items": items}
    assert server.post_json(BATCH, body, key=agent.write_key).status == 200
    for n in range(20):
        assert server.post_json(BATCH, batch_of("long", n), key=agent.write_key).status == 200
    thread = threading.Thread(target=_erase_and_be_cut, args=(server, agent))
    thread.start()
    uid = _wait_for_receipt(server)
    server.kill()
    thread.join()
    server.start()
    receipt = wait_until_complete(server, agent, uid)
    rows = receipt["removed"]["rows"]
    assert (rows["messages"], rows["attachments"], rows["blobs"]) == (N_MESSAGES + 60, 20, 20)
    assert (rows["conversations"], receipt["removed"]["objects"]) == (1, 20)
    assert objects(server) == set()
    late = server.post_json(BATCH, batch_of("long", 3), key=agent.write_key).json
    assert {item["status"] for item in late["items"]} == {"erased"}


def _erase_and_be_cut(server: LiveServer, agent: Agent) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # the kill
        server.ask("DELETE", f"{CONVERSATIONS}by-id/long/?erase=true", key=agent.write_key)


def _wait_for_receipt(server: LiveServer) -> str:
    """Return the erasure's uid as soon as its first unit is committed."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        rows = read_rows(server.database_url, "SELECT uid FROM receipts")
        if rows:
            return rows[0][0]
    raise AssertionError("no erasure has begun")


def test_a_restored_backup_does_not_bring_back_what_was_erased(tmp_path: Path) -> None:
    """A real copy of the database of before; the server erases it again before it answers."""
    with LiveServer(tmp_path) as server:
        agent = server.make_agent()
        for name in ("gone", "stays"):
            answer = server.post_json(BATCH, batch_of(name, 1), key=agent.write_key)
            assert answer.status == 200
        kept = answer.json["items"][0]["attachments"][0]["file_url"]
        database = server.data_dir / "agentsight.db"
        backup = tmp_path / "backup.db"
        with sqlite3.connect(database) as source, sqlite3.connect(backup) as target:
            source.backup(target)
        source.close()
        target.close()
        receipt = erase(server, agent, "gone")
        wait_until_complete(server, agent, receipt["uid"])
        server.stop()
        for path in server.data_dir.glob("agentsight.db*"):
            path.unlink()
        shutil.copyfile(backup, database)
        mark = server.log_mark()
        server.start()
        assert "erased again 1 conversations" in server.log_since(mark)
        gone = server.ask(
            "GET", "/api/conversations/lookup/?conversation_id=gone", key=agent.read_key
        )
        assert gone.status == 404
        listed = server.get_json("/api/conversations/", key=agent.read_key)
        assert [row["conversation_id"] for row in listed["results"]] == ["stays"]
        assert open_link(kept).status == 200
        late = server.post_json(BATCH, batch_of("gone", 1), key=agent.write_key).json
        assert {item["status"] for item in late["items"]} == {"erased"}
        server.stop()
        mark = server.log_mark()
        server.start()
        assert "erased again" not in server.log_since(mark)


def test_the_client_takes_erased_for_delivered(start_server: StartServer) -> None:
    """What it kept while its conversation was erased is given up, and what follows is stored."""
    server = start_server()
    agent = server.make_agent()
    with ConversationTracker(agent.write_key, endpoint=server.base_url) as tracker:
        tracker.get_or_create_conversation("c", customer_id="jane")
        tracker.track_human_message("first")
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
        tracker.track_human_message("tracked before, sent after")
        wait_until_complete(server, agent, erase(server, agent, "c")["uid"])
        report = tracker.send_tracked_data()
        assert (report["summary"]["errors"], tracker.n_waiting) == (0, 0)
        listed = server.get_json("/api/conversations/", key=agent.read_key)
        assert listed["count"] == 0
        tracker.track_human_message("new")
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
    listed = server.get_json("/api/conversations/", key=agent.read_key)
    assert [m["content"] for m in listed["results"][0]["messages"]] == ["new"]
