"""One examining process and the thread that talks with it: jobs one after the other.

The process is started for the first job, has a worker for each (`forking.py`), and is ended after
a while without one, after many jobs (all its workers have the same addresses, which helps who tries
to take one over again and again), and when a job takes too long. The thread starts it, and the
kernel ends it when the thread ends, and its worker with it, however that comes about.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

import msgspec

from agentsight.server.media.model import ExaminerDied
from agentsight.server.media.protocol import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    READY,
    Ended,
    Job,
    Reply,
    describe_exit,
    frame,
)

_CHILD: Final = "agentsight.server.media.child"
# All that a process needs to find its interpreter and libraries. No AGENTSIGHT_*, no AWS_*: whoever
# takes it over by a hostile file finds nothing to take.
_KEPT_VARIABLES: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
_READ_BYTES: Final = 1 << 20
_START_S: Final = 30.0
"""What a new process may take until it is ready; no file's fault, and not of its time."""


class _Task:
    """One job that waits or runs, and whether anybody still wants its answer."""

    __slots__ = ("is_abandoned", "job")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.is_abandoned = False


class Lane:
    """Runs jobs in a process of its own, one at a time, in the order they came.

    `close()` ends process and thread; so does the end of this process.

    Args:
        name: For the thread and its process.
        memory_bytes: Address space that the process may take.
        niceness: How far it steps back for the server, 0 to 19.
        idle_s: How long it lives without a job.
        max_jobs: After so many it is replaced.
    """

    def __init__(
        self, name: str, *, memory_bytes: int, niceness: int, idle_s: float, max_jobs: int
    ) -> None:
        self._memory_bytes = memory_bytes
        self._niceness = niceness
        self._idle_s = idle_s
        self._max_jobs = max_jobs
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"examine-{name}")
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._running: _Task | None = None
        self._n_jobs = 0
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.peak_bytes = 0
        """The most memory that any job has taken so far."""

    @property
    def pid(self) -> int | None:
        """The process that lives now, if any."""
        process = self._process
        return process.pid if process else None

    async def ask(self, job: Job) -> Reply:
        """Run one job and return its answer.

        Raises:
            ExaminerDied: When its limits ended the job, or it crashed.
        """
        if self._is_closed:
            raise RuntimeError("the examiner is closed")
        if self._idle:
            self._idle.cancel()
        task = _Task(job)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._run, task)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        finally:
            if not self._is_closed:
                if self._idle:
                    self._idle.cancel()
                self._idle = loop.call_later(self._idle_s, self._rest)

    async def close(self) -> None:
        """End the process and the thread. Jobs that wait or run fail."""
        self._is_closed = True
        if self._idle:
            self._idle.cancel()
        with self._guard:
            self._kill()
        # The thread reaps what it started; it has at most a killed process to wait for.
        await asyncio.get_running_loop().run_in_executor(None, self._end)

    def _end(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._pool.submit(self._reap)
        self._pool.shutdown(wait=True)

    def _rest(self) -> None:
        """End a process that has had nothing to do, unless a job came in between."""
        if not self._is_closed:
            self._pool.submit(self._reap)

    def _abandon(self, task: _Task) -> None:
        """Stop work that nobody waits for; its frame would be taken for the next one's answer."""
        with self._guard:
            task.is_abandoned = True
            if self._running is task:
                self._kill()

    def _kill(self) -> None:
        if self._process:
            self._process.kill()

    # What follows runs in the lane's thread.

    def _run(self, task: _Task) -> Reply:
        with self._guard:
            if task.is_abandoned or self._is_closed:
                raise _died(task.job, "the server is stopping")
            process, is_new = self._start_if_needed()
            self._running = task
        try:
            if is_new:
                _await_ready(process, task.job)
            reply, ended = _exchange(process, task.job)
        except BaseException:
            self._reap()
            raise
        finally:
            with self._guard:
                self._running = None
        self._n_jobs += 1
        # An abandoned one may have been killed after its answer: the next must not be sent to it.
        if task.is_abandoned or self._n_jobs >= self._max_jobs:
            self._reap()
        self.peak_bytes = max(self.peak_bytes, ended.peak_bytes)
        if ended.died:
            raise _died(task.job, ended.died)
        return reply

    def _start_if_needed(self) -> tuple[subprocess.Popen[bytes], bool]:
        if self._process and self._process.poll() is not None:  # ended by somebody meanwhile
            self._forget(self._process)
        if self._process:
            return self._process, False
        self._process = _start(self._memory_bytes, self._niceness)
        self._n_jobs = 0
        return self._process, True

    def _reap(self) -> None:
        process = self._process
        if process:
            process.kill()
            process.wait()
            with self._guard:
                self._forget(process)

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process = None


def _start(memory_bytes: int, niceness: int) -> subprocess.Popen[bytes]:
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # One arena a thread would use up the address space that RLIMIT_AS allows (mallopt(3)).
    environment |= {"MALLOC_ARENA_MAX": "2", "LANG": "C.UTF-8"}
    arguments = [str(memory_bytes), str(niceness), str(os.getpid())]
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-P", "-m", _CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env=environment,
        cwd="/",
    )


def _await_ready(process: subprocess.Popen[bytes], job: Job) -> None:
    assert process.stdout
    try:
        if _read(process.stdout, LENGTH_BYTES, time.monotonic() + _START_S) != READY:
            raise _died(job, "the process did not start as it should")
    except TimeoutError:
        raise _died(job, f"the process did not start within {_START_S:g} s") from None
    except (EOFError, OSError):
        raise _died(job, f"the process did not start: {_ending(process)}") from None


def _exchange(process: subprocess.Popen[bytes], job: Job) -> tuple[Reply, Ended]:
    assert process.stdin
    assert process.stdout
    end_at = time.monotonic() + job.timeout_s
    body = bytearray()
    try:
        process.stdin.write(frame(job))
        while piece := _read_frame(process.stdout, end_at):
            body += piece
            if len(body) > MAX_FRAME_BYTES:
                raise _died(job, "it answered nonsense")
        ended = msgspec.json.decode(_read_frame(process.stdout, end_at), type=Ended)
        return Reply() if ended.died else msgspec.json.decode(body, type=Reply), ended
    except TimeoutError:
        raise _died(job, f"took more than {job.timeout_s:g} s") from None
    except (EOFError, OSError):
        raise _died(job, _ending(process)) from None
    except msgspec.DecodeError:
        raise _died(job, "it answered nonsense") from None


def _read_frame(pipe: IO[bytes], end_at: float) -> bytes:
    length = int.from_bytes(_read(pipe, LENGTH_BYTES, end_at), "big")
    return _read(pipe, length, end_at)


def _read(pipe: IO[bytes], n_bytes: int, end_at: float) -> bytes:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    got = bytearray()
    while len(got) < n_bytes:
        left_s = end_at - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            raise TimeoutError
        chunk = os.read(pipe.fileno(), min(_READ_BYTES, n_bytes - len(got)))
        if not chunk:
            raise EOFError
        got += chunk
    return bytes(got)


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "it stopped answering"
    return describe_exit(code)


def _died(job: Job, reason: str) -> ExaminerDied:
    try:
        size_bytes = os.stat(job.path).st_size
    except OSError:
        size_bytes = 0
    return ExaminerDied(job.mime_type, size_bytes, reason)
