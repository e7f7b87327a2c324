"""What the benchmarks share: processes on a core of their own, CPU time, load, rounds, and lines.

The machine may be shared and noisy, so everything is measured as a ratio of things that take turns
within one run, by medians; and where CPU is the question, by what the kernel has charged to the
server's threads (`/proc/<pid>/task/*/schedstat`, nanoseconds), which waiting does not change.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRATCH = ROOT / ".scratch" / "benchmarks"
_BIN = Path(sys.executable).parent
SERVER_CORE = 0
LOAD_CORE = 1 if (os.cpu_count() or 1) > 1 else 0
# The flags of `agentsight serve` (cli/serve.py), for what is compared with it.
UVICORN_FLAGS = [
    "--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log",
    "--no-proxy-headers", "--no-server-header", "--log-level", "warning", "--backlog", "2048",
]  # fmt: skip


# --- Processes ------------------------------------------------------------------------------------


def program(name: str) -> str:
    """Return the path of a program of the environment we run in."""
    return str(_BIN / name)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A server that was started for a benchmark."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """The address without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Ask once."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def cpu_ns(self) -> int:
        """Return the CPU time of the process and its children so far."""
        return cpu_ns(self.process.pid)


def process_tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found += [int(child) for child in text.split()]
    return found


def cpu_ns(*pids: int) -> int:
    """Return the CPU time of processes and all below them so far."""
    return sum(_cpu_ns(child) for pid in pids for child in process_tree(pid))


def _cpu_ns(pid: int) -> int:
    """Sum the threads that live; ours live as long as their process."""
    total = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total


def memory_mb(pid: int, field_name: str) -> float:
    """Return a field of the process's memory in MB: `VmRSS`, `VmHWM` or `Pss`."""
    name = "smaps_rollup" if field_name == "Pss" else "status"
    found = re.search(
        rf"^{field_name}:\s+(\d+) kB", Path(f"/proc/{pid}/{name}").read_text(), re.MULTILINE
    )
    return int(found[1]) / 1024 if found else 0.0


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    *,
    path: str = "/",
    env: Mapping[str, str] | None = None,
    core: int | None = SERVER_CORE,
) -> Generator[Server]:
    """Start a server on one core, wait until it answers, and stop it at the end."""
    pinned = ["taskset", "-c", str(core), *command] if core is not None else [*command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            pinned,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        server = Server(process, port)
        try:
            _wait_until_it_answers(server, path, log.fileno())
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_it_answers(server: Server, path: str, log: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.get(path)
            return
        time.sleep(0.02)
    said = os.pread(log, 4000, 0).decode(errors="replace")
    raise SystemExit(f"a server did not start:\n{said}")


def agentsight(data: Path, **settings: str) -> contextlib.AbstractContextManager[Server]:
    """Start `agentsight serve` with one worker on one core."""
    port = free_port()
    command = [program("agentsight"), "serve", "--data", str(data), "--port", str(port)]
    env = {f"AGENTSIGHT_{name.upper()}": value for name, value in settings.items()}
    return running(command, port, path="/healthz", env=env)


def bare_app(**env: str) -> contextlib.AbstractContextManager[Server]:
    """Start the bare ASGI application under uvicorn with the flags of `agentsight serve`."""
    port = free_port()
    command = [
        program("uvicorn"), "benchmarks.bare:app", "--port", str(port), *UVICORN_FLAGS,
    ]  # fmt: skip
    return running(command, port, env=env)


def nginx(config: str, port: int, folder: Path) -> contextlib.AbstractContextManager[Server]:
    """Start nginx with one worker and this `server { … }` content."""
    folder.mkdir(parents=True, exist_ok=True)
    text = f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; types {{ }}
  default_type application/octet-stream;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; client_max_body_size 2g; {config} }}
}}
"""
    (folder / "nginx.conf").write_text(text)
    command = "/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else "nginx"
    return running([command, "-p", str(folder), "-c", str(folder / "nginx.conf")], port)


# --- Load -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What one stretch of load came to."""

    n_requests: int
    seconds: float
    n_bytes: int
    cpu_ns: int

    @property
    def cpu_us(self) -> float:
        """CPU of the server a request, in µs."""
        return self.cpu_ns / 1000 / self.n_requests

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.n_requests / self.seconds


_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


def wrk(
    server: Server,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    seconds: float = 2,
    connections: int = 8,
    script: str | None = None,
) -> Load:
    """Load a server with `wrk` from the other core for a while.

    Args:
        script: Lua for wrk; see `wrk_paths`.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}"]
        command += [f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        for name, value in (headers or {}).items():
            command += ["-H", f"{name}: {value}"]
        if script is not None:
            lua.write(script)
            lua.flush()
            command += ["-s", lua.name]
        before = server.cpu_ns()
        said = subprocess.run(
            [*command, server.url + path], check=True, capture_output=True, text=True
        ).stdout
        cpu_ns = server.cpu_ns() - before
    done = re.search(r"(\d+) requests in ([\d.]+)(m?s), ([\d.]+)([KMG]?B) read", said)
    if done is None or "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"wrk was not answered well at {path}:\n{said}")
    elapsed = float(done[2]) / (1000 if done[3] == "ms" else 1)
    return Load(int(done[1]), elapsed, int(float(done[4]) * _UNITS[done[5]]), cpu_ns)


def wrk_paths(paths: Sequence[str]) -> str:
    """Make a script by which wrk asks for one path after the other."""
    listed = ", ".join(f'"{path}"' for path in paths)
    return (
        f"local paths = {{ {listed} }}\nlocal n = 0\n"
        "request = function()\n  n = n + 1\n"
        "  return wrk.format(nil, paths[n % #paths + 1])\nend\n"
    )


# --- Rounds and lines -----------------------------------------------------------------------------


def take_turns(
    n_rounds: int, measures: Mapping[str, Callable[[], float]]
) -> dict[str, list[float]]:
    """Measure all in turn, round by round (the order turns too), after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for number in range(n_rounds + 1):
        for name in names if number % 2 else reversed(names):
            value = measures[name]()
            if number:
                found[name].append(value)
    return found


def ratio(found: Mapping[str, Sequence[float]], above: str, below: str) -> float:
    """Return the median of the rounds' ratios."""
    pairs = zip(found[above], found[below], strict=True)
    return statistics.median(a / b for a, b in pairs)


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def title(text: str) -> None:
    """Print what is asked."""
    print(f"\n{text}", flush=True)


def line(name: str, value: str, more: str = "") -> None:
    """Print one result."""
    print(f"  {name:58} {value:>12}  {more}".rstrip(), flush=True)


def verdict(name: str, value: float, *, least: float | None = None, most: float | None = None,
            unit: str = "") -> bool:  # fmt: skip
    """Print one result beside its floor or ceiling; False when it misses it."""
    is_met = (least is None or value >= least) and (most is None or value <= most)
    bound = f"at least {least:g}" if least is not None else f"at most {most:g}"
    word = "" if is_met else "  MISSED"
    digits = 0 if value >= 100 else 1 if value >= 20 else 2
    line(name, f"{value:.{digits}f}{unit}", f"({bound}{unit}){word}")
    return is_met
