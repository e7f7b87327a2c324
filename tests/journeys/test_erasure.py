"""Erasure with a real server: killed half-way, restored from a backup, resent by the client."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentsight import ConversationTracker
from tests.cli.commands import run_command
from tests.journeys.conftest import StartServer
from tests.journeys.test_crash import BATCH, batch_of
from tests.journeys.test_object_storage import wait_until
from tests.support.postgres import TestDatabases
from tests.support.raw_sql import read_rows
from tests.support.server import Agent, LiveServer, open_link

CONVERSATIONS = "/api/v1/conversations/"
EARLY = "2026-01-01T00:00:00Z"
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


@dataclass(frozen=True)
class Postgres:
    """A running server on PostgreSQL, whose database may be kept aside and brought back."""

    server: LiveServer
    databases: TestDatabases

    def keep(self, name: str) -> None:
        """Stop the server and keep a copy of its database: what a restored dump is."""
        self.server.stop()
        self.databases.create_empty(name, template=self._name)
        self.server.start()

    def restore(self, name: str) -> str:
        """Put the kept database in the place of the server's; return what the start says."""
        self.server.stop()
        self.databases.drop(self.server.database_url)
        self.databases.create_empty(self._name, template=name)
        mark = self.server.log_mark()
        self.server.start()
        return self.server.log_since(mark)

    @property
    def _name(self) -> str:
        return self.server.database_url.rpartition("/")[2]

    def tables_with(self, text: str) -> set[str]:
        """Name all tables of which some row has a text in any of its columns."""
        url = self.server.database_url
        names = read_rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert len(names) > 25
        return {
            name
            for (name,) in names
            if read_rows(url, f"SELECT 1 FROM {name} t WHERE t::text LIKE '%{text}%' LIMIT 1")
        }


@pytest.fixture
def postgres(tmp_path: Path, postgres_databases: TestDatabases) -> Iterator[Postgres]:
    """Serve on a fresh PostgreSQL database."""
    url = postgres_databases.create_empty("restored")
    with LiveServer(tmp_path, url) as server:
        yield Postgres(server, postgres_databases)
        print(server.log_since(0))
    for name in ("restored_backup", "restored"):
        postgres_databases.drop(url.replace("restored", name))


def test_postgresql_forgets_a_customer_and_stays_so_when_it_is_restored(postgres: Postgres) -> None:
    """Gone from every table and every file; a restored database is erased again before it is
    served; what comes late is dropped; and the receipt says that pages wait for a vacuum.
    """
    server, mark = postgres.server, f"mk{uuid.uuid4().hex}"
    agent = server.make_agent()
    batch = marked_batch(mark)
    fill(server, agent, batch, mark)
    kept = batch_of("kept", 1)
    assert server.post_json(BATCH, kept, key=agent.write_key).status == 200
    full = {"conversations", "messages", "actions", "buttons", "usages", "attachments", "uploads"}
    full |= {"feedbacks", "blob_texts"}
    wait_until(lambda: postgres.tables_with(mark) >= full)
    postgres.keep("restored_backup")

    data = ("--data", str(server.data_dir), "--database-url", server.database_url)
    done = run_command("customers", "erase", mark, "--yes", *data)
    receipt = json.loads(done.stdout)
    assert (receipt["state"], receipt["copies"]["database"]) == ("complete", "until vacuum")
    assert postgres.tables_with(mark) == set()
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in files if mark.encode() in path.read_bytes()]

    assert "erased again 1 conversations" in postgres.restore("restored_backup")
    assert postgres.tables_with(mark) == set()
    late = server.post_json(BATCH, batch, key=agent.write_key).json
    assert {item["status"] for item in late["items"]} == {"erased"}
    assert postgres.tables_with(mark) == set()
    listed = server.get_json("/api/conversations/", key=agent.read_key)
    assert [row["conversation_id"] for row in listed["results"]] == ["kept"]


def marked_batch(mark: str) -> dict[str, Any]:
    """Make one of everything, with a mark wherever a text can stand."""
    file = {"filename": f"{mark}.txt", "metadata": {"m": mark}, "item_key": str(uuid.uuid4()),
            "data": base64.b64encode(f"{mark} inside".encode()).decode()}  # fmt: skip
    items: list[dict[str, Any]] = [
        {"type": "message", "content": mark, "author": mark, "metadata": {mark: mark},
         "attachments": [file]},
        {"type": "action", "action_name": mark, "response": mark, "tools_used": {"t": mark}},
        {"type": "button", "button_event": mark, "label": mark, "value": mark},
        {"type": "usage", "model": mark, "total_tokens": 1},
    ]  # fmt: skip
    keyed = [{"item_key": str(uuid.uuid4()), "timestamp": EARLY} | item for item in items]
    names = dict.fromkeys(("conversation_id", "customer_id", "name", "device"), mark)
    return {"conversation": names | {"metadata": {"a": mark}}, "items": keyed}


def fill(server: LiveServer, agent: Agent, batch: dict[str, Any], mark: str) -> None:
    """Send the batch, a feedback, and a file that was uploaded first."""
    content = f"{mark} by upload".encode()
    body = {"filename": f"{mark}.md", "size_bytes": len(content), "mime_type": f"text/x; x={mark}"}
    made = server.post_json("/api/v1/uploads/", body, key=agent.write_key).json
    sent = server.ask("PUT", made["upload_url"], key=agent.write_key, body=content)
    assert sent.status == 200, sent
    refers = {"type": "attachments", "attachments": [{"upload": made["uid"]}]}
    whole = {"conversation": batch["conversation"], "items": [*batch["items"], refers]}
    stored = server.post_json(BATCH, whole, key=agent.write_key)
    assert stored.status == 200, stored
    body = {"conversation": stored.json["conversation"], "sentiment": "negative", "comment": mark}
    answer = server.post_json("/api/conversation-feedbacks/", body, key=agent.write_key)
    assert answer.status == 201, answer


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
