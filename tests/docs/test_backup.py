"""The order of a backup that `docs/self-hosting.md` asks for, and why: seen, not argued."""

from __future__ import annotations

import base64
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.server import Agent, LiveServer


def _store_file(server: LiveServer, agent: Agent, name: str) -> str:
    """Store a file of its own content; return its link's path."""
    data = base64.b64encode(f"the bytes of {name}".encode()).decode()
    body = {"conversation_id": "c", "attachments": [{"filename": name, "data": data}]}
    answer = server.post_json("/api/attachments/", body, key=agent.write_key)
    assert answer.status == 201, answer
    return urlsplit(answer.json["attachments"][0]["file_url"]).path


def _copy_database(server: LiveServer, to: Path) -> None:
    with sqlite3.connect(to / "agentsight.db") as copy:
        source = sqlite3.connect(f"file:{server.data_dir / 'agentsight.db'}?mode=ro", uri=True)
        source.backup(copy)
        source.close()
    copy.close()


def _copy_files(server: LiveServer, to: Path) -> None:
    shutil.copytree(server.data_dir / "files", to / "files")


def _directory(path: Path) -> Path:
    (path / "data").mkdir(parents=True)
    return path / "data"


@pytest.mark.slow
def test_a_backup_is_whole_when_the_database_is_copied_before_the_files(tmp_path: Path) -> None:
    """Files that come between the two steps cost nothing one way, and are broken the other way."""
    good, bad = _directory(tmp_path / "good"), _directory(tmp_path / "bad")
    with LiveServer(tmp_path) as server:
        agent = server.make_agent()
        first = _store_file(server, agent, "first.txt")
        _copy_database(server, good)
        _copy_files(server, bad)
        between = _store_file(server, agent, "between.txt")
        _copy_files(server, good)
        _copy_database(server, bad)
    with LiveServer(tmp_path / "good") as restored:
        assert restored.ask("GET", first).body == b"the bytes of first.txt"
        assert restored.ask("GET", between).status == 404, "its row is not in the copy"
        files = restored.get_json("/api/conversations/1/attachments/", key=agent.read_key)
        assert files["total_attachments"] == 1
    with LiveServer(tmp_path / "bad") as restored:
        assert restored.ask("GET", first).body == b"the bytes of first.txt"
        assert restored.ask("GET", between).status == 410, "a row whose bytes are not in the copy"
