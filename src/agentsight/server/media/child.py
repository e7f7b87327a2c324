"""The examining process: `python -m agentsight.server.media.child MEMORY NICENESS PARENT`.

Reads jobs from standard input and answers on standard output until either is closed. The only
process that imports libraries that parse files, each when it is first needed. It opens no file
itself: each job is done by a fork of it, in a sandbox (`forking.py`, `sandbox.py`). Whatever a file
does to that, it answers or dies; the server takes both.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module

import msgspec

from agentsight.server.media import kinds
from agentsight.server.media.confinement import allow_cpu, confine
from agentsight.server.media.forking import serve
from agentsight.server.media.model import Examined
from agentsight.server.media.protocol import READY, Job, Reply, Wanted
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.sandbox import Sandbox

_CPU_FACTOR = 2
"""Of the time limit: some decoders use a second thread."""
_PATIENCE = 0.8
"""Of the time limit: what can end early with a part of the answer does so then."""


def main() -> None:
    """Serve until the server closes the pipe."""
    memory_bytes, niceness, parent_pid = (int(text) for text in sys.argv[1:4])
    jobs, replies = _take_pipes()
    confine(memory_bytes=memory_bytes, niceness=niceness, parent_pid=parent_pid)
    os.write(replies, READY)
    loader = _Loader()
    serve(jobs, replies, load=loader.load, work=loader.work)


def _take_pipes() -> tuple[int, int]:
    """Keep the pipes to ourselves: what libraries print must not look like an answer."""
    jobs, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return jobs, replies


class _Loader:
    """What is loaded so far, for workers to be born with, and the sandbox that goes with it."""

    def __init__(self) -> None:
        self._loaded: set[str] = set()
        self._sandbox = Sandbox.prepare()

    def load(self, body: bytearray) -> bytes | None:
        """Import what a job needs, before the fork: once, and from no place that a file chooses."""
        wanted = msgspec.json.decode(body, type=Wanted)
        names = _readers_of(wanted) - self._loaded
        if not names:
            return None
        reply = _noted(wanted.mime_type, lambda: _import(names))
        if reply is not None:
            return msgspec.json.encode(reply)
        self._loaded |= names
        self._sandbox.close()
        self._sandbox = Sandbox.prepare()
        gc.freeze()  # collecting would touch, and so copy, every page of these in each worker
        return None

    def work(self, body: bytearray, answer_at: int) -> bytes:
        """Do one job, in a worker of its own."""
        job = msgspec.json.decode(body, type=Job)
        allow_cpu(job.timeout_s * _CPU_FACTOR)
        self._sandbox.enter(source=job.path, out=job.out, answer_at=answer_at)
        return msgspec.json.encode(answer(job))


def answer(job: Job) -> Reply:
    """Do one job. A damaged file is an answer with a note, not an error."""
    end_at = time.monotonic() + job.timeout_s * _PATIENCE
    return _noted(job.mime_type, lambda: _do(job, end_at)) or Reply()


def _noted(mime_type: str, step: Callable[[], Reply | None]) -> Reply | None:
    try:
        return step()
    except MemoryError:
        return Reply(note="needs more memory than is allowed")
    except NotReadable as exc:
        return Reply(note=str(exc))
    except ImportError as exc:
        name = (exc.name or "a library").partition(".")[0]
        return Reply(note=f"{name} is not installed", missing=name)
    except Exception as exc:  # noqa: BLE001 - hostile files meet parsers; the edge of a process
        # The kind of error only: its words may quote the file.
        return Reply(note=f"not readable as {mime_type}: {type(exc).__name__}")


def _readers_of(wanted: Wanted) -> set[str]:
    """Name the readers that `_do` will import; one that is not named is imported by each worker."""
    mime_type = wanted.mime_type
    if mime_type in kinds.PICTURES:
        return {"pictures", "heif"} if mime_type in ("image/heic", "image/heif") else {"pictures"}
    if mime_type in kinds.VIDEOS or mime_type in kinds.SOUNDS:
        return {"transcoding"} if wanted.task == "playback" else {"recordings"}
    if mime_type == kinds.PDF:
        return {"pdfs"}
    if mime_type in kinds.COMPOUNDS:
        return {"office97", "doc", "ppt", "xls"}
    return {"office", "workbooks"} if mime_type in kinds.ZIPPED else {"plain", "rtf"}


def _import(names: set[str]) -> None:
    for name in names:
        import_module(f"agentsight.server.media.readers.{name}")


def _do(job: Job, end_at: float) -> Reply:
    if job.task == "examine":
        return _examine(job, end_at)
    if job.task == "thumbnail":
        return _thumbnail(job)
    return _playback(job, end_at)


def _examine(job: Job, end_at: float) -> Reply:
    mime_type = job.mime_type
    if mime_type in kinds.PICTURES:
        from agentsight.server.media.readers import pictures

        return Reply(examined=pictures.examine(job.path, mime_type))
    if mime_type in kinds.VIDEOS or mime_type in kinds.SOUNDS:
        from agentsight.server.media.readers import recordings

        return Reply(examined=recordings.examine(job.path, mime_type, end_at))
    from agentsight.server.media.readers.texts import TextSink

    sink = TextSink(job.max_text_chars, end_at)
    if mime_type == kinds.PDF:
        from agentsight.server.media.readers import pdfs

        return Reply(examined=pdfs.examine(job.path, sink))
    if mime_type in kinds.COMPOUNDS:
        from agentsight.server.media.readers import office97

        return Reply(examined=office97.examine(job.path, sink))
    pages: int | None = None
    if mime_type in kinds.ZIPPED:
        from agentsight.server.media.readers import office

        pages = office.read(job.path, mime_type, sink)
    else:
        from agentsight.server.media.readers import plain

        plain.read(job.path, mime_type, job.filename, sink)
    text = sink.text()
    return Reply(
        examined=Examined(
            pages=pages, text=text, is_text_cut=sink.is_cut, has_preview=text is not None
        )
    )


def _thumbnail(job: Job) -> Reply:
    if job.mime_type in kinds.PICTURES:
        from agentsight.server.media.readers import pictures

        return Reply(made=pictures.thumbnail(job.path, job.mime_type, job.max_edge, job.out))
    if job.mime_type == kinds.PDF:
        from agentsight.server.media.readers import pdfs

        return Reply(made=pdfs.thumbnail(job.path, job.max_edge, job.out))
    from agentsight.server.media.readers import recordings

    return Reply(made=recordings.thumbnail(job.path, job.mime_type, job.max_edge, job.out))


def _playback(job: Job, end_at: float) -> Reply:
    if job.mime_type in kinds.PICTURES:
        from agentsight.server.media.readers import pictures

        return Reply(made=pictures.jpeg_copy(job.path, job.mime_type, job.out))
    from agentsight.server.media.readers import transcoding

    return Reply(made=transcoding.transcode(job.path, job.mime_type, job.out, end_at))


if __name__ == "__main__":
    main()
