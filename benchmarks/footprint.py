"""How much memory does an idle server hold, and how soon does a second start answer?

The whole process tree of `agentsight serve` on one core: its resident memory, with all that it
shares with others (Pss: its share), when it is ready and after its first answers; and the time from
exec to the first 200 of `/healthz`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.dataset import HEADERS, KEY, dataset
from benchmarks.files import Upload, send_file
from benchmarks.measuring import (
    ROOT,
    SCRATCH,
    SERVER_CORE,
    Server,
    agentsight,
    free_port,
    line,
    median,
    memory_mb,
    process_tree,
    program,
    title,
    verdict,
)
from benchmarks.one_call import path_of

N_STARTS = 9


def start_s(data: Path) -> tuple[float, float]:
    """Start, wait for the first answer, stop; return how long it took from exec, and its CPU."""
    port = free_port()
    command = ["taskset", "-c", str(SERVER_CORE), program("agentsight"), "serve",
               "--data", str(data), "--port", str(port)]  # fmt: skip
    started = time.perf_counter()
    # A developer's habit that makes every start compile everything anew; nobody serves with it.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    seconds = time.perf_counter() - started
                    return seconds, Server(process, port).cpu_ns() / 1e9
            time.sleep(0.002)
        raise SystemExit(f"a server ended with {process.returncode} in place of starting")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _held_mb(server: Server, field: str = "VmRSS") -> float:
    return sum(memory_mb(pid, field) for pid in process_tree(server.process.pid))


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    made = dataset(100_000)
    with agentsight(made.data) as server:
        ready = _held_mb(server)
        server.get(path_of(made.with_files[0]), HEADERS)
        asked, share = _held_mb(server), _held_mb(server, "Pss")
        server.get("/api/conversations/", HEADERS)
        listed = _held_mb(server)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        with agentsight(Path(folder), init_key=KEY) as server:
            send_file(server, Upload("/api/attachments/", 1_000_000), 1)
            server.get("/api/conversations/", HEADERS)
            written = _held_mb(server)
        starts = [start_s(Path(folder)) for _ in range(N_STARTS)]
    large_starts = [start_s(made.data) for _ in range(N_STARTS)]
    title("Idle memory of the process tree (resident)")
    line("ready", f"{ready:.1f} MB")
    line("after a page of transcripts of the large database", f"{listed:.1f} MB")
    line("after a first start, an upload and a page", f"{written:.1f} MB")
    line("after the one call, its share (Pss)", f"{share:.1f} MB")
    is_small = verdict("after the one call", asked, most=90, unit=" MB")
    title(f"From exec to the first 200 of /healthz (median and slowest of {N_STARTS})")
    times = [seconds for seconds, _ in starts]
    large_times = [seconds for seconds, _ in large_starts]
    line("slowest", f"{max(times):.2f} s", f"large database {max(large_times):.2f} s")
    line("its CPU, median", f"{median([cpu for _, cpu in starts]):.2f} s")
    return all([
        is_small,
        verdict("a small database, again", median(times), most=1, unit=" s"),
        verdict("the large database, again", median(large_times), most=1, unit=" s"),
    ])  # fmt: skip
