"""How fast do files go out and in, beside nginx? And how much memory does a large upload take?

Server and nginx run on one core each in turn, the load on the other. Files lie in memory
(`/dev/shm`) where there is one: the disk is the same for both and is not what is asked.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.dataset import HEADERS, KEY
from benchmarks.measuring import (
    LOAD_CORE,
    SCRATCH,
    UVICORN_FLAGS,
    Load,
    Server,
    agentsight,
    free_port,
    line,
    median,
    memory_mb,
    nginx,
    process_tree,
    program,
    ratio,
    running,
    take_turns,
    title,
    verdict,
    wrk,
)

MB = 1_000_000
N_ROUNDS = 5
SECONDS = 3
N_UPLOADS = 6
_BOUNDARY = b"----benchmark-7d1f0c9a"
_PIECE = 256 * 1024


# --- Uploading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upload:
    """Where a file goes and how: `multipart` to us, else the plain body of a PUT."""

    path: str
    n_bytes: int
    is_multipart: bool = True


def send_file(server: Server, upload: Upload, number: int) -> bytes:
    """Send a file no two of which are alike over a raw socket; return the answer's body."""
    head, tail = b"", b""
    method, kind = "PUT", "application/octet-stream"
    if upload.is_multipart:
        method, kind = "POST", f"multipart/form-data; boundary={_BOUNDARY.decode()}"
        head = (
            b'--%b\r\nContent-Disposition: form-data; name="conversation_id"\r\n\r\nupload\r\n'
            b'--%b\r\nContent-Disposition: form-data; name="attachment_0"; filename="f.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n" % (_BOUNDARY, _BOUNDARY)
        )
        tail = b"\r\n--%b--\r\n" % _BOUNDARY
    lines = [
        f"{method} {upload.path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}",
        f"Authorization: {HEADERS['Authorization']}", f"Content-Type: {kind}",
        f"Content-Length: {len(head) + upload.n_bytes + len(tail)}", "Connection: close", "", "",
    ]  # fmt: skip
    first = number.to_bytes(8) + os.urandom(8)
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as connection:
        connection.sendall("\r\n".join(lines).encode() + head + first)
        left = upload.n_bytes - len(first)
        while left:
            step = min(left, _PIECE)
            connection.sendall(_NOISE[:step])
            left -= step
        connection.sendall(tail)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    status, _, body = answer.partition(b"\r\n\r\n")
    if status.split()[1] not in (b"200", b"201", b"204"):
        raise SystemExit(f"an upload was answered {answer[:500]!r}")
    return body


_NOISE = memoryview(os.urandom(_PIECE))
_counter = iter(range(1, 1_000_000))


def _upload_load(server: Server, upload: Upload, folder: Path) -> Load:
    """Send some files one after the other, and throw them away."""
    before, started = server.cpu_ns(), time.perf_counter()
    for _ in range(N_UPLOADS):
        number = next(_counter)
        path = upload.path if upload.is_multipart else f"{upload.path}{number}"
        send_file(server, Upload(path, upload.n_bytes, upload.is_multipart), number)
    seconds, cpu_ns = time.perf_counter() - started, server.cpu_ns() - before
    for found in [*folder.rglob("*")]:
        if found.is_file() and found.stat().st_size >= upload.n_bytes:
            found.unlink()
    return Load(N_UPLOADS, seconds, N_UPLOADS * upload.n_bytes, cpu_ns)


# --- Questions ------------------------------------------------------------------------------------


class _Rates:
    """Takes turns and keeps both, requests a second and CPU a request."""

    def __init__(self, loads: dict[str, Callable[[], Load]]) -> None:
        self.cpu_us: dict[str, list[float]] = {name: [] for name in loads}
        self.rates = take_turns(
            N_ROUNDS, {name: functools.partial(self._once, name, load)
                       for name, load in loads.items()}
        )  # fmt: skip

    def _once(self, name: str, load: Callable[[], Load]) -> float:
        found = load()
        self.cpu_us[name].append(found.cpu_us)
        return found.rate

    def tell(self, name: str, n_bytes: int) -> None:
        """Print one of them."""
        rate = median(self.rates[name])
        cpu_ms = median(self.cpu_us[name][1:]) / 1000
        more = f"CPU {cpu_ms:.2f} ms each"
        line(name, f"{rate * n_bytes / MB:,.0f} MB/s", more)


def _stored(server: Server, n_bytes: int) -> str:
    """Store a file and return the path of its link."""
    body = send_file(server, Upload("/api/attachments/", n_bytes), next(_counter))
    return urlsplit(json.loads(body)["attachments"][0]["file_url"]).path


def _down(folder: Path) -> list[bool]:
    data = folder / "down"
    port = free_port()
    config = f"""
      location /plain/ {{ alias {data}/files/; }}
      location /internal/ {{ internal; alias {data}/files/; }}
      location / {{ proxy_pass http://127.0.0.1:%d; proxy_set_header Host $http_host; }}
    """
    with agentsight(data, init_key=KEY) as server:
        large, small = _stored(server, 50 * MB), _stored(server, 250_000)
        paths = {p.stat().st_size: p for p in (data / "files").rglob("*") if p.is_file()}
        plain = {
            n: "/plain/" + str(p.relative_to(data / "files")) for n, p in paths.items() if n > 1000
        }
        with (
            agentsight(data, x_accel_redirect="/internal/") as accelerated,
            nginx(config % accelerated.port, port, folder / "nginx") as front,
        ):
            tasks = {
                "nginx, 50 MB": (front, plain[50 * MB], 4),
                "we, 50 MB": (server, large, 4),
                "we behind nginx, 50 MB": (front, large, 4),
                "nginx, 250 KB": (front, plain[250_000], 8),
                "we, 250 KB": (server, small, 8),
                "we behind nginx, 250 KB": (front, small, 8),
            }
            found = _Rates({
                name: functools.partial(wrk, who, path, seconds=SECONDS, connections=n)
                for name, (who, path, n) in tasks.items()
            })  # fmt: skip
    title("Down (load: wrk): nginx with sendfile, we, and we behind nginx with X-Accel-Redirect")
    for name in tasks:
        found.tell(name, 50 * MB if "50 MB" in name else 250_000)
    rates = found.rates
    return [
        verdict("50 MB: we / nginx", ratio(rates, "we, 50 MB", "nginx, 50 MB"), least=0.4),
        verdict("50 MB behind nginx / nginx",
                ratio(rates, "we behind nginx, 50 MB", "nginx, 50 MB"), least=0.9),
        verdict("250 KB: we / nginx", ratio(rates, "we, 250 KB", "nginx, 250 KB"), least=0.12),
    ]  # fmt: skip


def _up(folder: Path) -> list[bool]:
    data, port, ours = folder / "up", free_port(), free_port()
    with agentsight(data, init_key=KEY):
        pass  # makes schema, key and store
    put = folder / "put"
    put.mkdir()
    config = f"location /put/ {{ alias {put}/; dav_methods PUT; client_max_body_size 0; }}"
    command = [
        program("uvicorn"), "benchmarks.undurable:make", "--factory", "--port", str(ours),
        *UVICORN_FLAGS,
    ]  # fmt: skip
    env = {"AGENTSIGHT_DATA_DIR": str(data)}
    with (
        running(command, ours, path="/healthz", env=env) as server,
        nginx(config, port, folder / "nginx-put") as front,
    ):
        us = Upload("/api/attachments/", 50 * MB)
        it = Upload("/put/", 50 * MB, is_multipart=False)
        found = _Rates({
            "nginx, PUT of 50 MB": lambda: _upload_load(front, it, put),
            "we, multipart of 50 MB, hashed": lambda: _upload_load(server, us, data / "files"),
        })  # fmt: skip
    title("Up (load: raw sockets, one upload at a time; no fsync on either side)")
    names = list(found.rates)
    for name in names:
        found.tell(name, 50 * MB)
    return [verdict("50 MB: we / nginx", ratio(found.rates, names[1], names[0]), least=0.25)]


def _memory(folder: Path) -> list[bool]:
    with agentsight(folder / "memory", init_key=KEY) as server:
        send_file(server, Upload("/api/attachments/", 1000), next(_counter))
        pid = process_tree(server.process.pid)[-1]
        before = memory_mb(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from here
        send_file(server, Upload("/api/attachments/", 200 * MB), next(_counter))
        added = memory_mb(pid, "VmHWM") - before
    title("A multipart upload of 200 MB, synced to the disk")
    return [verdict("memory of the worker above what it had", added, most=64, unit=" MB")]


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    os.sched_setaffinity(0, {LOAD_CORE})
    SCRATCH.mkdir(parents=True, exist_ok=True)
    in_memory = Path("/dev/shm")
    has_room = in_memory.is_dir() and shutil.disk_usage(in_memory).free > 3000 * MB
    with (
        tempfile.TemporaryDirectory(dir=in_memory if has_room else SCRATCH) as quick,
        tempfile.TemporaryDirectory(dir=SCRATCH) as on_disk,
    ):
        return all([*_down(Path(quick)), *_up(Path(quick)), *_memory(Path(on_disk))])
