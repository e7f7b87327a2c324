"""What a person can do with a conversation's files at once: take them all, as one ZIP.

It is made while it is sent. The standard library's `zipfile` is pushed, not pulled: it writes into
a list that is sent on, so that reading the store and sending stay on the event loop, with no thread
between (docs/decisions/0023).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import zipfile
from collections import deque
from collections.abc import AsyncGenerator
from typing import IO, Final, cast

import msgspec

from agentsight.server.access import Access
from agentsight.server.archives import store
from agentsight.server.archives.manifest import Manifest, PackedFileShape
from agentsight.server.archives.model import MANIFEST_NAME, Names, entry_time, folder_name
from agentsight.server.archives.store import BEFORE_ALL, PackedRow
from agentsight.server.attachments.addresses import Addresses
from agentsight.server.attachments.refusals import withheld_as
from agentsight.server.attachments.shapes import shape_file
from agentsight.server.blobs import BlobStream, ObjectMissing
from agentsight.server.conversations.model import Head
from agentsight.server.parts import Parts
from agentsight.server.times import to_datetime
from agentsight.server.web.under_way import UnderWay

log = logging.getLogger("agentsight.server")
_STEP_ROWS: Final = 256
_OPEN_AHEAD: Final = 8
"""Files opened before their turn: it hides what opening takes. Each may hold a chunk of 256 KB."""
_AHEAD_BYTES: Final = 2 * 1024 * 1024
"""What they may have together: opening many small ones takes as long as sending them, opening a
large one nothing beside it."""
ZIPS_OF_ONE_AGENT: Final = 8
"""Under way in a process: one that nobody reads holds some MB and up to nine open files."""
under_way: Final = UnderWay(ZIPS_OF_ONE_AGENT, "ZIPs")
_SEND_BYTES: Final = 64 * 1024
"""What is written is sent on when it has this size: many small files are one message."""
_UNIX_TIME: Final = 0x5455
"""The extra field with the time in UTC (Info-ZIP's extended timestamp): a DOS date has no zone."""


class Archive:
    """The ZIP of one conversation. Iterate `chunks` once, in `contextlib.aclosing`.

    Args:
        parts: The parts of this process.
        access: Who asks.
        head: The conversation.
        to: What the links in the manifest begin with.
    """

    def __init__(self, parts: Parts, access: Access, head: Head, to: Addresses) -> None:
        self._parts = parts
        self._access = access
        self._head = head
        self._to = to
        self._sink = _Sink()
        # It asks no more of a file than `write` and `flush`.
        self._zip = zipfile.ZipFile(cast("IO[bytes]", self._sink), "w", zipfile.ZIP_STORED)
        self._manifest = Manifest()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the ZIP's bytes.

        Raises:
            StorageUnavailable: The store failed: before the first chunk, or after; the ZIP is then
                broken off, and its end is missing.
        """
        number, message_id, folder, names = 0, -1, "", Names()
        async with contextlib.aclosing(_opened_ahead(self._parts, self._rows())) as opened:
            async for row, stream in opened:
                if row.file.message_id != message_id:
                    number, message_id, names = number + 1, row.file.message_id, Names()
                    folder = folder_name(number, row.sent_at, row.sender, message_id)
                path = f"{folder}/{names.give(row.file.filename)}"
                self._note(row, path, stream)
                if stream is None:
                    continue
                with self._zip.open(_entry(path, row.sent_at, row.file.size_bytes), "w") as entry:
                    async for chunk in stream:
                        entry.write(chunk)
                        if self._sink.n_bytes >= _SEND_BYTES:
                            for piece in self._sink.take():
                                yield piece
        now = self._parts.clock()
        with self._zip.open(_entry(MANIFEST_NAME, now, self._manifest.n_bytes), "w") as entry:
            for chunk in self._manifest.chunks(
                conversation_id=self._head.conversation_id,
                conversation=self._head.pk,
                uid=self._head.uid,
                packed_at=to_datetime(now),
            ):
                entry.write(chunk)
                if self._sink.n_bytes >= _SEND_BYTES:
                    for piece in self._sink.take():
                        yield piece
        self._zip.close()
        for piece in self._sink.take():
            yield piece

    async def _rows(self) -> AsyncGenerator[PackedRow]:
        """Yield the conversation's files, a step at a time."""
        after, access, pk = BEFORE_ALL, self._access, self._head.pk
        while True:
            place = after
            rows = await self._parts.db.read(
                lambda tx, place=place: store.read_step(tx, access, pk, place, _STEP_ROWS)
            )
            for row in rows:
                yield row
            if len(rows) < _STEP_ROWS:
                return
            after = rows[-1].place

    def _note(self, row: PackedRow, path: str, stream: BlobStream | None) -> None:
        withheld = withheld_as(row)
        is_missing = stream is None and withheld is None
        if is_missing:
            log.error("a file's bytes are not there, and not in the ZIP: %s", row.object_key)
        shape = shape_file(row.file, self._access.agent_id, self._parts.links, self._to)
        packed = PackedFileShape(
            *msgspec.structs.astuple(shape),
            path=path if stream is not None else None,
            missing=is_missing,
            withheld=withheld,
        )
        self._manifest.add(row.sender, to_datetime(row.sent_at), packed)


class _Sink:
    """What `zipfile` writes to: bytes wait here until they are taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.n_bytes = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(data)
        self.n_bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: bytes are taken, not flushed."""

    def take(self) -> list[bytes]:
        """Give away what waits, small pieces joined; large ones as they came, not copied again."""
        waiting, self._pieces, self.n_bytes = self._pieces, [], 0
        taken: list[bytes] = []
        small: list[bytes] = []
        for piece in waiting:
            if len(piece) < _SEND_BYTES:
                small.append(piece)
                continue
            if small:
                taken.append(b"".join(small))
                small.clear()
            taken.append(piece)
        if small:
            taken.append(b"".join(small))
        return taken


def _entry(path: str, sent_at: int, size_bytes: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, entry_time(sent_at))
    entry.file_size = size_bytes  # decides whether the entry needs ZIP64
    entry.external_attr = 0o644 << 16
    seconds = sent_at // 1_000_000
    if -(2**31) <= seconds < 2**31:
        entry.extra = struct.pack("<HHBl", _UNIX_TIME, 5, 1, seconds)
    return entry


async def _open(parts: Parts, row: PackedRow) -> BlobStream | None:
    """Open a file's bytes; None where they are withheld, not there, or not all there."""
    if withheld_as(row) is not None or not row.is_stored:
        return None
    try:
        stream = await parts.blobs.read(row.object_key)
    except ObjectMissing:
        return None
    if stream.size_bytes == row.file.size_bytes:
        return stream
    async with stream:
        return None


async def _opened_ahead(
    parts: Parts, rows: AsyncGenerator[PackedRow]
) -> AsyncGenerator[tuple[PackedRow, BlobStream | None]]:
    """Yield files in their order, opened; those that follow are being opened meanwhile."""
    waiting: deque[tuple[PackedRow, asyncio.Task[BlobStream | None]]] = deque()
    is_ended = False
    ahead_bytes = 0
    try:
        while True:
            # Some at a time: waking the store's threads once a file costs what a small file does.
            room = _OPEN_AHEAD - len(waiting) if len(waiting) <= _OPEN_AHEAD // 2 else 0
            while room and not is_ended and (not waiting or ahead_bytes < _AHEAD_BYTES):
                row = await anext(rows, None)
                if row is None:
                    is_ended = True
                    break
                waiting.append((row, asyncio.create_task(_open(parts, row))))
                ahead_bytes += row.file.size_bytes
                room -= 1
            if not waiting:
                return
            row, opening = waiting.popleft()
            ahead_bytes -= row.file.size_bytes
            stream = await opening
            if stream is None:
                yield row, None
                continue
            async with stream:
                yield row, stream
    finally:
        await rows.aclose()
        for _, opening in waiting:
            await _close(opening)


async def _close(opening: asyncio.Task[BlobStream | None]) -> None:
    """Give up what is being opened, or close it where it is open."""
    opening.cancel()
    (result,) = await asyncio.gather(opening, return_exceptions=True)
    if result is not None and not isinstance(result, BaseException):
        async with result:
            pass
