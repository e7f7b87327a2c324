"""The real server as a real process, as a new user starts it: `agentsight serve`.

`LiveServer` starts it on a free loopback port, waits until it says that it is ready, makes agents
and keys in its database, and stops it, in order or by SIGKILL. The fixture `server` gives a running
one for each database, shared by the tests of a session: each test makes an agent of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from agentsight.server.access import Access
from agentsight.server.accounts import service as accounts
from agentsight.server.agents import service as agents
from agentsight.server.db import Database, open_database
from tests.support.postgres import TestDatabases

T = TypeVar("T")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
HTTP_TIMEOUT_S = 30.0
_READY = re.compile(r"AgentSight is ready at (\S+)(?: \(listening at (\S+)\))?\n")
_N_MADE = itertools.count(1)


class Agent(NamedTuple):
    """An agent with a key of each role."""

    slug: str
    write_key: str
    read_key: str


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ServerDied(RuntimeError):
    """The server ended before it was ready, or did not get ready in time."""


class LiveServer:
    """One `agentsight serve`. Use it as a context manager, or call `stop`.

    Args:
        directory: Its scratch directory: data, files and log.
        database_url: The database; `None` is SQLite in the data directory.
        settings: Further `AGENTSIGHT_*` variables.
        workers: How many processes serve.
    """

    def __init__(
        self,
        directory: Path,
        database_url: str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        workers: int = 1,
    ) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.database_url = database_url or f"sqlite:///{self.data_dir / 'agentsight.db'}"
        self.log_path = directory / "server.log"
        self.base_url = ""
        self.workers = workers
        self._settings = {"AGENTSIGHT_LOG_LEVEL": "INFO", **(settings or {})}
        self._process: subprocess.Popen[str] | None = None

    # --- Its life ---------------------------------------------------------------------------------

    def start(self) -> LiveServer:
        """Start it and wait until it says that it is ready; again means on the same port.

        Raises:
            ServerDied: It did not; the message has its log.
        """
        self.begin_start()
        return self.wait_until_ready()

    def begin_start(self) -> None:
        """Start it and do not wait. The thread that does this must outlive the server."""
        port = self.base_url.rpartition(":")[2] or "0"
        command = [*self._program(), "serve", "--port", port]
        command += ["--data", str(self.data_dir), "--database-url", self.database_url]
        command += ["--workers", str(self.workers)]
        setpriv = shutil.which("setpriv")
        if setpriv:  # no server outlives a test process that was killed (or the thread of it)
            command = [setpriv, "--pdeathsig", "TERM", "--", *command]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=self._environment(), text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True,  # its workers are in its group, and die with it
            )  # fmt: skip

    def _program(self) -> list[str]:
        return [str(Path(sys.executable).with_name("agentsight"))]

    def _environment(self) -> dict[str, str]:
        return bare_environment() | self._settings

    def wait_until_ready(self) -> LiveServer:
        """Wait until it says that it is ready, and where it listens.

        Raises:
            ServerDied: It did not; the message has its log.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        out, said = self._process.stdout.fileno(), ""
        while (left := deadline - time.monotonic()) > 0 and select.select([out], [], [], left)[0]:
            chunk = os.read(out, 4096)
            said += chunk.decode()
            ready = _READY.search(said)
            if ready:
                self.base_url = ready[2] or ready[1]
                return self
            if not chunk:
                break
        self.kill()
        raise ServerDied(f"the server did not get ready:\n{said}{self.log_since(0)}")

    def stop(self) -> int | None:
        """Stop it in order; return its exit code, or None where it was not running."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int | None:
        """Stop it and its workers as a crash would: SIGKILL, with nothing said before."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdout is not None
        if how == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        try:
            return process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            process.stdout.close()

    def __enter__(self) -> LiveServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Return the id of the process that was started."""
        assert self._process is not None
        return self._process.pid

    # --- Its log ----------------------------------------------------------------------------------

    def log_mark(self) -> int:
        """Return how long the log is now, for `log_since`."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def log_since(self, mark: int) -> str:
        """Return what the server has written since `mark`."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(mark)
            return log.read().decode(errors="replace")

    # --- Its agents -------------------------------------------------------------------------------

    def make_agent(self, *, client: str = "default") -> Agent:
        """Make an agent of the first organisation, with a write key and a read key."""

        async def work(db: Database) -> Agent:
            access = await accounts.operator_access(db, now_us=_now_us(), create=True)
            return await _make_agent(db, access, client)

        return self._on_database(work)

    def make_stranger(self) -> Agent:
        """Make an organisation with a client and an agent, that have nothing to do with others."""

        async def work(db: Database) -> Agent:
            slug = f"stranger-{next(_N_MADE)}-{os.getpid()}"
            access = await accounts.create_organisation(db, slug, now_us=_now_us())
            await accounts.create_client(db, access, slug, now_us=_now_us())
            return await _make_agent(db, access, slug)

        return self._on_database(work)

    def _on_database(self, work: Any) -> Any:
        async def session() -> Any:
            async with await open_database(self.database_url) as db:
                return await work(db)

        return _run(session())

    # --- Speaking to it ---------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one raw request to a path, or to a whole address of this server."""
        url = path if path.startswith("http") else self.base_url + path
        request = Request(url, data=body, method=method)
        if key is not None:
            request.add_header("Authorization", f"Api-Key {key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        return _answer(request)

    def post_json(self, path: str, body: object, *, key: str | None) -> Answer:
        """POST a JSON body."""
        headers = {"Content-Type": "application/json"}
        return self.ask("POST", path, key=key, body=json.dumps(body).encode(), headers=headers)

    def get_json(self, path: str, *, key: str | None) -> Any:
        """GET a JSON body of a success."""
        answer = self.ask("GET", path, key=key)
        assert answer.status == 200, answer
        return answer.json


def bare_environment() -> dict[str, str]:
    """Return this process's environment without anybody's AgentSight settings."""
    return {name: value for name, value in os.environ.items() if "AGENTSIGHT" not in name}


def open_link(url: str) -> Answer:
    """Open a link as anybody's browser would: plainly, and without a key."""
    return _answer(Request(url))


def _answer(request: Request) -> Answer:
    try:
        with urlopen(request, timeout=HTTP_TIMEOUT_S) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())


async def _make_agent(db: Database, access: Access, client: str) -> Agent:
    slug = f"agent-{next(_N_MADE)}-{os.getpid()}"
    await agents.create_agent(db, access, slug, client_slug=client, now_us=_now_us())
    write, read = [
        await agents.create_key(db, access, slug, role=role, now_us=_now_us())
        for role in ("write", "read")
    ]
    return Agent(slug, write.text, read.text)


def _now_us() -> int:
    return time.time_ns() // 1000


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end in a thread: the caller may be inside a running event loop."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # handed to the caller below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


class Servers:
    """The servers of a test session, one for each database, started when first asked for."""

    def __init__(self, directory: Path, make_database: Callable[[str], str | None]) -> None:
        self._directory = directory
        self._make_database = make_database
        self._servers: dict[str, LiveServer] = {}

    def get(self, dialect: str) -> LiveServer:
        """Return the running server on that database."""
        if dialect not in self._servers:
            directory = self._directory / dialect
            directory.mkdir()
            self._servers[dialect] = LiveServer(directory, self._make_database(dialect)).start()
        return self._servers[dialect]

    def stop(self) -> None:
        """Stop them all; each must end in order."""
        ended = {dialect: server.stop() for dialect, server in self._servers.items()}
        assert set(ended.values()) <= {0}, ended


@pytest.fixture(scope="session")
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Keep the session's servers. Import it in a `conftest.py`, with `server`."""

    def make_database(dialect: str) -> str | None:
        if dialect == "sqlite":
            return None
        databases: TestDatabases = request.getfixturevalue("postgres_databases")
        return databases.create_empty(f"server_{next(_N_MADE)}")

    made = Servers(tmp_path_factory.mktemp("servers"), make_database)
    yield made
    made.stop()


@pytest.fixture
def server(servers: Servers, dialect: str) -> Iterator[LiveServer]:
    """Give the running server, once on each database; a failed test shows what it wrote."""
    running = servers.get(dialect)
    mark = running.log_mark()
    yield running
    print(running.log_since(mark))  # pytest shows it with a failure, and only then
