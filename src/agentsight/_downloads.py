"""Fetch a conversation's files into a directory: side by side, resumed, verified.

Each file is written to `.agentsight-<uid>.part`, hashed on the way, compared with the SHA-256 that
the server keeps, and only then given its name: whatever has its name is whole. What is cut off goes
on from where the part ends, in this call or the next. The bytes come from the file's permanent
address, by key, so that no link can expire on the way.

Operations and plain functions; who drives them, in threads or tasks, is below.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from agentsight._contract import FILES_PATH
from agentsight._flow import LocalTrouble, Meter, Operation, Request, is_passing, locally
from agentsight._operations import Json, error_of, fetch_attachments
from agentsight._placing import Job, Row, plan
from agentsight.exceptions import ConversationNetworkException, DownloadException
from agentsight.types import DownloadedFile

if TYPE_CHECKING:
    from agentsight._base import AsyncClient, SyncClient
    from agentsight._operations import ConversationRef

Progress: TypeAlias = Callable[[int, int, str], object]
Tell: TypeAlias = Callable[[DownloadedFile], object]

_READ_BYTES: Final = 1024 * 1024
_TIMEOUT_S: Final = 45.0
_MAX_CUTS: Final = 200
"""So often a file is taken up again in one call, as long as each cut left some bytes."""
_DISK_TROUBLES: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Not the fault of one file: the others are not tried."""


class Stopped(Exception):
    """Somebody wants all downloads to end."""


# --- One file -----------------------------------------------------------------------------------


class PartFile:
    """The sink of one file's bytes. `open` it before and `leave` it after."""

    def __init__(self, job: Job, session: Session) -> None:
        self._job = job
        self._session = session
        self._descriptor = -1
        self._hasher = hashlib.sha256()
        self.meter = Meter()
        self.offset = 0

    def open(self) -> None:
        """Open or make the part, and hash what it has."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._descriptor = os.open(self._job.part, flags, 0o666)
            if os.fstat(self._descriptor).st_nlink > 1:  # a crash came between `link` and `unlink`
                self.close()
                self._job.part.unlink()
                self._descriptor = os.open(self._job.part, flags | os.O_EXCL, 0o666)
            self._lock()
            while chunk := os.read(self._descriptor, _READ_BYTES):
                self._take(chunk)
        except PermissionError as error:
            if os.path.lexists(self._job.part):
                raise _trouble(error) from error
            directory = self._job.part.parent
            raise _DiskTrouble(
                f"nothing may be written in {directory}: change its permissions, or choose another"
            ) from error
        except OSError as error:
            raise _trouble(error) from error
        if self.offset > self._job.row.size_bytes:
            self.restart()

    def restart(self) -> None:
        """Begin at the first byte again."""
        try:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
        except OSError as error:
            raise _trouble(error) from error
        self._hasher, self.offset = hashlib.sha256(), 0
        self._session.tell(self._job, 0)

    def headers(self) -> Mapping[str, str]:
        """Ask for what is missing.

        Without If-Range: what a uid names never changes, nginx and S3 have ETags of their own, and
        the hash decides in the end.
        """
        plain = {"Accept-Encoding": "identity"}
        return plain | {"Range": f"bytes={self.offset}-"} if self.offset else plain

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Find the place of what comes now."""
        if status != 206:
            if self.offset:
                self.restart()
        elif not headers.get("content-range", "").startswith(f"bytes {self.offset}-"):
            raise LocalTrouble("the server sent another part of the file than it was asked for")

    def write(self, chunk: bytes) -> None:
        """Append."""
        if self._session.is_stopped:
            raise Stopped
        if self.offset + len(chunk) > self._job.row.size_bytes:
            raise LocalTrouble("the server sent more bytes than the file has")
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _trouble(error) from error
        self._take(chunk)
        self.meter.n_bytes += len(chunk)

    def finish(self, *, overwrite: bool) -> bool:
        """Verify the file and give it its name; False where its bytes are not those announced.

        The name appears in one step, with all bytes written; it is not synced, so that it may not
        outlive a power failure of the next seconds.
        """
        if self._hasher.hexdigest() != self._job.row.sha256:
            return False
        self.close()
        part, path = self._job.part, self._job.path
        try:
            if overwrite:
                part.replace(path)
            else:
                _move_to_free_name(part, path)
        except OSError as error:
            raise _trouble(error) from error
        return True

    def leave(self) -> None:
        """Let go; what was written stays for the next time, and where nothing was, nothing does."""
        if self._descriptor >= 0 and not self.offset:
            with contextlib.suppress(OSError):
                self._job.part.unlink()
        self.close()

    def close(self) -> None:
        """Close the part."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _take(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        self.offset += len(chunk)
        self._session.tell(self._job, self.offset)

    def _lock(self) -> None:
        """Make sure that nobody else writes the same part."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(self._job.part.stat(), os.fstat(self._descriptor))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            self.close()  # so that it is not taken for ours
            raise LocalTrouble("another process is fetching it into this directory just now")


def _move_to_free_name(part: Path, path: Path) -> None:
    """Give a file a name that nothing has, in one step."""
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise LocalTrouble(f"something of the name {path.name} has appeared meanwhile") from error
    except OSError:  # a file system without links
        if os.path.lexists(path):
            raise LocalTrouble(f"something of the name {path.name} has appeared") from None
        part.replace(path)
    else:
        part.unlink()


class _DiskTrouble(LocalTrouble):
    """No other file can be written either."""


def _trouble(error: OSError) -> LocalTrouble:
    kind = _DiskTrouble if error.errno in _DISK_TROUBLES else LocalTrouble
    return kind(f"it cannot be written: {error.strerror or error}")


class Session:
    """What the downloads of one call share; safe for threads."""

    def __init__(self, jobs: Sequence[Job], *, overwrite: bool, progress: Progress | None) -> None:
        self.jobs = jobs
        self.overwrite = overwrite
        self.is_stopped = False
        self.over: str | None = None
        """Why nothing more is tried."""
        self._progress = progress
        self._lock = threading.Lock()
        self._done_by_uid = {job.row.uid: job.row.size_bytes for job in jobs if job.is_present}
        self._n_done = sum(self._done_by_uid.values())
        self._n_bytes = sum(job.row.size_bytes for job in jobs)

    def tell(self, job: Job, n_bytes: int) -> None:
        """Note how much of a file is here."""
        with self._lock:
            self._n_done += n_bytes - self._done_by_uid.get(job.row.uid, 0)
            self._done_by_uid[job.row.uid] = n_bytes
            if self._progress is not None:
                self._progress(self._n_done, self._n_bytes, job.row.filename)

    def run(self, job: Job) -> Operation[DownloadedFile]:
        """Fetch one file; it does not raise for what concerns this file alone."""
        if job.is_present:
            self.tell(job, job.row.size_bytes)
            return job.result("present")
        if self.over is not None:
            return job.result("failed", f"not tried: {self.over}")
        part = PartFile(job, self)
        try:
            return (yield from self._fetch(job, part))
        except ConversationNetworkException as error:
            self.over = "the server does not answer"
            return job.result("failed", str(error))
        except _DiskTrouble as error:
            self.over = str(error)
            return job.result("failed", str(error))
        except LocalTrouble as error:
            return job.result("failed", str(error))
        finally:
            part.leave()

    def _fetch(self, job: Job, part: PartFile) -> Operation[DownloadedFile]:
        yield from locally(part.open)
        for _ in range(2):
            refusal = yield from _fill(job, part)
            if refusal is not None:
                return refusal
            if (yield from locally(lambda: part.finish(overwrite=self.overwrite))):
                return job.result("downloaded")
            yield from locally(part.restart)
        return job.result("failed", "its bytes are not those of its SHA-256, twice")


def _fill(job: Job, part: PartFile) -> Operation[DownloadedFile | None]:
    """Fetch what is missing; return the server's refusal, if it refuses."""
    path = f"{FILES_PATH}{job.row.uid}/content/"
    for _ in range(_MAX_CUTS):
        if part.offset >= job.row.size_bytes:
            return None
        before = part.meter.n_bytes
        try:
            reply = yield Request("GET", path, sink=part, meter=part.meter, timeout_s=_TIMEOUT_S)
        except ConversationNetworkException:
            if part.meter.n_bytes == before:
                raise
            continue
        if reply.status == 416 and part.offset:  # the part is not of this file
            yield from locally(part.restart)
        elif reply.status not in (200, 206):
            status = "failed" if is_passing(reply) or reply.status < 400 else "refused"
            return job.result(status, str(error_of(reply)))
        elif part.meter.n_bytes == before:
            return None  # an answer without bytes: the hash will tell
    raise ConversationNetworkException(f"it was cut off {_MAX_CUTS} times")


# --- All of them --------------------------------------------------------------------------------


def begin(
    reference: ConversationRef,
    directory: str | os.PathLike[str],
    *,
    overwrite: bool,
    progress: Progress | None,
) -> Operation[Session]:
    """List the files and plan where they go.

    Raises:
        NotFoundException: there is no such conversation.
        OSError: the directory cannot be made.
    """
    listed = yield from fetch_attachments(reference)
    messages: list[Json] = listed.get("messages") or []
    rows: list[Row] = []
    for message in messages:
        files: list[Json] = message.get("attachments") or []
        rows += [Row.read({"message": message.get("message_id"), **file}) for file in files]
    target = Path(directory).absolute()
    jobs = yield from locally(lambda: plan(rows, target, overwrite=overwrite))
    return Session(jobs, overwrite=overwrite, progress=progress)


def check_workers(max_workers: int) -> None:
    """Refuse what is no number of workers."""
    if max_workers < 1:
        raise ValueError(f"max_workers must be at least 1, not {max_workers}")


def checked(files: list[DownloadedFile]) -> list[DownloadedFile]:
    """Return the files, or raise a DownloadException where one is not here."""
    if all(file.is_here for file in files):
        return files
    raise DownloadException(files)


def run_in_threads(
    client: SyncClient, session: Session, max_workers: int, tell: Tell | None = None
) -> list[DownloadedFile]:
    """Fetch all files, some side by side; return what became of each, in their order.

    An error that is not one file's (of `progress`, or Ctrl-C) ends all: parts stay for the next
    time. The threads are daemons, lest a silent server keep the process.
    """
    results: dict[int, DownloadedFile] = {}
    errors: list[BaseException] = []
    jobs = iter(enumerate(session.jobs))
    lock = threading.Lock()

    def work() -> None:
        try:
            while not session.is_stopped:
                with lock:
                    index, job = next(jobs, (-1, None))
                if job is None:
                    return
                result = client.run(session.run(job))
                with lock:
                    results[index] = result
                    if tell is not None:
                        tell(result)
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - a thread's edge; raised in the caller's
            errors.append(error)
            session.is_stopped = True

    n_threads = min(max_workers, len(session.jobs))
    threads = [threading.Thread(target=work, daemon=True) for _ in range(n_threads)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        session.is_stopped = True
        for thread in threads:
            thread.join(timeout=2)
        raise
    if errors:
        raise errors[0]
    return [results[index] for index in range(len(session.jobs))]


async def run_in_tasks(
    client: AsyncClient, session: Session, max_workers: int
) -> list[DownloadedFile]:
    """Do what `run_in_threads` does, awaited."""
    import asyncio

    results: dict[int, DownloadedFile] = {}
    jobs: Iterator[tuple[int, Job]] = iter(enumerate(session.jobs))

    async def work() -> None:
        for index, job in jobs:
            results[index] = await client.run(session.run(job))

    tasks = [asyncio.create_task(work()) for _ in range(min(max_workers, len(session.jobs)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        session.is_stopped = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [results[index] for index in range(len(session.jobs))]
