"""Compound files made for tests, and the streams of Word, Excel and PowerPoint inside of them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate

_END, _FREE, _TABLE = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
_NONE = 0xFFFFFFFF


def compound(
    streams: dict[str, bytes], *, table_first: bool = True, sector_bytes: int = 512
) -> bytes:
    """Make a compound file. Streams are filled up to 4,096 bytes, below which others rules hold.

    Args:
        streams: By name; one in a storage is called `Storage/Name`.
        table_first: Whether directory and table come before the streams, or behind them.
        sector_bytes: 512 or 4,096.
    """
    bodies = [body.ljust(4096, b"\0") for body in streams.values()]
    lengths = [-(-len(body) // sector_bytes) for body in bodies]
    folders = sorted({name.partition("/")[0] for name in streams if "/" in name})
    n_directory = -(-(1 + len(streams) + len(folders)) * 128 // sector_bytes)
    n_table = 1
    while n_table * sector_bytes // 4 < n_table + n_directory + sum(lengths):
        n_table += 1
    before = n_table + n_directory
    starts = [before + at for at in accumulate(lengths, initial=0)]
    table_at = 0
    if not table_first:
        starts = [at - before for at in starts]
        table_at = sum(lengths)
    numbers = [_FREE] * (n_table * sector_bytes // 4)
    numbers[table_at : table_at + n_table] = [_TABLE] * n_table
    runs = [(table_at + n_table, n_directory), *zip(starts, lengths, strict=False)]
    for start, length in runs:
        numbers[start : start + length] = [*range(start + 1, start + length), _END]
    directory = _directory(streams, folders, starts, bodies).ljust(
        n_directory * sector_bytes, b"\0"
    )
    table = struct.pack(f"<{len(numbers)}I", *numbers)
    head = struct.pack(
        "<8s16xHHHHH6xIIIIIIIII",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        0x3E,
        3 if sector_bytes == 512 else 4,
        0xFFFE,
        sector_bytes.bit_length() - 1,
        6,
        0,
        n_table,
        table_at + n_table,
        0,
        4096,
        _END,
        0,
        _END,
        0,
    )  # fmt: skip
    parts = [table_at + n if n < n_table else _FREE for n in range(109)]
    tables = table + directory
    content = b"".join(
        body.ljust(-(-len(body) // sector_bytes) * sector_bytes, b"\0") for body in bodies
    )
    both = tables + content if table_first else content + tables
    return (head + struct.pack("<109I", *parts)).ljust(sector_bytes, b"\0") + both


def _directory(
    streams: dict[str, bytes], folders: Sequence[str], starts: Sequence[int], bodies: list[bytes]
) -> bytes:
    """Write the directory: siblings as a list that leans to the right, which readers must bear."""
    names = ["", *streams, *folders]
    children: dict[str, list[int]] = {}
    for number, name in enumerate(names[1:], 1):
        children.setdefault(name.rpartition("/")[0], []).append(number)
    entries: list[bytes] = []
    for number, name in enumerate(names):
        siblings = children.get(name.rpartition("/")[0], []) if number else [0]
        place = siblings.index(number)
        after = siblings[place + 1] if place + 1 < len(siblings) else _NONE
        is_stream = 0 < number <= len(streams)
        kind = 2 if is_stream else 1 if number else 5
        first = children.get(name, [_NONE])[0] if not is_stream else _NONE
        at, size = (starts[number - 1], len(bodies[number - 1])) if is_stream else (_END, 0)
        encoded = f"{name.rpartition('/')[2] if number else 'Root Entry'}\0".encode("utf-16-le")
        entries.append(
            struct.pack(
                "<64sHBBIII36xIQ", encoded, len(encoded), kind, 1, _NONE, after, first, at, size
            )
        )
    return b"".join(entries)


# --- Word -----------------------------------------------------------------------------------------


def word(
    *pieces: str | bytes,
    lengths: Sequence[int] | None = None,
    flags: int = 0x0200,
    magic: int = 0xA5EC,
    clx: bytes | None = None,
) -> dict[str, bytes]:
    """Make the streams of a document; a piece of bytes has one byte a character, one of text two.

    Args:
        pieces: The text, in order.
        lengths: Of document, footnotes, headers, …; all is the document where none are given.
        flags: Locked, which table.
        magic: The first word.
        clx: What stands in the table stream instead of the pieces.
    """
    bodies = [
        piece if isinstance(piece, bytes) else piece.encode("utf-16-le", "surrogatepass")
        for piece in pieces
    ]
    n_chars = [len(piece) for piece in pieces]  # no test cuts a piece by characters of four bytes
    at, places = 2048, list[int]()
    for piece, body in zip(pieces, bodies, strict=True):
        places.append(at * 2 | 0x40000000 if isinstance(piece, bytes) else at)
        at += len(body)
    ends = list(accumulate(n_chars, initial=0))
    table = struct.pack(f"<{len(ends)}I", *ends)
    table += b"".join(struct.pack("<HIH", 0, place, 0) for place in places)
    if clx is None:
        clx = b"\x01\x02\x00ab\x02" + struct.pack("<I", len(table)) + table
    main = bytearray(2048)
    struct.pack_into("<H8xH", main, 0, magic, flags)
    all_lengths = [*(lengths or [ends[-1]]), *[0] * 8][:8]
    struct.pack_into("<8i", main, 0x4C, *all_lengths)
    struct.pack_into("<II", main, 0x1A2, 64, len(clx))
    name = "1Table" if flags & 0x0200 else "0Table"
    return {"WordDocument": bytes(main) + b"".join(bodies), name: bytes(64) + clx}


# --- Excel ----------------------------------------------------------------------------------------


def record(kind: int, body: bytes = b"") -> bytes:
    """Write a record of a workbook."""
    return struct.pack("<HH", kind, len(body)) + body


def begin(kind: int = 0x10, version: int = 0x0600) -> bytes:
    """Write the first record of the globals (5), a sheet (16) or a chart (32)."""
    return record(0x0809, struct.pack("<HHHHII", version, kind, 0, 0, 0, 0))


def unicode_string(text: str, *, length: str = "<H") -> bytes:
    """Write a string of BIFF8, of two bytes a character."""
    return struct.pack(length, len(text)) + b"\x01" + text.encode("utf-16-le")


def cell(kind: int, row: int, column: int, value: bytes, style: int = 0) -> bytes:
    """Write a cell."""
    return record(kind, struct.pack("<HHH", row, column, style) + value)


def workbook(
    sheets: dict[str, bytes], globals_: bytes = b"", *, version: int = 0x0600, kind: int = 0
) -> bytes:
    """Make the stream of a workbook: the sheets' records without their first and last."""
    end = record(0x0A)
    names = {
        name: unicode_string(name, length="<B")
        if version == 0x0600
        else bytes([len(name)]) + name.encode("cp1251")
        for name in sheets
    }
    n_bytes = len(begin(5, version)) + len(globals_) + len(end)
    at = n_bytes + sum(4 + 6 + len(name) for name in names.values())
    bound, content = b"", b""
    for name, cells in sheets.items():
        bound += record(0x85, struct.pack("<IBB", at + len(content), 0, kind) + names[name])
        content += begin(0x10, version) + cells + end
    return begin(5, version) + globals_ + bound + end + content


# --- PowerPoint -----------------------------------------------------------------------------------


def atom(kind: int, body: bytes, instance: int = 0) -> bytes:
    """Write a record of a presentation."""
    return struct.pack("<HHI", instance << 4, kind, len(body)) + body


def holder(kind: int, *records: bytes, instance: int = 0) -> bytes:
    """Write a record that holds records."""
    body = b"".join(records)
    return struct.pack("<HHI", instance << 4 | 0x0F, kind, len(body)) + body


def chars(text: str) -> bytes:
    """Write text of two bytes a character."""
    return atom(0x0FA0, text.encode("utf-16-le"))


def listed(reference: int, own_id: int, *texts: bytes) -> bytes:
    """Write a slide, or notes, in a list of the document's."""
    return atom(0x03F3, struct.pack("<IIiII", reference, 0, len(texts), own_id, 0)) + b"".join(
        texts
    )


def slide(*records: bytes, notes_id: int = 0) -> bytes:
    """Write a slide."""
    about = atom(0x03EF, struct.pack("<I8xIIHH", 0, 0, notes_id, 0, 0))
    return holder(0x03EE, about, holder(0x040C, holder(0xF00D, *records)))


def notes(*records: bytes, slide_id: int = 1) -> bytes:
    """Write notes of a slide; those of no slide are the master."""
    return holder(0x03F0, atom(0x03F1, struct.pack("<IHH", slide_id, 0, 0)), *records)


def presentation(
    slides: bytes, noted: bytes, objects: dict[int, bytes], *, older: bytes = b""
) -> dict[str, bytes]:
    """Make the streams of a presentation; object 1 is the document.

    Args:
        slides: The list of slides.
        noted: The list of notes.
        objects: Slides, notes and masters by number, in the order in which they are saved.
        older: What stands before it all.
    """
    document = holder(
        0x03E8,
        atom(0x03E9, bytes(40)),
        holder(0x0FF0, listed(9, 9, chars("Click to edit Master")), instance=1),
        holder(0x0FF0, slides, instance=0),
        holder(0x0FF0, noted, instance=2),
    )
    stream, places = older, dict[int, int]()
    for number, body in {1: document, **objects}.items():
        places[number] = len(stream)
        stream += body
    runs = b"".join(struct.pack("<II", n | 1 << 20, at) for n, at in places.items())
    edit_at = len(stream) + 8 + len(runs)
    edit = struct.pack("<IIIIIIHH", 0, 0, 0, len(stream), 1, 9, 0, 0)
    stream += atom(0x1772, runs) + atom(0x0FF5, edit)
    user = atom(0x0FF6, struct.pack("<III", 20, 0xE391C05F, edit_at) + bytes(12))
    return {"PowerPoint Document": stream, "Current User": user}
