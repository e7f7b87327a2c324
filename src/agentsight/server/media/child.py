"""The examining process: `python -m agentsight.server.media.child MEMORY NICENESS PARENT`.

Reads jobs from standard input and answers on standard output until either is closed. The only
process that imports libraries that parse files, each when it is first needed. Whatever a file does
to it, it answers or dies; the server takes both.
"""

from __future__ import annotations

import os
import sys
import time
from typing import BinaryIO

import msgspec

from agentsight.server.media import kinds
from agentsight.server.media.confinement import allow_cpu, confine
from agentsight.server.media.model import Examined
from agentsight.server.media.protocol import LENGTH_BYTES, READY, Job, Reply, frame
from agentsight.server.media.readers.errors import NotReadable

_CPU_FACTOR = 2
"""Of the time limit: some decoders use a second thread."""
_PATIENCE = 0.8
"""Of the time limit: what can end early with a part of the answer does so then."""


def main() -> None:
    """Serve until the server closes the pipe."""
    memory_bytes, niceness, parent_pid = (int(text) for text in sys.argv[1:4])
    jobs, replies = _take_pipes()
    confine(memory_bytes=memory_bytes, niceness=niceness, parent_pid=parent_pid)
    replies.write(READY)
    replies.flush()
    while head := jobs.read(LENGTH_BYTES):
        job = msgspec.json.decode(jobs.read(int.from_bytes(head, "big")), type=Job)
        allow_cpu(job.timeout_s * _CPU_FACTOR)
        reply = answer(job)
        replies.write(frame(reply))
        replies.flush()
        if reply.is_last:
            return


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: what libraries print must not look like an answer."""
    jobs = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    return jobs, replies


def answer(job: Job) -> Reply:
    """Do one job. A damaged file is an answer with a note, not an error."""
    try:
        return _do(job, time.monotonic() + job.timeout_s * _PATIENCE)
    except MemoryError:
        return Reply(note="needs more memory than is allowed", is_last=True)
    except NotReadable as exc:
        return Reply(note=str(exc))
    except ImportError as exc:
        name = (exc.name or "a library").partition(".")[0]
        return Reply(note=f"{name} is not installed", missing=name)
    except Exception as exc:  # noqa: BLE001 - hostile files meet parsers; the edge of a process
        # The kind of error only: its words may quote the file.
        return Reply(note=f"not readable as {job.mime_type}: {type(exc).__name__}")


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
