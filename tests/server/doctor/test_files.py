"""What the doctor says of examining and erasing files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentsight.server.db import Database
from agentsight.server.doctor import files
from agentsight.server.doctor.files import check_background, check_examiner, check_sandbox
from tests.support.http import make_settings
from tests.support.raw_sql import run_statements

pytestmark = pytest.mark.anyio

HOUR_US = 3600 * 1_000_000
NOW_US = 1_790_000_000 * 1_000_000
OWNERS = [
    "INSERT INTO organisations (id, uid, slug, name, created_at, updated_at)"
    " VALUES (1, 'o', 'o', 'O', 1, 1)",
    "INSERT INTO clients (id, uid, organisation_id, slug, name, created_at, updated_at)"
    " VALUES (1, 'c', 1, 'c', 'C', 1, 1)",
    "INSERT INTO agents (id, uid, organisation_id, client_id, slug, name, created_at, updated_at)"
    " VALUES (1, 'a', 1, 1, 'a', 'A', 1, 1)",
]


def receipt(uid: str, stage: str, touched_at: int) -> str:
    """Make the statement that inserts a receipt."""
    return (
        "INSERT INTO receipts (uid, organisation_id, kind, receipt, stage, created_at, updated_at)"
        f" VALUES ('{uid}', 1, 'conversation', '{{}}', '{stage}', {touched_at - 5}, {touched_at})"
    )


def job(blob_id: int, kind: str, created_at: int) -> list[str]:
    """Make the statements that insert a blob and a job that waits for it."""
    return [
        "INSERT INTO blobs (id, agent_id, uid, object_key, sha256, size_bytes, state, created_at,"
        f" updated_at) VALUES ({blob_id}, 1, 'b{blob_id}', 'k{blob_id}', '{blob_id}', 7, 'stored',"
        " 1, 1)",
        "INSERT INTO blob_jobs (agent_id, blob_id, kind, attempts, not_before, created_at)"
        f" VALUES (1, {blob_id}, '{kind}', 0, 0, {created_at})",
    ]


async def test_work_that_does_not_end_is_told(
    db: Database, database_url: str, tmp_path: Path
) -> None:
    """What was touched within the hour, is complete or is another kind of work is no trouble."""
    settings = make_settings(database_url, tmp_path, examine=True)
    old, young = NOW_US - 2 * HOUR_US, NOW_US - HOUR_US // 2
    well = [
        *OWNERS,
        receipt("young", "rows", young),
        receipt("done", "complete", old),
        *job(1, "examine", young),
        *job(2, "scan", old),
    ]
    run_statements(database_url, well)
    [fine] = await check_background(db, settings, NOW_US)
    assert (fine.check, fine.state) == ("background", "ok")
    run_statements(database_url, [receipt("stuck", "scrub", old), *job(3, "examine", old)])
    erasure, examination = await check_background(db, settings, NOW_US)
    assert (erasure.state, examination.state) == ("fail", "warn")
    assert erasure.text.startswith("1 erasure is not complete")
    assert "agentsight erasures finish" in erasure.remedy
    assert examination.text == "1 file waits to be examined, since 2026-09-21T12:13:20Z"
    off = make_settings(database_url, tmp_path)
    assert [one.state for one in await check_background(db, off, NOW_US)] == ["fail"]


async def test_examining_is_tried(tmp_path: Path) -> None:
    """Small files of its own go through the process, as a server's do."""
    [said] = await check_examiner(make_settings("sqlite:///x.db", tmp_path, examine=True))
    assert (said.state, said.text) == ("ok", "pictures, PDFs, sound and video can be examined")
    [off] = await check_examiner(make_settings("sqlite:///x.db", tmp_path))
    assert (off.state, "AGENTSIGHT_EXAMINE is off" in off.text) == ("skip", True)


async def test_what_the_sandbox_lacks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it means and what to change, for each layer; nothing where no file is parsed."""
    settings = make_settings("sqlite:///x.db", tmp_path, examine=True)
    monkeypatch.setattr(files, "sandbox_gaps", list)
    [whole] = await check_sandbox(settings)
    assert (whole.check, whole.state) == ("sandbox", "ok")
    monkeypatch.setattr(files, "sandbox_gaps", lambda: ["Landlock", "seccomp"])
    landlock, seccomp = await check_sandbox(settings)
    assert (landlock.state, seccomp.state) == ("warn", "warn")
    assert "all tenants' files" in landlock.text
    assert "Linux 5.13" in landlock.remedy
    assert "connections" in seccomp.text
    [off] = await check_sandbox(make_settings("sqlite:///x.db", tmp_path))
    assert off.state == "skip"


async def test_too_little_memory_to_examine_is_told(tmp_path: Path) -> None:
    """The finding names the setting."""
    settings = make_settings(
        "sqlite:///x.db", tmp_path, examine=True, examine_memory_bytes=32 << 20
    )
    found = await check_examiner(settings)
    assert {one.state for one in found} == {"warn"}
    assert all("AGENTSIGHT_EXAMINE_MEMORY_BYTES" in one.remedy for one in found)


async def test_a_library_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the process that needs it; what is not there at all, with what to install."""
    (tmp_path / "av.py").write_text("raise ImportError('broken', name='av')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = make_settings("sqlite:///x.db", tmp_path, examine=True)
    [broken] = await check_examiner(settings)
    assert broken.text == ("sound and video cannot be examined: av cannot be loaded")
    monkeypatch.setattr(sys, "path", [])  # where this process looks, to judge what is missing
    for name in ("av", "pillow_heif"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    av, heif = await check_examiner(settings)
    assert av.text == "sound and video cannot be examined: av is not installed"
    assert "pillow_heif is not installed" in heif.text
    assert "agentsight previews retry" in av.remedy
