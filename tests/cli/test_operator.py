"""What an operator runs beside the server: counters of all workers, the audit log, quarantine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from agentsight.server.agents.model import generate_key
from tests.cli.commands import Serving, run_command, serving

DATA = b"the operator's own file"


def call(server: Serving, path: str, key: str = "", value: object = None) -> tuple[int, bytes]:
    """Send one request on a connection of its own, so that any worker may get it."""
    headers = {"Authorization": f"Api-Key {key}", "Content-Type": "application/json"} if key else {}
    body = None if value is None else json.dumps(value).encode()
    url = path if path.startswith("http") else server.url + path
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def add_file(server: Serving, key: str) -> dict[str, Any]:
    """Store a file and return its row."""
    _, made = call(server, "/api/conversations/", key, {"conversation_id": "c"})
    file = {"filename": "a.txt", "data": base64.b64encode(DATA).decode()}
    body = {"conversation": json.loads(made)["id"], "attachments": [file]}
    status, answer = call(server, "/api/attachments/", key, body)
    assert status == 201, answer
    return json.loads(answer)["attachments"][0]


def numbers(server: Serving) -> dict[str, float]:
    """Ask for all counters of the server's own."""
    lines = call(server, "/metrics")[1].decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if line.startswith("agentsight_")]
    return {name: float(value) for name, _, value in pairs}


def test_counters_of_all_workers_add_up(tmp_path: Path) -> None:
    """Whichever worker is asked, it says the same; one that is killed takes nothing with it."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    key, n_links = generate_key(), 20
    with serving(
        "--data", str(tmp_path / "data"), "--workers", "2",
        AGENTSIGHT_INIT_KEY=key, TMPDIR=str(scratch),
    ) as server:  # fmt: skip
        file = add_file(server, key)
        for _ in range(n_links):
            assert call(server, file["file_url"]) == (200, DATA)
        [directory] = scratch.glob("agentsight-counters-*")
        assert directory.stat().st_mode & 0o077 == 0
        pids = [int(path.stem.rpartition("_")[2]) for path in directory.glob("counter_*.db")]
        workers = [pid for pid in pids if pid != server.process.pid]
        assert len(workers) == 2
        for _ in range(6):
            shown = numbers(server)
            assert shown["agentsight_uploads_total"] == 1
            assert shown["agentsight_files_served_total"] == n_links
            assert shown["agentsight_served_bytes_total"] == n_links * len(DATA)
            assert shown["agentsight_workers"] == 2
        os.kill(workers[0], signal.SIGKILL)
        assert numbers_in_the_end(server)["agentsight_files_served_total"] == n_links
        server.stop()
    assert list(scratch.glob("agentsight-counters-*")) == []


def numbers_in_the_end(server: Serving) -> dict[str, float]:
    """Ask until an answer comes: a worker that was killed may have taken the question with it."""
    for _ in range(20):
        try:
            return numbers(server)
        except (OSError, urllib.error.URLError):
            continue
    raise AssertionError("no answer")


def test_the_audit_log_and_the_quarantine(tmp_path: Path) -> None:
    """Who read a file is told after a stop, too; a hash is blocked while the server runs."""
    data, key = tmp_path / "data", generate_key()
    at, sha256 = ("--data", str(data)), hashlib.sha256(DATA).hexdigest()
    with serving(*at, AGENTSIGHT_INIT_KEY=key) as server:
        file = add_file(server, key)
        assert call(server, file["file_url"]) == (200, DATA)
        added = run_command("quarantine", "add", sha256.upper(), "--reason", "a leak", *at)
        assert (added.returncode, added.stdout) == (0, "")
        assert "1 agent has it" in added.stderr
        assert call(server, file["file_url"])[0] == 403
        [row] = json.loads(run_command("quarantine", "list", "--json", *at).stdout)
        assert (row["sha256"], row["reason"], row["agents"]) == (sha256, "a leak", 1)
        assert run_command("quarantine", "remove", sha256, *at).returncode == 0
        again = run_command("quarantine", "remove", sha256, *at)
        assert (again.returncode, "quarantine list" in again.stderr) == (1, True)
        assert call(server, file["file_url"]) == (200, DATA)
        server.stop()
    listed = run_command("audit", "list", "--subject", file["uid"], "--json", *at)
    records = json.loads(listed.stdout)
    assert {(r["who"], r["action"], r["what"]) for r in records} == {("link", "open", "attachment")}
    assert sum(r["n"] for r in records) == 2
    listed = run_command("audit", "list", "--subject", sha256, "--since", "2026-01-01", *at)
    records = [line.split() for line in listed.stdout.splitlines()[1:]]
    assert [record[3] for record in records] == ["release", "quarantine"]
    assert all("operator" in record for record in records)
    for words, said in (
        (("--since", "yesterday"), "--since 'yesterday': give a date or time like 2026-01-31"),
        (("--limit", "0"), "--limit: '0' is not a number from 1 on"),
        (("--limit", "-5"), "is not a number from 1 on"),
        (("--action", "foo"), "--action 'foo': give one of list, read, open"),
    ):
        wrong = run_command("audit", "list", *words, *at)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert said in wrong.stderr
    nobody = run_command("audit", "list", "--agent", "nobody", *at)
    assert (nobody.returncode, "no agent 'nobody'" in nobody.stderr) == (1, True)


def test_scans_need_a_daemon(tmp_path: Path) -> None:
    """Without one, queueing says what to set; with one, it says how many will be scanned."""
    data, key = tmp_path / "data", generate_key()
    at = ("--data", str(data))
    with serving(*at, AGENTSIGHT_INIT_KEY=key) as server:
        add_file(server, key)
    without = run_command("scans", "start", *at)
    assert (without.returncode, "AGENTSIGHT_CLAMD" in without.stderr) == (1, True)
    queued = run_command("scans", "start", *at, AGENTSIGHT_CLAMD="127.0.0.1:1")
    assert (queued.returncode, "1 file will be" in queued.stderr) == (0, True)
    listed = run_command("scans", "list", *at)
    assert listed.stdout.split() == [
        "AGENT", "SCAN", "DETAIL", "SIZE_BYTES", "ATTACHMENTS", "SHA256", "SCANNED_AT"
    ]  # fmt: skip
    doctor = run_command("doctor", *at, AGENTSIGHT_CLAMD="127.0.0.1:1")
    [line] = [text for text in doctor.stdout.splitlines() if " scans " in text]
    assert line.startswith("fail")
    assert "1 file waits to be scanned" in line


def test_previews_are_tried_again(tmp_path: Path) -> None:
    """Files that have all their type can have are left alone, but with --all."""
    data, key = tmp_path / "data", generate_key()
    at = ("--data", str(data))
    with serving(*at, AGENTSIGHT_INIT_KEY=key, AGENTSIGHT_EXAMINE="false") as server:
        add_file(server, key)
    without = run_command("previews", "retry", *at, AGENTSIGHT_EXAMINE="false")
    assert (without.returncode, "AGENTSIGHT_EXAMINE" in without.stderr) == (1, True)
    queued = run_command("previews", "retry", *at)
    assert (queued.returncode, "0 files will be" in queued.stderr) == (0, True), queued.stderr
    queued = run_command("previews", "retry", "--all", *at)
    assert (queued.returncode, "1 file will be" in queued.stderr) == (0, True), queued.stderr
