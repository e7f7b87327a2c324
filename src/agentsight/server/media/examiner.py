"""The server's side of the examining processes: one method a question.

Three lanes, because a picture that somebody waits for must not stand behind a document of 30
seconds, nor behind an hour of sound. Each is a process only while it is used.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from agentsight.server.media import kinds
from agentsight.server.media.lane import Lane
from agentsight.server.media.model import Examined, Made
from agentsight.server.media.protocol import Job, Reply
from agentsight.server.media.sandbox import gaps

log = logging.getLogger("agentsight.server")

_IDLE_S: Final = 60.0
_MAX_JOBS: Final = 500
_PLAYBACK_FACTOR: Final = 4
"""A recording is coded from its first second to its last; facts and pictures need a part of it."""


def _absolute(path: Path) -> str:
    """Name a file for a process that stands in another folder."""
    return os.path.abspath(path)


class Examiner:
    """Learns what files hold and makes previews of them, in processes with limits.

    Made and closed by `app.py`; `close()` must be awaited. Its processes start when they are first
    needed, end when they have been idle, and never outlive this one.

    Args:
        memory_bytes: Address space that each process may take.
        timeout_s: What one file may take; making a derived copy of a recording, four times that.
        max_text_chars: Text beyond is cut off.
        idle_s: How long a process lives without work.
    """

    def __init__(
        self,
        *,
        memory_bytes: int,
        timeout_s: int,
        max_text_chars: int = 500_000,
        idle_s: float = _IDLE_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_text_chars = max_text_chars
        self._told: set[str] = set()
        self._has_told_gaps = False
        self._is_closed = False

        def lane(name: str, niceness: int) -> Lane:
            return Lane(
                name,
                memory_bytes=memory_bytes,
                niceness=niceness,
                idle_s=idle_s,
                max_jobs=_MAX_JOBS,
            )

        self._thumbnails = lane("thumbnail", 2)
        self._playbacks = lane("playback", 5)
        self._facts = lane("facts", 10)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called: what fails from then on is no file's fault."""
        return self._is_closed

    def processes(self) -> list[int]:
        """Return the ids of the processes that live now."""
        lanes = (self._thumbnails, self._playbacks, self._facts)
        return [lane.pid for lane in lanes if lane.pid is not None]

    def peak_bytes(self) -> int:
        """Return the most memory that a file has taken so far, in bytes."""
        return max(lane.peak_bytes for lane in (self._thumbnails, self._playbacks, self._facts))

    async def examine(self, path: Path, *, mime_type: str, filename: str) -> Examined:
        """Learn a file's facts and its text.

        Args:
            path: The file; its name there does not matter.
            mime_type: The detected type.
            filename: What its sender called it: an extension tells kinds of text apart.

        Returns:
            Whatever could be learned. A damaged file gives little and no error.

        Raises:
            ExaminerDied: The process was ended by its limits or crashed on this file.
        """
        if not kinds.can_examine(mime_type):
            return Examined()
        job = Job(
            task="examine",
            path=_absolute(path),
            mime_type=mime_type,
            timeout_s=self._timeout_s,
            filename=filename,
            max_text_chars=self._max_text_chars,
        )
        reply = await self._ask(self._facts, job)
        return reply.examined or Examined(note=reply.note)

    async def thumbnail(
        self, path: Path, *, mime_type: str, max_edge: int, out: Path
    ) -> Made | None:
        """Make a still picture of a file, as WebP, without place and camera data.

        Args:
            path: The file.
            mime_type: The detected type.
            max_edge: Pixels of the longer edge at most; nothing is ever enlarged, but pages of
                documents, which have no pixels, are drawn to fill it.
            out: Where to write; only meaningful when something is returned.

        Returns:
            What was made; None where there is nothing to show, as for a damaged file.

        Raises:
            ExaminerDied: The process was ended by its limits or crashed on this file.
        """
        if kinds.can_preview(mime_type) != "image":
            return None
        job = Job(
            task="thumbnail",
            path=_absolute(path),
            mime_type=mime_type,
            timeout_s=self._timeout_s,
            max_edge=max_edge,
            out=_absolute(out),
        )
        reply = await self._ask(self._thumbnails, job)
        return reply.made

    async def playback(self, path: Path, *, mime_type: str, out: Path) -> Made | None:
        """Make the copy that browsers can play or show: its type is what `can_play` says.

        Returns:
            What was made; None where none is needed or possible.

        Raises:
            ExaminerDied: The process was ended by its limits or crashed on this file.
        """
        if kinds.can_play(mime_type) is None:
            return None
        job = Job(
            task="playback",
            path=_absolute(path),
            mime_type=mime_type,
            timeout_s=self._timeout_s * _PLAYBACK_FACTOR,
            out=_absolute(out),
        )
        reply = await self._ask(self._playbacks, job)
        return reply.made

    async def close(self) -> None:
        """End all processes. Questions that are under way fail with `ExaminerDied`."""
        self._is_closed = True
        for lane in (self._thumbnails, self._playbacks, self._facts):
            await lane.close()

    async def _ask(self, lane: Lane, job: Job) -> Reply:
        self._tell_gaps()
        reply = await lane.ask(job)
        self._tell(job, reply)
        return reply

    def _tell_gaps(self) -> None:
        """Say once, with the first file, what this machine's sandbox lacks."""
        if not self._has_told_gaps:
            self._has_told_gaps = True
            if missing := gaps():
                log.warning("files are parsed without %s: see `doctor`", " and ".join(missing))

    def _tell(self, job: Job, reply: Reply) -> None:
        """Note in the log what was missing: an absent library once, a file each time."""
        if reply.missing and reply.missing not in self._told:
            self._told.add(reply.missing)
            log.warning("%s is not installed: such files get no preview", reply.missing)
        note = reply.note or (reply.examined.note if reply.examined else None)
        if note and not reply.missing:
            log.info(
                "a file cannot be shown or read",
                extra={
                    "task": job.task,
                    "mime_type": job.mime_type,
                    "note": note,
                },
            )
