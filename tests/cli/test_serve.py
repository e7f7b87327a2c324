"""`agentsight serve`: the first start, the second, the stop, and what is refused."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentsight import _contract as contract
from tests.cli.commands import (
    COMMAND,
    PATIENCE_S,
    clean_environment,
    run_command,
    serving,
    start_server,
)

KEY = re.compile(r"ags_[0-9a-f]{32}_[0-9a-f]{6}")


def _get(url: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
        return answer.status, answer.read()


def test_the_first_start_leaves_a_private_file(tmp_path: Path) -> None:
    """Away from a terminal the key is in a file of mode 0600 and nowhere else that is written."""
    data = tmp_path / "data"
    with serving("--data", str(data)) as server:
        assert _get(f"{server.url}/healthz")[0] == 200
        path = data / "first-start.txt"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        key = KEY.search(text)
        assert key is not None
        assert contract.key_is_well_formed(key[0])
        assert server.url in text
        server.stop()
        assert server.exit_code == 0
        assert str(path) in server.stderr
        assert key[0] not in server.stderr
        assert "set-password" not in server.stderr


@pytest.mark.parametrize(("how", "code"), [("SIGINT", 130), ("SIGTERM", 0)])
def test_a_first_start_that_is_stopped_has_told_the_key(
    tmp_path: Path, how: str, code: int
) -> None:
    """It is shown once: a stop between the commit and the telling waits for it."""
    interrupted = (
        "import os, signal, sys\n"
        "from agentsight.server import first_start\n"
        "really = first_start.run_first_start\n"
        "async def made(*words, **more):\n"
        "    first = await really(*words, **more)\n"
        f"    os.kill(os.getpid(), signal.{how})\n"
        "    return first\n"
        "first_start.run_first_start = made\n"
        "from agentsight.cli import main\n"
        "sys.exit(main(['serve', '--port', '0', '--data', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupted, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=clean_environment(),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    key = KEY.search((tmp_path / "first-start.txt").read_text())
    assert key is not None
    at = ("--data", str(tmp_path))
    assert run_command("keys", "revoke", key[0], *at).returncode == 0  # it is the one that was made
    assert len(run_command("keys", "list", *at).stdout.splitlines()) == 2


def test_a_first_start_that_cannot_be_told_says_what_to_do(tmp_path: Path) -> None:
    """The key is lost then, and another is a command away."""
    (tmp_path / "first-start.txt").mkdir()
    done = run_command("serve", "--port", "0", "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the first start's key could not be told" in done.stderr.splitlines()[-1]
    assert "keys create --data" in done.stderr.splitlines()[-1]


def test_the_second_start_is_quiet(tmp_path: Path) -> None:
    """It makes no second set, and what was made works on."""
    with serving("--data", str(tmp_path)):
        pass
    text = (tmp_path / "first-start.txt").read_text()
    with serving("--data", str(tmp_path)) as server:
        pass
    assert "first start" not in server.stderr
    assert (tmp_path / "first-start.txt").read_text() == text
    listed = run_command("keys", "list", "--data", str(tmp_path)).stdout.splitlines()
    assert len(listed) == 2


def test_on_a_terminal_it_is_told_there(tmp_path: Path) -> None:
    """The key appears on the terminal, and no file is left."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0", "--data", str(tmp_path)],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, text=True,
        env=clean_environment(),
    )  # fmt: skip
    os.close(theirs)
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    seen = b""
    while b"ready at" not in seen:
        seen += os.read(ours, 4096)
    watchdog.cancel()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    assert KEY.search(seen.decode()) is not None
    assert not (tmp_path / "first-start.txt").exists()
    assert KEY.search(stderr) is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("n_workers", ["1", "2"])
def test_a_signal_stops_it_cleanly(tmp_path: Path, how: signal.Signals, n_workers: str) -> None:
    """Exit code 0 and no traceback, by Ctrl-C or by a service manager."""
    with serving("--data", str(tmp_path), "--workers", n_workers) as server:
        assert _get(f"{server.url}/healthz")[0] == 200
        assert server.stop(how) == 0
    assert "Traceback" not in server.stderr


def test_first_starts_side_by_side_make_one_set(tmp_path: Path) -> None:
    """Two processes on one empty directory: both serve, one key is made."""
    with ThreadPoolExecutor() as pool:
        servers = list(pool.map(lambda _: start_server("--data", str(tmp_path)), range(3)))
    for server in servers:
        assert _get(f"{server.url}/healthz")[0] == 200
    assert [server.stop() for server in servers] == [0, 0, 0]
    assert sum("first start" in server.stderr for server in servers) == 1
    listed = run_command("keys", "list", "--data", str(tmp_path)).stdout.splitlines()
    assert len(listed) == 2


def test_a_port_in_use_is_one_line_and_makes_nothing(tmp_path: Path) -> None:
    """The port is looked at before the data directory is touched."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = run_command("serve", "--port", port, "--data", str(tmp_path / "data"))
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(
        f"agentsight: cannot listen at 127.0.0.1 port {port}"
    )
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "data").exists()


def test_another_instances_files_are_refused(tmp_path: Path) -> None:
    """A fresh database over old files, and an old database over no files: neither starts."""
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    with serving("--data", str(old)):
        pass
    stranger = run_command(
        "serve", "--port", "0", "--data", str(fresh), "--storage-url", (old / "files").as_uri()
    )
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "the files of instance" in stranger.stderr
    (old / "files").rename(tmp_path / "moved-away")
    emptied = run_command("serve", "--port", "0", "--data", str(old))
    assert (emptied.returncode, emptied.stdout) == (1, "")
    assert f"{(old / 'files').as_uri()}: This database's files are in another" in emptied.stderr
    (old / "files").rmdir()
    for words in (("fsck",), ("customers", "find", "x")):
        gone = run_command(*words, "--data", str(old))
        assert gone.returncode == 1
        assert f"the directory of the files is not there: {old / 'files'} (" in gone.stderr
    assert "Traceback" not in stranger.stderr + emptied.stderr


def test_the_settings_reach_every_worker(tmp_path: Path) -> None:
    """Flags count in the processes that serve: links begin with the public URL that was given."""
    with serving(
        "--data", str(tmp_path), "--workers", "2", "--public-url", "https://bots.example"
    ) as server:
        assert server.ready_line.startswith("AgentSight is ready at https://bots.example")
        pages = [_get(f"{server.url}/")[1].decode() for _ in range(8)]
        assert all("https://bots.example/sdk/" in page for page in pages)
    assert "https://bots.example/app/set-password/" in (tmp_path / "first-start.txt").read_text()


def test_an_unattended_start_tells_no_secret(tmp_path: Path) -> None:
    """The operator's key and password work and are repeated nowhere."""
    key = run_command("keys", "generate").stdout.strip()
    given = {
        "AGENTSIGHT_INIT_KEY": key,
        "AGENTSIGHT_INIT_EMAIL": "me@example.com",
        "AGENTSIGHT_INIT_PASSWORD": "correct horse",
    }
    with serving("--data", str(tmp_path), **given) as server:
        pass
    text = (tmp_path / "first-start.txt").read_text()
    assert key not in text + server.stderr
    assert "correct horse" not in text + server.stderr
    assert "me@example.com" in text


def test_an_unknown_setting_is_warned_of(tmp_path: Path) -> None:
    """A slip in a variable's name is heard of, and the server starts all the same."""
    with serving("--data", str(tmp_path), AGENTSIGHT_STORAGE_ULR="s3://x") as server:
        pass
    assert "no setting is called AGENTSIGHT_STORAGE_ULR" in server.stderr


def test_no_migrate_still_makes_a_fresh_database(tmp_path: Path) -> None:
    """Making what is not there is no migration."""
    with serving("--data", str(tmp_path), "--no-migrate") as server:
        assert _get(f"{server.url}/healthz")[0] == 200


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "http"),
        ("--workers", "0"),
        ("--storage-url", "ftp://x"),
        ("--database-url", "mysql://x"),
        ("--host", "no such host"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path: Path, words: tuple[str, str]) -> None:
    """Exit code 2, the flag named, nothing made."""
    run = run_command("serve", "--port", "0", "--data", str(tmp_path / "data"), *words)
    assert run.returncode == 2
    assert words[0] in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "data").exists()


def test_access_logs_hold_no_secrets(tmp_path: Path) -> None:
    """With `--access-log` each request is a JSON line, without tokens, signatures and queries."""
    with serving("--data", str(tmp_path), "--access-log") as server:
        _get(f"{server.url}/healthz?key=hush")
        server.stop()
    assert '"path": "/healthz"' in server.stderr
    assert "hush" not in server.stderr


def test_a_start_loads_no_migrations(tmp_path: Path) -> None:
    """Alembic and SQLAlchemy weigh nothing on a server whose database is up to date."""
    run_command("migrate", "--data", str(tmp_path))
    code = (
        "import sys, agentsight.server.app, agentsight.cli.serve, agentsight.server.db.migrate;"
        "print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert not set(run.stdout.split()) & {"alembic", "sqlalchemy", "jinja2", "argon2", "asyncpg"}
