"""`agentsight serve`: everything from settings to a clean stop.

In this order: settings, the port, the database's schema, the bond of database and store, the
first start, then uvicorn with as many processes as are wanted. Whatever a person can get wrong ends
in one line before any process is started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Generator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    explained,
    name_database,
    now_us,
    read_settings,
    say,
)

if TYPE_CHECKING:
    import socket

    from agentsight.server.first_start import FirstStart
    from agentsight.server.settings import Settings

_APP = "agentsight.cli.serve:make_app"
_STARTUP_FAILURE = 3
"""uvicorn's exit code for "it would fail the same way again": its supervisor then stops it all."""
_HEALTH_CHECK_S = 60
"""How long a worker may take to begin when SIGHUP replaces it; 5 s are short on a busy host."""
_BACKLOG = 2048
_OPEN_FILES = 65_536
"""Descriptors a process may open; shells often give 1,024, which some hundred readers use up."""
_GRACE_S = 30
"""How long answers under way may take to end after a stop was asked for."""
_KEEP_ALIVE_S = 75
"""Longer than proxies keep an idle connection (nginx: 60 s), so that they close it and not we."""


def add_commands(groups: Groups) -> None:
    """Add the command."""
    parser = add_command(groups, "serve", "start the server", run, on_database=False)
    add = parser.add_argument
    add("--host", help="the address to listen at (127.0.0.1)")
    add("--port", help="the port to listen at; 0 takes a free one (8000)")
    add("--data", dest="data_dir", metavar="DIR", help="the data directory (./agentsight-data)")
    add("--workers", metavar="N", help="how many processes serve (1)")
    add("--no-migrate", dest="migrate", action="store_const", const="off",
        help="refuse to start on an older database in place of bringing it up")  # fmt: skip
    add("--database-url", metavar="URL", help="sqlite:///… or postgresql://…")
    add("--storage-url", metavar="URL", help="file:///directory or s3://bucket[/prefix]")
    add("--public-url", metavar="URL", help="the address that people and bots reach this server at")
    add("--secret-key", metavar="SECRET[,OLD]", help="signs file links (better: the variable)")
    add("--access-log", action="store_const", const="on", help="log each request")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal says stop; then 0."""
    signal.signal(signal.SIGTERM, _stop_early)
    settings = read_settings(arguments)
    name_database(settings)
    _warn_of_unknown_variables()
    _allow_open_files()
    with explained(), _bind(settings) as listener, _counting(settings):
        port: int = listener.getsockname()[1]
        _prepare(settings, port)
        _pass_on(settings, port)
        return _serve(settings, listener, port)


@contextlib.contextmanager
def _counting(settings: Settings) -> Generator[None]:
    """Give several workers a directory to count in, so that each can show the sum at /metrics."""
    if settings.workers == 1:
        yield
        return
    import tempfile

    # By its name, which the library reads when it is imported: before the first of our own rooms.
    with tempfile.TemporaryDirectory(prefix="agentsight-counters-") as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
        yield


def _stop_early(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _warn_of_unknown_variables() -> None:
    from agentsight.server.settings import unknown_variables

    for name in unknown_variables(os.environ):
        say(f"agentsight: warning: no setting is called {name}: see docs/settings.md")


# --- Before serving -------------------------------------------------------------------------------


def _bind(settings: Settings) -> socket.socket:
    """Take the port, so that a port in use is heard of before anything is made."""
    import socket

    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise CliError(f"--host {settings.host}: {error.strerror}", exit_code=2) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _limit_silence(listener, settings.send_timeout_s)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(settings, error) from error
    return listener


def _limit_silence(listener: socket.socket, seconds: int) -> None:
    """Let the kernel end connections whose client reads nothing, and holds what it was sent.

    Every connection inherits it from the listener; it counts while bytes wait, also before a closed
    window (tcp(7), TCP_USER_TIMEOUT). Only Linux has it.
    """
    import socket

    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def _allow_open_files() -> None:
    """Take as many descriptors as we may have: each connection and each file being sent is one."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit below its own word
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _cannot_listen(settings: Settings, error: Exception) -> CliError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return CliError(
        f"cannot listen at {settings.host} port {settings.port}: {reason};"
        " choose another by --port (0 takes a free one)"
    )


def _prepare(settings: Settings, port: int) -> None:
    """Make or migrate the database, tie it to its store, and do the first start."""
    import asyncio

    from agentsight.cli._places import prepare_data_dir, prepare_file_storage
    from agentsight.server.db.migrate import ensure_schema

    prepare_data_dir(settings)
    prepare_file_storage(settings)
    outcome = ensure_schema(settings.database_url, create=True, migrate=settings.migrate)
    if outcome != "current":
        say(f"database: {outcome}")
    asyncio.run(_join(settings, port))


async def _join(settings: Settings, port: int) -> None:
    from agentsight.server.blobs import StrangerStore
    from agentsight.server.blobs.opening import open_store_of
    from agentsight.server.db import open_database
    from agentsight.server.first_start import run_first_start
    from agentsight.server.instance.service import join_instance
    from agentsight.server.settings import hide_password

    async with await open_database(settings.database_url) as db:
        blobs = open_store_of(settings)
        try:
            await join_instance(db, blobs, now_us=now_us())
        except StrangerStore as error:
            raise CliError(f"{hide_password(settings.storage_url)}: {error}") from error
        finally:
            await blobs.close()
        with _signals_later():  # else a key may be made that nobody is ever told
            made = await run_first_start(db, settings, now_us=now_us())
            if made is not None:
                _tell(settings, made, port)
    await _keep_erased(settings)


@contextlib.contextmanager
def _signals_later() -> Generator[None]:
    """Obey a signal that says stop at the block's end; the second one at once."""
    waiting: list[int] = []
    handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for name, handler in handlers.items():
            signal.signal(name, handler)

    def remember(number: int, _frame: FrameType | None) -> None:
        if waiting:
            restore()
            signal.raise_signal(number)
        waiting.append(number)

    for name in handlers:
        signal.signal(name, remember)
    try:
        yield
    finally:
        restore()
        if waiting:
            signal.raise_signal(waiting[0])


async def _keep_erased(settings: Settings) -> None:
    """Erase again what a backup has brought back, before anybody is served."""
    from agentsight.cli.erasures import told
    from agentsight.server.opening import open_parts
    from agentsight.server.removals.service_replay import replay

    async with open_parts(settings) as parts:
        done = await replay(parts)
    if not done.is_quiet:
        for line in told(done):
            say(line)


def _tell(settings: Settings, made: FirstStart, port: int) -> None:
    from agentsight.server.first_start import first_start_text, shown_base_url, tell_first_start
    from agentsight.server.sdk_index import sdk_install_line

    base_url = shown_base_url(settings, port)
    text = first_start_text(made, base_url, sdk_install_line(base_url), settings)
    terminal = sys.stdout if sys.stdout.isatty() else sys.stderr
    try:
        path = tell_first_start(text, terminal=terminal, data_dir=settings.data_dir)
    except OSError as error:
        raise CliError(
            f"the first start's key could not be told ({error.strerror or error}): make another by"
            f" agentsight keys create --agent {made.agent_slug} --role write"
        ) from error
    if path is not None:
        say(f"first start: the key and the owner's link are in {path}")


def _pass_on(settings: Settings, port: int) -> None:
    """Hand the settings to the processes that serve, through the environment."""
    from msgspec.structs import replace

    from agentsight.server.settings import settings_environment

    os.environ.update(settings_environment(replace(settings, port=port)))


# --- Serving --------------------------------------------------------------------------------------


def _serve(settings: Settings, listener: socket.socket, port: int) -> int:
    import logging.config

    import uvicorn
    from msgspec.structs import replace

    from agentsight.server.first_start import shown_base_url
    from agentsight.server.logs import log_config

    for_people = sys.stderr.isatty()
    logs = log_config(settings.log_level, access_log=settings.access_log, for_people=for_people)
    config = uvicorn.Config(
        _APP,
        factory=True,
        host=settings.host,
        port=port,
        workers=settings.workers,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=logs,
        access_log=settings.access_log,
        proxy_headers=False,  # web/bases.py decides whose forwarded headers count
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
        timeout_worker_healthcheck=_HEALTH_CHECK_S,
    )
    logging.config.dictConfig(logs)
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _cannot_listen(settings, error) from error
    ready = f"AgentSight is ready at {shown_base_url(settings, port)}"
    if settings.public_url:
        ready += f" (listening at {shown_base_url(replace(settings, public_url=None), port)})"
    # uvicorn raises the signal that stopped it once more when it is done; we have obeyed it then.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda _signal, _frame: None)
    if settings.workers > 1:
        return _serve_by_many(config, listener, ready)
    return _serve_alone(config, listener, ready)


def _serve_alone(config: Any, listener: socket.socket, ready: str) -> int:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and not self.should_exit:
                print(ready, flush=True)

    server = Server(config)
    server.run([listener])
    return 0 if server.started else 1


def _serve_by_many(config: Any, listener: socket.socket, ready: str) -> int:
    import threading

    from agentsight.cli._workers import Workers

    supervisor = Workers(config, sockets=[listener])
    asker = threading.Thread(
        target=_say_when_ready, args=(supervisor, listener, ready), daemon=True
    )
    asker.start()
    supervisor.run()
    failed = any(process.exitcode == _STARTUP_FAILURE for process in supervisor.processes)
    return 1 if failed else 0


def _say_when_ready(supervisor: Any, listener: socket.socket, ready: str) -> None:
    """Ask for /healthz until the first worker that serves answers it."""
    import http.client

    address: tuple[str, int] = listener.getsockname()[:2]
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked, not bound
    while not supervisor.should_exit.is_set():
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            supervisor.should_exit.wait(0.1)  # a worker died under the question; ask the next one
        else:
            print(ready, flush=True)
            return
        finally:
            connection.close()


def make_app() -> Any:
    """Make the application in a process that serves; a failure is told once and ends them all."""
    import logging

    try:
        from agentsight.server.app import app_from_environment

        return app_from_environment()
    except Exception:
        logging.getLogger("agentsight.server").exception("the application cannot be made")
        raise SystemExit(_STARTUP_FAILURE) from None
