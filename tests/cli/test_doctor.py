"""`agentsight doctor`: what it says of an instance that is well, and of trouble inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentsight.server.doctor.service import examine
from agentsight.server.settings import load_settings
from tests.support.doctor import Doctor
from tests.support.postgres import TestDatabases
from tests.support.proxies import free_port
from tests.support.server import LiveServer

pytestmark = pytest.mark.slow


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Give the command."""
    return Doctor(monkeypatch, capsys)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Run a server on SQLite."""
    with LiveServer(tmp_path) as running:
        yield running


# --- Well -----------------------------------------------------------------------------------------


def test_a_server_alone_is_well_and_told_what_was_not_asked(
    doctor: Doctor, server: LiveServer
) -> None:
    """Without a public URL the server on this machine is looked at."""
    port = server.base_url.rpartition(":")[2]
    report = doctor("--data", str(server.data_dir), environ={"AGENTSIGHT_PORT": port})
    assert (report.code, report.states()) == (0, {"ok", "skip"})
    assert "AGENTSIGHT_PUBLIC_URL is not set" in report.of("address", "skip")
    assert "no file is stored yet" in report.of("ranges", "skip")


def test_it_changes_nothing(doctor: Doctor, server: LiveServer) -> None:
    """Looking leaves no object in the store and no row in the database."""
    before = {path for path in server.data_dir.rglob("*") if path.is_file()}
    doctor("--data", str(server.data_dir))
    assert {path for path in server.data_dir.rglob("*") if path.is_file()} == before


def test_postgresql_is_looked_at_too(
    doctor: Doctor, tmp_path: Path, postgres_databases: TestDatabases
) -> None:
    """The test's own server runs without fsync, which an operator must hear of."""
    url = postgres_databases.create_empty("doctor")
    try:
        with LiveServer(tmp_path, url) as running:
            port = running.base_url.rpartition(":")[2]
            report = doctor(
                "--database-url", url, "--data", str(running.data_dir),
                environ={"AGENTSIGHT_PORT": port},
            )  # fmt: skip
    finally:
        postgres_databases.drop(url)
    assert report.code == 0
    assert "fsync" in report.of("database", "warn")
    assert "the clock of the database agrees" in report.of("clock", "ok")
    assert "only this host" in report.of("settings", "warn")


def test_people_read_a_line_for_each_check(doctor: Doctor, server: LiveServer) -> None:
    """On a terminal: state, check, what was found, and below it what to change."""
    url = f"http://127.0.0.1:{free_port()}"
    code, text = doctor.for_people("--data", str(server.data_dir), "--url", url)
    assert code == 1
    assert f"fail  address        {url}: nothing listens there\n" in text
    assert "-> Start the server or proxy, or mend the port." in text
    assert "1 to mend, 0 to look at, 4 not asked." in text


# --- A wrong address ------------------------------------------------------------------------------


@contextlib.contextmanager
def some_web_server(status: int, headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """Run a web server that has nothing to do with us."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{web.server_port}"
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


def test_it_says_who_answers_instead(doctor: Doctor, server: LiveServer) -> None:
    """A forgotten default page is named by its title, so that it is recognised."""
    page = b"<html><title>Welcome to\n nginx!</title></html>"
    with some_web_server(200, {"Content-Type": "text/html"}, page) as url:
        report = doctor("--data", str(server.data_dir), "--url", url)
    said = report.of("address", "fail")
    assert report.code == 1
    assert "a page titled “Welcome to nginx!”" in said
    assert "AGENTSIGHT_PUBLIC_URL" in said


def test_it_says_where_a_redirect_leads(doctor: Doctor, server: LiveServer) -> None:
    """http:// that leads to https:// is the most common wrong public URL."""
    with some_web_server(301, {"Location": "https://agents.example.com/"}, b"") as url:
        report = doctor("--data", str(server.data_dir), "--url", url)
    assert "a redirect to https://agents.example.com/" in report.of("address", "fail")


def test_another_instance_is_recognised(doctor: Doctor, server: LiveServer, tmp_path: Path) -> None:
    """Two AgentSights look alike; only one knows this database's signing keys."""
    (tmp_path / "other").mkdir()
    with LiveServer(tmp_path / "other") as other:
        report = doctor("--data", str(server.data_dir), "--url", other.base_url)
    assert report.code == 1
    assert "does not know this instance's signing keys" in report.of("same instance", "fail")


def test_one_secret_for_two_instances_is_seen_through(
    doctor: Doctor, server: LiveServer, tmp_path: Path
) -> None:
    """With an equal AGENTSIGHT_SECRET_KEY, the instance's uid tells them apart."""
    secret = {"AGENTSIGHT_SECRET_KEY": "one-secret-for-both-of-them"}
    (tmp_path / "other").mkdir()
    with LiveServer(tmp_path / "other", settings=secret) as other:
        report = doctor("--data", str(server.data_dir), "--url", other.base_url, environ=secret)
    assert "another instance answers" in report.of("same instance", "fail")
    assert secret["AGENTSIGHT_SECRET_KEY"] not in report.text


# --- Trouble inside -------------------------------------------------------------------------------


def test_a_lost_marker_is_found(doctor: Doctor, server: LiveServer) -> None:
    """A store that has lost its marker may be an empty disk mounted in its place."""
    (server.data_dir / "files" / "agentsight-instance").unlink()
    report = doctor("--data", str(server.data_dir))
    assert report.code == 1
    assert "lost its marker" in report.of("instance", "fail")


def test_files_of_another_instance_are_found(
    doctor: Doctor, server: LiveServer, tmp_path: Path
) -> None:
    """Two data directories mixed up."""
    (tmp_path / "other").mkdir()
    with LiveServer(tmp_path / "other") as other:
        storage = (other.data_dir / "files").as_uri()
    report = doctor("--data", str(server.data_dir), environ={"AGENTSIGHT_STORAGE_URL": storage})
    assert "files of instance" in report.of("instance", "fail")


def test_a_missing_store_is_found(doctor: Doctor, server: LiveServer) -> None:
    """A disk that is not mounted is a fault, and is not made anew."""
    shutil.rmtree(server.data_dir / "files")
    report = doctor("--data", str(server.data_dir))
    assert "AGENTSIGHT_STORAGE_URL" in report.of("storage", "fail")
    assert not (server.data_dir / "files").exists()


def test_old_leftovers_of_uploads_are_told(doctor: Doctor, server: LiveServer) -> None:
    """A server that runs for months removes none; one that is under way is nobody's business."""
    folder = server.data_dir / "files" / "tmp"
    folder.mkdir(exist_ok=True)
    for name, age_s in (("old", 25 * 3600), ("new", 60)):
        (folder / name).write_bytes(bytes(3 * 1024 * 1024))
        os.utime(folder / name, (time.time() - age_s,) * 2)
    report = doctor("--data", str(server.data_dir))
    said = report.of("storage", "warn")
    assert "interrupted uploads left 1 file (3.0 MiB) over a day ago -> Restart" in said


def test_a_forgotten_data_flag_is_named(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a database's address, the files are still looked for in the data directory."""
    monkeypatch.chdir(tmp_path)
    url = f"postgresql://ann@127.0.0.1:{free_port()}/agentsight"
    said = doctor("--database-url", url).of("storage", "fail")
    assert f"is not there: {tmp_path / 'agentsight-data' / 'files'}" in said
    assert "Was --data forgotten?" in said


def test_postgresql_that_is_down_is_found_without_its_password(
    doctor: Doctor, tmp_path: Path
) -> None:
    """The rest is checked as far as it can be, and no secret is shown."""
    url = f"postgresql://ann:s3cr%40t-word@127.0.0.1:{free_port()}/agentsight"
    report = doctor(
        "--database-url", url,
        environ={"AGENTSIGHT_DATA_DIR": str(tmp_path), "AGENTSIGHT_INIT_PASSWORD": "a-long-secret"},
    )  # fmt: skip
    assert report.code == 1
    assert report.of("database", "fail")
    assert "needs the database and the store" in report.of("instance", "skip")
    for secret in ("s3cr", "t-word", "a-long-secret"):
        assert secret not in report.text


def test_a_damaged_database_is_found(doctor: Doctor, server: LiveServer) -> None:
    """A file that is no database, or one with a torn page, is a finding and no traceback."""
    server.stop()
    path = server.data_dir / "agentsight.db"
    path.write_bytes(b"not a database at all" * 500)
    report = doctor("--data", str(server.data_dir))
    assert report.code == 1
    assert report.of("database", "fail")


def test_a_torn_page_is_found(doctor: Doctor, server: LiveServer) -> None:
    """SQLite's own check of the file is run."""
    server.stop()
    path = server.data_dir / "agentsight.db"
    content = bytearray(path.read_bytes())
    page = 4096
    n_pages = len(content) // page
    for number in range(n_pages - 12, n_pages - 2):
        content[number * page : number * page + 200] = b"\xa5" * 200
    path.write_bytes(content)
    report = doctor("--data", str(server.data_dir))
    assert report.code == 1
    assert report.of("database", "fail")


def test_nothing_there_at_all_is_said(doctor: Doctor, tmp_path: Path) -> None:
    """A directory that was never served is told from a broken one, and not made."""
    report = doctor("--data", str(tmp_path / "none"))
    assert report.code == 1
    assert "there is no database at" in report.of("database", "fail")
    assert not (tmp_path / "none").exists()


def test_loose_permissions_are_found(doctor: Doctor, server: LiveServer) -> None:
    """Signing keys and files are nobody else's business."""
    (server.data_dir / "agentsight.db").chmod(0o644)
    (server.data_dir / "files").chmod(0o755)
    report = doctor("--data", str(server.data_dir))
    assert "chmod 600" in report.of("database", "warn")
    assert "chmod o=" in report.of("storage", "warn")


def test_settings_that_do_nothing_are_found(doctor: Doctor, server: LiveServer) -> None:
    """Slips of the pen, leftovers of the first start, and settings that cancel each other."""
    report = doctor(
        "--data", str(server.data_dir), "--url", server.base_url,
        environ={
            "AGENTSIGHT_PUBLIC_ULR": "https://x",
            "AGENTSIGHT_INIT_PASSWORD": "correct horse battery",
            "AGENTSIGHT_TRUSTED_PROXIES": "127.0.0.1",
            "AGENTSIGHT_WORKERS": "200",
        },
    )  # fmt: skip
    said = report.of("settings", "warn")
    for part in (
        "AGENTSIGHT_PUBLIC_ULR",
        "AGENTSIGHT_INIT_PASSWORD",
        "TRUSTED_PROXIES",
        "200 work",
    ):
        assert part in said
    assert "correct horse" not in report.text


def test_a_setting_that_cannot_be_read_is_a_finding(doctor: Doctor) -> None:
    """Broken settings end in the same shape as everything else."""
    report = doctor(environ={"AGENTSIGHT_PORT": "eighty"})
    assert report.code == 1
    assert "AGENTSIGHT_PORT" in report.of("settings", "fail")


@pytest.mark.parametrize(("skew_s", "state"), [(3600.0, "fail"), (-3600.0, "fail"), (20.0, "warn")])
def test_a_wrong_clock_is_found(server: LiveServer, skew_s: float, state: str) -> None:
    """This machine's clock is an hour off: server and address disagree with it."""
    flags = {"data_dir": str(server.data_dir), "public_url": server.base_url}
    settings = load_settings({}, flags)

    async def collect() -> list[tuple[str, str, str]]:
        clock = lambda: time.time_ns() // 1000 + int(skew_s * 1_000_000)  # noqa: E731
        return [
            (one.check, one.state, one.text)
            async for one in examine(settings, environ={}, clock=clock)
        ]

    found = asyncio.run(collect())
    clocks = [(found_state, text) for check, found_state, text in found if check == "clock"]
    direction = "behind" if skew_s > 0 else "ahead of"
    assert {found_state for found_state, _ in clocks} == {state}
    assert all(direction in text for _, text in clocks)
