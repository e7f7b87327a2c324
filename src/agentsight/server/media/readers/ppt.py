"""PowerPoint presentations of before 2007 ([MS-PPT]): slides in their order, with notes.

The stream is records in records. What was saved last is found from its end: an edit, which names
the one before it, and a directory of where each numbered object stands now. The document lists its
slides and notes by those numbers; masters, whose texts are instructions ("Click to edit …"), are
never visited. Records are walked without recursion, and none is believed to be longer than the
stream.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.texts import SinkFull, TextSink

_DOCUMENT, _SLIDE, _NOTES = 0x03E8, 0x03EE, 0x03F0
_SLIDE_ATOM, _NOTES_ATOM = 0x03EF, 0x03F1
_LIST, _LIST_ENTRY = 0x0FF0, 0x03F3
_CHARS, _BYTES, _C_STRING = 0x0FA0, 0x0FA8, 0x0FBA
_HEADERS, _COMMENT = 0x0FD9, 0x2EE0
_EDIT, _DIRECTORY, _LOCK = 0x0FF5, 0x1772, 0x2F14
_SLIDES, _NOTES_LIST = 0, 2
"""Instances of `_LIST`; 1 are the masters."""
_SHOWN_STRINGS: Final = {_HEADERS: (1, 2), _COMMENT: (1,)}
"""Strings with words of the author's, by what they stand in: header, footer; a comment."""
_LOCKED_TOKEN: Final = 0xF3D1C4DF
_MAX_SLIDES: Final = 2000
_MAX_EDITS: Final = 1000
_MAX_DEPTH: Final = 100
_FIELD_TEXT: Final = "*"
"""Stands where the number of the slide or the date is drawn."""


class _Record(NamedTuple):
    """One record: its kind, instance, place, body, and the kind of what it stands in."""

    kind: int
    instance: int
    at: int
    body: memoryview
    parent: int


class _Entry(NamedTuple):
    """A slide, or notes, in the document's lists: place, id, the texts of its placeholders."""

    at: int
    own_id: int
    texts: list[str]


def read(document: bytes, current_user: bytes, sink: TextSink) -> int | None:
    """Put slides and notes into the sink; return how many slides there are.

    Args:
        document: The whole stream `PowerPoint Document`.
        current_user: The stream of that name, which says where the last edit stands.
        sink: Takes the text.

    Raises:
        NotReadable: When it is locked, or holds no slides.
    """
    if len(current_user) >= 16 and struct.unpack_from("<I", current_user, 12)[0] == _LOCKED_TOKEN:
        raise NotReadable("locked by a password")
    show = _Show(memoryview(document), sink)
    pages: int | None = None
    with contextlib.suppress(SinkFull):
        slides, notes_by_id = show.read_lists(current_user)
        pages = len(slides) or None
        # Slides that stand at one place are made to have it read again and again.
        for slide in {slide.at: slide for slide in slides}.values():
            show.read_slide(slide, notes_by_id)
        if not slides:
            places = show.search()
            pages = sum(kind == _SLIDE for _, kind in places) or None
            for at, kind in places:
                show.read_object(at, kind)
    return pages


def _walk(stream: memoryview, start: int, end: int, sink: TextSink) -> Iterator[_Record]:
    """Give all records between two places, those inside of others after what they stand in."""
    parents: list[tuple[int, int]] = [(0, end)]
    at = start
    while at + 8 <= end:
        while at >= parents[-1][1] and len(parents) > 1:
            parents.pop()
        version, kind, n_bytes = struct.unpack_from("<HHI", stream, at)
        body_end = min(at + 8 + n_bytes, end)
        yield _Record(kind, version >> 4, at, stream[at + 8 : body_end], parents[-1][0])
        if version & 0x0F == 0x0F and len(parents) < _MAX_DEPTH:  # it holds records
            parents.append((kind, min(body_end, parents[-1][1])))
            at += 8
        else:
            at = body_end
        sink.tick()


class _Show:
    """A presentation: where its objects stand, and their texts."""

    def __init__(self, stream: memoryview, sink: TextSink) -> None:
        self._stream = stream
        self._sink = sink
        self._place_by_reference: dict[int, int] = {}

    def read_lists(self, current_user: bytes) -> tuple[list[_Entry], dict[int, int]]:
        """Find the slides in order, and by id where notes stand; none where lists are broken.

        Raises:
            SinkFull: When the time is over.
        """
        entries: dict[int, list[_Entry]] = {}
        current: list[_Entry] = []
        for record in self._inside(self._follow_edits(current_user), _DOCUMENT):
            if record.kind == _LIST:
                current = entries.setdefault(record.instance, [])
            elif record.kind == _LIST_ENTRY and len(record.body) >= 16:
                reference, own_id = struct.unpack_from("<I8xI", record.body)
                current.append(_Entry(self._place_by_reference.get(reference, -1), own_id, []))
            elif record.parent == _LIST and current and (text := _text(record)):
                current[-1].texts.append(text)
        slides = [slide for slide in entries.get(_SLIDES, []) if slide.at >= 0][:_MAX_SLIDES]
        return slides, {notes.own_id: notes.at for notes in entries.get(_NOTES_LIST, [])}

    def _follow_edits(self, current_user: bytes) -> int:
        """Learn where objects stand, from the last edit to the first; returns the document's place.

        -1 where none is found.
        """
        if len(current_user) < 20:
            return -1
        at = struct.unpack_from("<I", current_user, 16)[0]
        document = -1
        for _ in range(_MAX_EDITS):
            edit = self._record(at, _EDIT)
            if edit is None or len(edit.body) < 20:
                break
            before, directory_at, reference = struct.unpack_from("<III", edit.body, 8)
            document = reference if document < 0 else document
            self._read_directory(directory_at)
            if not 0 < before < at:  # each stands before the next; what does not goes in circles
                break
            at = before
        return self._place_by_reference.get(document, -1)

    def _read_directory(self, at: int) -> None:
        """Read runs of places: their number, the first object's number, the places (2.3.4)."""
        directory = self._record(at, _DIRECTORY)
        body = directory.body if directory else memoryview(b"")
        numbers = (n for (n,) in struct.iter_unpack("<I", body[: len(body) // 4 * 4]))
        for head in numbers:
            for reference, place in zip(
                range(head & 0xFFFFF, (head & 0xFFFFF) + (head >> 20)), numbers, strict=False
            ):
                self._place_by_reference.setdefault(reference, place)
            self._sink.tick()

    def _record(self, at: int, kind: int) -> _Record | None:
        """Return the record at a place, if it is of the kind."""
        if not 0 <= at <= len(self._stream) - 8:
            return None
        found = next(_walk(self._stream, at, len(self._stream), self._sink), None)
        return found if found and found.kind == kind else None

    def _inside(self, at: int, kind: int) -> Iterator[_Record]:
        """Walk what stands in the record at a place; nothing where it is not of the kind."""
        if holder := self._record(at, kind):
            start = at + 8
            yield from _walk(self._stream, start, start + len(holder.body), self._sink)

    def search(self) -> list[tuple[int, int]]:
        """Find slides and notes without the lists, in the order in which they were saved.

        Returns:
            The places and kinds of those objects.

        Raises:
            NotReadable: When there are none.
            SinkFull: When the time is over.
        """
        places: list[tuple[int, int]] = []
        for record in _walk(self._stream, 0, len(self._stream), self._sink):
            if record.kind == _LOCK:
                raise NotReadable("locked by a password")
            if record.kind in (_SLIDE, _NOTES) and len(places) < _MAX_SLIDES:
                places.append((record.at, record.kind))
            elif record.kind == _NOTES_ATOM and places and bytes(record.body[:4]) == bytes(4):
                places.pop()  # the master of all notes belongs to no slide
        if not places:
            raise NotReadable("it holds no slides")
        return places

    def read_slide(self, slide: _Entry, notes_by_id: dict[int, int]) -> None:
        """Put a slide's texts into the sink, then those of its notes.

        Raises:
            SinkFull: When there is enough.
        """
        for text in slide.texts:
            self._sink.add(f"{text}\n")
        notes_id = self.read_object(slide.at, _SLIDE)
        if notes_id in notes_by_id:
            self.read_object(notes_by_id[notes_id], _NOTES)

    def read_object(self, at: int, kind: int) -> int:
        """Put the texts of a slide or of notes into the sink; returns the id of a slide's notes.

        0 where it has none.

        Raises:
            SinkFull: When there is enough.
        """
        notes_id = 0
        for record in self._inside(at, kind):
            if record.kind == _SLIDE_ATOM and len(record.body) >= 20:
                notes_id = struct.unpack_from("<I", record.body, 16)[0]
            elif text := _text(record):
                self._sink.add(f"{text}\n")
        self._sink.add("\n")
        return notes_id


def _text(record: _Record) -> str:
    """Return what a record says to a reader; empty for all others."""
    if record.kind == _BYTES:
        text = str(record.body, "latin-1")
    elif record.kind == _CHARS or (
        record.kind == _C_STRING and record.instance in _SHOWN_STRINGS.get(record.parent, ())
    ):
        text = str(record.body[: len(record.body) // 2 * 2], "utf-16-le", "surrogatepass")
    else:
        return ""
    return "" if text.strip() == _FIELD_TEXT else text.replace("\x0b", "\n")
