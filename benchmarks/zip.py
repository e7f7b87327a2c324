"""What does the ZIP of a conversation cost, beside reading the same bytes from the disk?

A thousand files of 200 KB, sent over loopback by the server and thrown away by the client. The
disk's part is `read` into one buffer, file by file, in this process, after the pages were dropped
from the cache (`posix_fadvise`); the ZIP's files are dropped alike. Memory is the most that the
server had beyond what it has when it has just answered a small ZIP. A second conversation has ten
thousand files of 2 KB.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.dataset import HEADERS, KEY, uid_at
from benchmarks.measuring import (
    SCRATCH,
    Server,
    agentsight,
    line,
    median,
    memory_mb,
    ratio,
    take_turns,
    title,
    verdict,
)

N_ROUNDS = 5
CONVERSATIONS = {"small": (1, 1000), "large": (1000, 200_000), "many": (10_000, 2_000)}
"""Files, and bytes of each."""
_AT = 1_780_000_000_000_000
_PER_MESSAGE = 10


def make_conversations(
    data: Path, conversations: Mapping[str, tuple[int, int]], *, per_message: int = _PER_MESSAGE
) -> dict[str, list[Path]]:
    """Make a data directory with conversations of so many files of so many bytes.

    Row ids count from 1 in the order given; returns the files of each.
    """
    with agentsight(data, init_key=KEY):
        pass
    db = sqlite3.connect(data / "agentsight.db", isolation_level=None)
    agent_id, environment_id = db.execute(
        "SELECT agent_id, id FROM environments WHERE is_production = 1"
    ).fetchone()
    db.execute("BEGIN")
    paths: dict[str, list[Path]] = {}
    number = message_id = 0
    for pk, (name, (n_files, size)) in enumerate(conversations.items(), start=1):
        db.execute(
            "INSERT INTO conversations (id, agent_id, uid, conversation_id, environment_id,"
            " started_at, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?)",
            (pk, agent_id, uid_at(1, pk, _AT), name, environment_id, _AT, _AT, _AT),
        )
        for place in range(n_files):
            if place % per_message == 0:
                message_id += 1
                db.execute(
                    "INSERT INTO messages (id, agent_id, conversation_id, uid, kind, sender,"
                    " content, timestamp, created_at, updated_at)"
                    " VALUES (?,?,?,?,'text','end_user','x',?,?,?)",
                    (message_id, agent_id, pk, uid_at(2, message_id, _AT), _AT + message_id, _AT,
                     _AT),
                )  # fmt: skip
            number += 1
            paths.setdefault(name, []).append(
                _put_file(db, data, agent_id, pk, message_id, number, size)
            )
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    os.sync()
    return paths


def _put_file(
    db: sqlite3.Connection, data: Path, agent_id: int, pk: int, message_id: int, number: int,
    size: int,
) -> Path:  # fmt: skip
    uid, content = uid_at(4, number, _AT), random.Random(number).randbytes(size)
    key = f"blobs/{agent_id}/{uid[-2:]}/{uid}"
    path = data / "files" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    db.execute(
        "INSERT INTO blobs (id, agent_id, uid, object_key, sha256, size_bytes, state, created_at,"
        " updated_at) VALUES (?,?,?,?,?,?,'stored',?,?)",
        (number, agent_id, uid, key, sha256, size, _AT, _AT),
    )
    db.execute(
        "INSERT INTO attachments (id, agent_id, conversation_id, message_id, blob_id, uid, type,"
        " filename, filename_folded, mime_type, sender, sent_at, size_bytes, sha256, created_at,"
        " updated_at) VALUES (?,?,?,?,?,?,'image',?,?,'image/jpeg','end_user',?,?,?,?,?)",
        (number, agent_id, pk, message_id, number, uid_at(5, number, _AT), "image.jpg",
         "image.jpg", _AT + message_id, size, sha256, _AT, _AT),
    )  # fmt: skip
    return path


def _drop(paths: list[Path]) -> None:
    """Let the kernel forget what it holds of files."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _read_s(paths: list[Path], *, is_cold: bool) -> float:
    if is_cold:
        _drop(paths)
    buffer = bytearray(1 << 20)
    started = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        while os.readv(descriptor, [buffer]):
            pass
        os.close(descriptor)
    return time.perf_counter() - started


def _zip_s(server: Server, name: str, paths: list[Path], *, is_cold: bool) -> float:
    if is_cold:
        _drop(paths)
    buffer = memoryview(bytearray(1 << 20))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    started = time.perf_counter()
    connection.request(
        "GET", f"/api/v1/conversations/by-id/{name}/attachments/zip/", headers=HEADERS
    )
    answer = connection.getresponse()
    n_bytes = 0
    while n := answer.readinto(buffer):
        n_bytes += n
    seconds = time.perf_counter() - started
    connection.close()
    n_files, size = CONVERSATIONS[name]
    if answer.status != 200 or n_bytes < n_files * size:
        raise SystemExit(f"the ZIP of {name} answered {answer.status} with {n_bytes} bytes")
    return seconds


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    data = SCRATCH / "zip"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    paths = make_conversations(data, CONVERSATIONS)
    large = paths["large"]
    with agentsight(data, examine="off") as server:
        pid = server.process.pid
        _zip_s(server, "small", paths["small"], is_cold=False)
        before = memory_mb(pid, "VmHWM")
        found = take_turns(
            N_ROUNDS,
            {
                "disk": lambda: _read_s(large, is_cold=True),
                "zip": lambda: _zip_s(server, "large", large, is_cold=True),
                "cached": lambda: _read_s(large, is_cold=False),
                "cached zip": lambda: _zip_s(server, "large", large, is_cold=False),
            },
        )
        added = memory_mb(pid, "VmHWM") - before
        many_s = min(_zip_s(server, "many", paths["many"], is_cold=False) for _ in range(3))
        added_many = memory_mb(pid, "VmHWM") - before
    n_mb = 1000 * 200_000 / 1e6
    title("The ZIP of 1,000 files of 200 KB, over loopback")
    for name in found:
        line(name, f"{n_mb / median(found[name]):.0f} MB/s")
    line("reading / ZIP, all in the kernel's cache", f"{ratio(found, 'cached', 'cached zip'):.2f}")
    are_met = [
        verdict("reading from disk / ZIP, in time", ratio(found, "disk", "zip"), least=0.4),
        verdict("memory added by the ZIP", added, most=32, unit=" MB"),
    ]
    title("The ZIP of 10,000 files of 2 KB")
    line("in all", f"{many_s:.2f} s", f"{many_s * 1e6 / 10_000:.0f} µs a file")
    are_met.append(verdict("memory added by both", added_many, most=32, unit=" MB"))
    return all(are_met)
