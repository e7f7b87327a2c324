"""A server of two processes with a real ClamAV: scanned, refused, blocked, erased, and counted."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import run_command
from tests.journeys.dialogues import FILES
from tests.journeys.test_object_storage import wait_until
from tests.journeys.test_workers import at_once
from tests.support.clamav import EICAR, find_clamd, real_clamd
from tests.support.server import Agent, LiveServer, open_link

N_LOOKS = 8


def send(server: LiveServer, agent: Agent, **contents: bytes) -> dict[str, Any]:
    """Send files by multipart in one message; return their rows by name."""
    rows = {}
    for name, content in contents.items():
        body = {"filename": f"{name}.txt", "size_bytes": len(content)}
        made = server.post_json("/api/v1/uploads/", body, key=agent.write_key).json
        sent = server.ask("PUT", made["upload_url"], key=agent.write_key, body=content)
        assert sent.status == 200, sent
        item = {"type": "attachments", "attachments": [{"upload": made["uid"]}]}
        batch = {"conversation": {"conversation_id": "c"}, "items": [item]}
        answer = server.post_json("/api/v1/batch/", batch, key=agent.write_key)
        [rows[name]] = answer.json["items"][0]["attachments"]
    return rows


def numbers(server: LiveServer) -> dict[str, float]:
    """Ask either worker for the sums of both."""
    lines = server.ask("GET", "/metrics").body.decode().splitlines()
    told = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name.removeprefix("agentsight_"): float(value) for name, _, value in told}


@pytest.mark.skipif(find_clamd() is None, reason="clamd cannot be installed here")
def test_two_workers_scan_refuse_and_count_together(tmp_path: Path) -> None:
    """An infected file and a blocked one are refused by both workers; /metrics adds all up."""
    program = find_clamd()
    assert program is not None
    (tmp_path / "clamd").mkdir()
    with (
        real_clamd(program, tmp_path / "clamd") as address,
        LiveServer(tmp_path, settings={"AGENTSIGHT_CLAMD": address}, workers=2) as server,
    ):
        agent, blocked = server.make_agent(), os.urandom(100)
        picture = (FILES / "sample.png").read_bytes()
        rows = send(server, agent, bad=EICAR, fine=b"fine", blocked=blocked, picture=picture)

        def scan_of(name: str) -> str:
            path = f"/api/v1/attachments/{rows[name]['uid']}/"
            return str(server.get_json(path, key=agent.read_key)["scan"])

        wait_until(lambda: "not_scanned" not in {scan_of(name) for name in rows})
        assert [scan_of(name) for name in rows] == ["infected", "clean", "clean", "clean"]
        sha256 = hashlib.sha256(blocked).hexdigest()
        data = ("--data", str(server.data_dir))
        done = run_command("quarantine", "add", sha256, "--reason", "x", *data)
        assert done.returncode == 0, done.stderr
        preview = rows["picture"]["file_url"].rpartition("/")[0] + "/preview/512.webp"

        def look(_: int) -> list[int]:
            urls = [*(rows[name]["file_url"] for name in ("bad", "fine", "blocked")), preview]
            return [open_link(url).status for url in urls]

        assert at_once(N_LOOKS, look) == [[403, 200, 403, 200]] * N_LOOKS
        refused = open_link(rows["bad"]["file_url"])
        assert (refused.status, refused.json["code"]) == (403, "infected")
        path = f"/api/v1/attachments/{rows['fine']['uid']}/?erase=true"
        assert server.ask("DELETE", path, key=agent.write_key).status == 200
        told = at_once(N_LOOKS, lambda _: numbers(server))
        expected = {
            'scans_total{result="clean"}': 3,
            'scans_total{result="infected"}': 1,
            'links_refused_total{reason="infected"}': N_LOOKS + 1,
            'links_refused_total{reason="quarantined"}': N_LOOKS,
            "erasures_total": 1,
            "uploads_total": 4,
            "files_served_total": 2 * N_LOOKS,
            "workers": 2,
        }
        for one in told:
            assert {name: one[name] for name in expected} == expected
            assert 1 <= one['previews_total{kind="thumbnail"}'] <= N_LOOKS
