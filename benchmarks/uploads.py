"""What does the native upload cost: the same file again, many at once, and beside multipart?

Asked of the local store, and of SeaweedFS, a real S3 store that runs beside the load. Files lie on
a real disk and are synced.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.dataset import HEADERS, KEY
from benchmarks.files import Upload, send_file
from benchmarks.measuring import (
    LOAD_CORE,
    SCRATCH,
    Server,
    agentsight,
    line,
    median,
    memory_mb,
    process_tree,
    take_turns,
    title,
    verdict,
)

MB = 1_000_000
SIZE = 50 * MB
N_ROUNDS = 5
N_AGAIN = 5
"""One commit takes a few ms, or as long as the disk is busy with the 50 MB before it."""
N_AT_ONCE = 64
_PIECE = 256 * 1024
_NOISE = memoryview(os.urandom(_PIECE))
_numbers = iter(range(1, 1_000_000))


class File:
    """Bytes that no other file has, without room for all of them: a number, then noise."""

    def __init__(self, n_bytes: int = SIZE) -> None:
        self.n_bytes = n_bytes
        self._first = next(_numbers).to_bytes(8) + os.urandom(8)

    def pieces(self) -> Generator[bytes | memoryview]:
        yield self._first
        left = self.n_bytes - len(self._first)
        while left:
            step = min(left, _PIECE)
            yield _NOISE[:step]
            left -= step

    def sha256(self) -> str:
        running = hashlib.sha256()
        for piece in self.pieces():
            running.update(piece)
        return running.hexdigest()


def _ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any, **headers: str
) -> tuple[int, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers={**HEADERS, **named})
    answer = connection.getresponse()
    return answer.status, answer.read()


def bring(server: Server, file: File, sha256: str | None) -> str:
    """Upload a file as our own clients do; return its state when announced."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    ) as connection:
        body = {"filename": "f.bin", "size_bytes": file.n_bytes} | (
            {"sha256": sha256} if sha256 else {}
        )
        status, said = _ask(
            connection, "POST", "/api/v1/uploads/", json.dumps(body),
            content_type="application/json",
        )  # fmt: skip
        told = json.loads(said)
        if status == 201:
            status, said = _ask(
                connection, "PATCH", urlsplit(told["upload_url"]).path, file.pieces(),
                content_type="application/offset+octet-stream", upload_offset="0",
                content_length=str(file.n_bytes),
            )  # fmt: skip
        if status not in (200, 204):
            raise SystemExit(f"an upload was answered {status} {said[:300]!r}")
        return str(told["state"])


def _usage(server: Server) -> dict[str, Any]:
    status, body = server.get("/api/v1/usage/storage/", HEADERS)
    if status != 200:
        raise SystemExit(f"the use of storage was answered {status}")
    return json.loads(body)


# --- Questions ------------------------------------------------------------------------------------


def _again(server: Server) -> list[bool]:
    """Upload each file, and then again a few times. Hashing it before is told apart."""
    firsts: list[float] = []
    seconds: list[float] = []
    hashing: list[float] = []
    for number in range(N_ROUNDS + 1):
        file, started = File(), time.perf_counter()
        sha256 = file.sha256()
        hashed = time.perf_counter()
        states = [bring(server, file, sha256)]
        first = time.perf_counter()
        n_blobs = _usage(server)["blobs"]
        again = [_timed_again(server, file, sha256, states) for _ in range(N_AGAIN)]
        if states != ["pending", *["stored"] * N_AGAIN] or _usage(server)["blobs"] != n_blobs:
            raise SystemExit(f"the second upload made something new: {states}")
        if number:
            hashing.append(hashed - started)
            firsts.append(first - hashed)
            seconds.append(median(again))
    share = median([b / a for a, b in zip(firsts, seconds, strict=True)]) * 100
    line("the first upload of 50 MB", f"{median(firsts) * 1000:.0f} ms")
    line("the second, no second object made", f"{median(seconds) * 1000:.1f} ms")
    line("hashing on the client's side, before either", f"{median(hashing) * 1000:.0f} ms")
    return [verdict("the second / the first", share, most=5, unit=" %")]


def _timed_again(server: Server, file: File, sha256: str, states: list[str]) -> float:
    started = time.perf_counter()
    states.append(bring(server, file, sha256))
    return time.perf_counter() - started


def _at_once(server: Server) -> list[bool]:
    files = [File() for _ in range(N_AT_ONCE)]
    before = _usage(server)
    pid = process_tree(server.process.pid)[-1]
    memory = memory_mb(pid, "VmRSS")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from here
    started = time.perf_counter()
    with ThreadPoolExecutor(N_AT_ONCE) as pool:
        states = list(pool.map(lambda file: bring(server, file, None), files))
    seconds = time.perf_counter() - started
    added = memory_mb(pid, "VmHWM") - memory
    after = _usage(server)
    n_stored = after["blobs"] - before["blobs"]
    n_bytes = after["stored_bytes"] - before["stored_bytes"]
    line("64 × 50 MB at once", f"{N_AT_ONCE * SIZE / MB / seconds:,.0f} MB/s", f"{seconds:.1f} s")
    n_lost = len(states) - n_stored if n_bytes == n_stored * SIZE else N_AT_ONCE
    return [
        verdict("lost", float(n_lost), most=0),
        verdict("memory of the worker above what it had", added, most=200, unit=" MB"),
    ]


def _beside_multipart(server: Server) -> list[bool]:
    form = Upload("/api/attachments/", SIZE)

    def by_patch() -> float:
        started = time.perf_counter()
        bring(server, File(), None)
        return SIZE / MB / (time.perf_counter() - started)

    def by_form() -> float:
        started = time.perf_counter()
        send_file(server, form, next(_numbers))
        return SIZE / MB / (time.perf_counter() - started)

    found = take_turns(N_ROUNDS, {"PATCH": by_patch, "multipart": by_form})
    for name, rates in found.items():
        line(f"50 MB by {name}, synced", f"{median(rates):,.0f} MB/s")
    return []


# --- Stores ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _seaweed(folder: Path) -> Generator[Mapping[str, str]]:
    """Run SeaweedFS and give the environment that reaches it."""
    from tests.support.seaweed import Seaweed

    (folder / "seaweed").mkdir()
    store = Seaweed(folder / "seaweed").start()
    try:
        yield {**store.environ, "AGENTSIGHT_STORAGE_URL": store.new_url()}
    finally:
        store.stop()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """Set variables of this process, which its children get, for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ask_all(name: str, folder: Path) -> list[bool]:
    with agentsight(folder / "data", init_key=KEY, examine="off") as server:
        bring(server, File(1000), None)
        title(f"{name}: the same file again")
        results = _again(server)
        title(f"{name}: PATCH and multipart, one at a time")
        results += _beside_multipart(server)
        title(f"{name}: many at once")
        return results + _at_once(server)


def main() -> bool:
    """Measure, and print; True when the floors are met.

    `AGENTSIGHT_TEST_STORES` (`local`, `seaweedfs`, or both with a comma) says which are asked.
    """
    os.sched_setaffinity(0, {LOAD_CORE})
    threading.stack_size(512 * 1024)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    wanted = os.environ.get("AGENTSIGHT_TEST_STORES", "local,seaweedfs").split(",")
    results: list[bool] = []
    if "local" in wanted:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
            results += _ask_all("A local directory", Path(folder))
    if "seaweedfs" in wanted:
        with (
            tempfile.TemporaryDirectory(dir=SCRATCH) as folder,
            _seaweed(Path(folder)) as environment,
            _environment(environment),
        ):
            results += _ask_all("SeaweedFS", Path(folder))
    return all(results)
