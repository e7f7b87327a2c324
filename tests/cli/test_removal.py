"""`customers`, `retention` and `erasures`, run as an operator would run them beside a server."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import run_command
from tests.journeys.test_crash import BATCH, batch_of
from tests.support.server import Agent, LiveServer


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Any:
    """Run a server for this test alone, on each kind of database."""
    with LiveServer(tmp_path / "live", database_url) as running:
        yield running


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()


def at(server: LiveServer) -> tuple[str, ...]:
    return ("--data", str(server.data_dir), "--database-url", server.database_url)


def tell(server: LiveServer, agent: Agent, name: str, customer: str) -> None:
    """Store a conversation of three messages and a file."""
    batch = batch_of(name, 1)
    batch["conversation"]["customer_id"] = customer
    assert server.post_json(BATCH, batch, key=agent.write_key).status == 200


def n_listed(server: LiveServer, agent: Agent) -> int:
    return server.get_json("/api/conversations/?full=false", key=agent.read_key)["count"]


def test_a_customers_way_out(server: LiveServer, tmp_path: Path) -> None:
    """Found, exported, tried, erased in all agents, and not found any more."""
    one, two, stranger = server.make_agent(), server.make_agent(), server.make_stranger()
    for agent in (one, two, stranger):
        tell(server, agent, "c", "+39 jane")
    tell(server, one, "other", "+39 JANE")
    found = run_command("customers", "find", "+39 jane", "--json", *at(server))
    assert found.returncode == 0, found.stderr
    assert [(row["agent"], row["conversations"], row["files"]) for row in json.loads(found.stdout)
            ] == [(one.slug, 1, 1), (two.slug, 1, 1)]  # fmt: skip
    assert "written otherwise: '+39 JANE'" in found.stderr

    to = tmp_path / "jane.zip"
    export = run_command("customers", "export", "+39 jane", "--to", str(to), *at(server))
    assert (export.returncode, export.stdout) == (0, f"{to}\n"), export.stderr
    _check_export(to)
    again = run_command("customers", "export", "+39 jane", "--to", str(to), *at(server))
    assert (again.returncode, again.stdout) == (1, "")
    nobody = run_command("customers", "export", "x", "--to", str(tmp_path / "x"), *at(server))
    assert nobody.returncode == 1
    assert "there is no customer 'x'" in nobody.stderr
    assert sorted(path.name for path in tmp_path.glob("*.part")) == []

    tried = run_command("customers", "erase", "+39 jane", *at(server))
    would = json.loads(tried.stdout)
    assert (would["dry_run"], would["uid"], n_listed(server, one)) == (True, None, 2)
    assert "customers erase" in tried.stderr
    assert "'+39 jane' --yes" in tried.stderr
    done = run_command("customers", "erase", "+39 jane", "--yes", *at(server))
    receipt = json.loads(done.stdout)
    assert (receipt["dry_run"], receipt["state"]) == (False, "complete")
    for counted in (would, receipt):
        rows = counted["removed"]["rows"]
        searched = rows.pop("search_queue") + rows.pop("message_search")
        assert searched == 6
        rows.pop("blob_texts")
    assert would["removed"]["rows"] == receipt["removed"]["rows"]
    assert receipt["removed"]["objects"] == 2
    assert [n_listed(server, agent) for agent in (one, two, stranger)] == [1, 0, 1]
    gone = run_command("customers", "find", "+39 jane", *at(server))
    assert gone.returncode == 1
    assert "nothing is kept of '+39 jane'" in gone.stderr

    listed = json.loads(run_command("erasures", "list", "--json", *at(server)).stdout)
    assert [(row["uid"], row["kind"], row["state"]) for row in listed] == [
        (receipt["uid"], "customer", "complete")
    ]
    shown = run_command("erasures", "show", receipt["uid"], *at(server))
    assert json.loads(shown.stdout)["asked_at"] == receipt["asked_at"]
    assert run_command("erasures", "show", "none", *at(server)).returncode == 1
    for words in (("finish",), ("replay",)):
        assert run_command("erasures", *words, *at(server)).returncode == 0


def _check_export(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["customer_id"] == "+39 jane"
        assert manifest["rows"]["conversations"] == 2
        assert (len(manifest["files"]), manifest["missing"]) == (2, [])
        for file in manifest["files"]:
            assert archive.read(file["path"]) == b"c file 1" * 100
        lines = archive.read("messages.jsonl").decode().splitlines()
        contents = [json.loads(line)["content"] for line in lines]
        assert sorted(contents) == sorted(
            ["question 1", "Action action 1 performed", "answer 1"] * 2
        )
        conversations = archive.read("conversations.jsonl").decode().splitlines()
        assert {json.loads(line)["customer_id"] for line in conversations} == {"+39 jane"}


def test_an_export_without_all_bytes_says_so(server: LiveServer, tmp_path: Path) -> None:
    """A file that was cut is handed out no more than one that is gone; both are named."""
    agent = server.make_agent()
    for name in ("cut", "gone", "whole"):
        tell(server, agent, name, "jane")
    objects = {
        path.read_bytes()[:4].strip(): path
        for path in server.data_dir.rglob("*")
        if path.is_file() and b" file 1" in path.read_bytes()[:20]
    }
    os.truncate(objects[b"cut"], 10)
    objects[b"gone"].unlink()
    to = tmp_path / "jane.zip"
    export = run_command("customers", "export", "jane", "--to", str(to), *at(server))
    assert (export.returncode, export.stdout) == (1, f"{to}\n")
    assert "of 2 files the bytes are not, or not all, in the store" in export.stderr
    with zipfile.ZipFile(to) as archive:
        assert archive.testzip() is None
        manifest = json.loads(archive.read("manifest.json"))
        assert len(manifest["missing"]) == 2
        [file] = manifest["files"]
        assert archive.read(file["path"]) == b"whole file 1" * 100
        assert [name for name in archive.namelist() if name.startswith("files/")] == [file["path"]]


@pytest.mark.sqlite_will_do
@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        ("-", 2, "agentsight: --to names a file, which appears when it is whole: give one"),
        ("nowhere/x.zip", 1, "agentsight: No such file or directory: nowhere"),
        ("jane.txt/x.zip", 1, "agentsight: Not a directory: jane.txt"),
    ],
)
def test_an_export_that_goes_nowhere_names_what_was_typed(
    server: LiveServer, tmp_path: Path, to: str, code: int, said: str
) -> None:
    """Never the file that it would have been written to first."""
    tell(server, server.make_agent(), "c", "jane")
    (tmp_path / "jane.txt").touch()
    done = run_command("customers", "export", "jane", "--to", to, *at(server), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.splitlines()[-1] == said
    assert [path for path in tmp_path.iterdir() if path.name.endswith(("-", ".part"))] == []


@pytest.mark.sqlite_will_do
def test_nothing_is_proved_by_erasing_nobody(server: LiveServer) -> None:
    """An id that nobody has, or that is written otherwise, gets no receipt, with --yes too."""
    tell(server, server.make_agent(), "c", "ada")
    for words in ((), ("--yes",)):
        done = run_command("customers", "erase", "Ada", *words, *at(server))
        assert (done.returncode, done.stdout) == (1, "")
        assert "nothing is kept of 'Ada'; written otherwise: 'ada'" in done.stderr
        assert run_command("customers", "erase", "", *words, *at(server)).returncode == 2
    assert run_command("erasures", "list", "--json", *at(server)).stdout.strip() == "[]"


@pytest.mark.sqlite_will_do
def test_retention_is_set_listed_and_unset(server: LiveServer) -> None:
    """By agent and environment; what is wrong is told in one line."""
    agent = server.make_agent()
    for words in (("--days", "30"), ("--days", "7", "--environment", "dev")):
        done = run_command("retention", "set", "--agent", agent.slug, *words,
                           "--database-url", server.database_url)  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    listed = run_command("retention", "list", "--json", "--database-url", server.database_url)
    assert [(row["agent"], row["environment"], row["days"]) for row in json.loads(listed.stdout)
            ] == [(agent.slug, None, 30), (agent.slug, "development", 7)]  # fmt: skip
    audit = run_command("audit", "list", "--action", "retain", "--agent", agent.slug, "--json",
                        "--database-url", server.database_url)  # fmt: skip
    assert [json.loads(row["detail"]) for row in json.loads(audit.stdout)] == [
        {"environment": "development", "days": 7},
        {"environment": None, "days": 30},
    ]
    for words, code in (
        (("set", "--agent", agent.slug, "--days", "0"), 2),
        (("set", "--agent", "nobody", "--days", "1"), 1),
        (("unset", "--agent", "nobody"), 1),
        (("list", "--agent", "nobody"), 1),
        (("set", "--agent", agent.slug, "--days", "1", "--environment", "nowhere"), 1),
        (("set", "--agent", agent.slug), 2),
    ):
        wrong = run_command("retention", *words, "--database-url", server.database_url)
        assert (wrong.returncode, wrong.stdout) == (code, ""), wrong.stderr
        if "nobody" in words:
            assert "there is no agent 'nobody': see " in wrong.stderr
        if "nowhere" in words:
            assert f"agent '{agent.slug}' has no environment 'nowhere'" in wrong.stderr
    unset = ("retention", "unset", "--agent", agent.slug, "--database-url", server.database_url)
    assert run_command(*unset).returncode == 0
    assert "no such rule" in run_command(*unset).stderr
