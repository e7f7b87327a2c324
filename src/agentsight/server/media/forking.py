"""A worker for each job: what a file does to a process ends with that process.

The process that the lane started loads libraries, once, and forks; it never opens a file, and it
keeps nothing of what passes through it: questions and answers go through buffers that are wiped,
so that no worker is born with names and texts of another tenant in its memory. It has no threads,
which a fork would cut off.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Final

from agentsight.server.media.confinement import follow
from agentsight.server.media.protocol import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    Ended,
    describe_exit,
    frame,
    of_length,
)
from agentsight.server.media.sandbox import NotLaid

_PIECE_BYTES: Final = 64 * 1024
"""What a pipe holds (pipe(7))."""
_NOT_LAID: Final = 77
"""Exit code of a worker whose sandbox was refused; no library exits with it."""

Load = Callable[[bytearray], bytes | None]
Work = Callable[[bytearray, int], bytes]


def serve(
    jobs: int,
    replies: int,
    *,
    load: Load,
    work: Work,
    is_forking: bool = sys.platform == "linux",
) -> None:
    """Answer jobs until the pipe is closed.

    Args:
        jobs: Descriptor to read frames from.
        replies: Descriptor to write answers to: the answer in pieces, an empty one, what `Ended`
            tells.
        load: Imports what a job needs; returns an answer where that cannot be.
        work: Does a job, in a worker that is thrown away afterwards; is told which descriptor must
            stay open for its answer.
        is_forking: Without, jobs are done in place: frameworks of macOS do not survive a fork.
    """
    while (body := _read_frame(jobs)) is not None:
        answer = load(body)
        if answer is not None or not is_forking:
            answer = work(body, replies) if answer is None else answer
            _write(replies, of_length(answer))
            _write(replies, answer)
            ended = Ended()
        else:
            ended = _fork(body, replies, work)
        body[:] = bytes(len(body))
        _write(replies, bytes(LENGTH_BYTES) + frame(ended))


def _fork(body: bytearray, replies: int, work: Work) -> Ended:
    reader, writer = os.pipe()
    parent_pid = os.getpid()
    pid = os.fork()
    if not pid:
        _be_worker(body, writer, parent_pid, work)
    os.close(writer)
    try:
        is_sane = _relay(reader, replies)
    finally:
        os.close(reader)
    if not is_sane:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    died = None if not code else describe_exit(code)
    if not is_sane:
        died = "it answered nonsense"
    elif code == _NOT_LAID:
        died = "the sandbox was refused by the kernel"
    return Ended(died=died, peak_bytes=usage.ru_maxrss * 1024)


def _be_worker(body: bytearray, writer: int, parent_pid: int, work: Work) -> None:
    """Do the job and end; never returns, whatever happens."""
    code = 1
    try:
        follow(parent_pid)
        _write(writer, work(body, writer))
        code = 0
    except NotLaid:
        code = _NOT_LAID
    finally:
        os._exit(code)  # nothing that a file has set up is run on the way out


def _relay(reader: int, replies: int) -> bool:
    """Pass a worker's answer on in pieces; False when it is longer than any can be.

    Pieces are counted here: a worker cannot put the answer to the next job behind its own.
    """
    n_bytes = 0
    buffer = bytearray(LENGTH_BYTES + _PIECE_BYTES)
    view = memoryview(buffer)
    try:
        while n_read := os.readv(reader, [view[LENGTH_BYTES:]]):
            n_bytes += n_read
            if n_bytes > MAX_FRAME_BYTES:
                return False
            view[:LENGTH_BYTES] = n_read.to_bytes(LENGTH_BYTES, "big")
            _write(replies, view[: LENGTH_BYTES + n_read])
        return True
    finally:
        buffer[:] = bytes(len(buffer))


def _read_frame(jobs: int) -> bytearray | None:
    head = _read(jobs, LENGTH_BYTES)
    return None if head is None else _read(jobs, int.from_bytes(head, "big"))


def _read(jobs: int, n_bytes: int) -> bytearray | None:
    body = bytearray(n_bytes)
    view = memoryview(body)
    while view:
        n_read = os.readv(jobs, [view])
        if not n_read:
            return None
        view = view[n_read:]
    return body


def _write(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
