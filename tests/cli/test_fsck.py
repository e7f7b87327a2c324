"""`agentsight fsck`: what it prints, and its exit codes, beside a running server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentsight.server.blobs import blob_key
from agentsight.server.ids import AgentId, new_uid
from tests.cli.commands import run_command, serving

pytestmark = pytest.mark.slow


def leave_orphan(data_dir: Path) -> Path:
    """Leave an object that no row names, as a crash between bytes and row does."""
    path = data_dir / "files" / blob_key(AgentId(1), new_uid(1))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"nobody's")
    return path


def test_it_says_what_is_wrong_and_mends_it_on_request(tmp_path: Path) -> None:
    """0 when all is well, 1 while something is wrong, 0 again once it is mended."""
    data = tmp_path / "data"
    with serving("--data", str(data)):
        done = run_command("fsck", "--data", str(data))
        assert (done.returncode, "All is well." in done.stdout) == (0, True), done.stderr
        orphan = leave_orphan(data)
        assert run_command("fsck", "--data", str(data)).returncode == 0  # too young to judge
        done = run_command("fsck", "--data", str(data), "--older-than", "0")
        assert done.returncode == 1
        assert "1 object that no row names, 8 bytes" in done.stdout
        assert "--repair removes what no row names" in done.stdout
        assert orphan.exists()
        done = run_command("fsck", "--data", str(data), "--older-than", "0", "--repair", "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout)["faults"]["orphan_object"]["n_repaired"] == 1
        assert not orphan.exists()


def test_a_store_of_another_instance_is_not_touched(tmp_path: Path) -> None:
    """Comparing a database with a stranger's files would call all of them orphans."""
    for name in ("ours", "theirs"):
        with serving("--data", str(tmp_path / name)):
            pass
    orphan = leave_orphan(tmp_path / "theirs")
    storage = (tmp_path / "theirs" / "files").as_uri()
    done = run_command(
        "fsck", "--repair", "--older-than", "0",
        "--data", str(tmp_path / "ours"), "--storage-url", storage,
    )  # fmt: skip
    assert done.returncode == 1
    assert "instance" in done.stderr
    assert orphan.exists()
    assert len(done.stderr.splitlines()) <= 3


def test_an_age_that_is_none_is_refused(tmp_path: Path) -> None:
    """The message names the flag and what it must be."""
    done = run_command("fsck", "--data", str(tmp_path), "--older-than", "-1")
    assert done.returncode == 2
    assert "whole number of hours" in done.stderr
