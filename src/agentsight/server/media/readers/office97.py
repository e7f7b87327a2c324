"""Word, Excel and PowerPoint of before 2007: which of them wrote a compound file, and its text.

The first bytes of a file seldom reach to the directory of its streams, which tell the programs
apart; here it is read, so here the type is settled. What stands in the streams is for `doc.py`,
`xls.py` and `ppt.py`, which see nothing but bytes.
"""

from __future__ import annotations

from typing import Final

from agentsight.server.media import kinds
from agentsight.server.media.model import Examined
from agentsight.server.media.readers.compound import CompoundFile
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.texts import TextSink

_LOCKED: Final = "EncryptedPackage"
"""Stands for the whole document where one of 2007 or later is locked ([MS-OFFCRYPTO] 1.3.2)."""
_MAIN_STREAMS: Final = (
    ("PowerPoint Document", kinds.PPT),
    ("WordDocument", kinds.DOC),
    ("Workbook", kinds.XLS),
    ("Book", kinds.XLS),  # Excel 5 and 95; who saved for both wrote both
)


def examine(path: str, sink: TextSink) -> Examined:
    """Tell which program's file it is, and read its text. Damage to the text is a note.

    Raises:
        NotReadable: When the container is damaged, or the whole is locked.
    """
    with open(path, "rb") as file:
        streams = CompoundFile(file)
        if _LOCKED in streams:
            raise NotReadable("locked by a password")
        # At the root alone: in the storages below lie the streams of what is embedded.
        found = ((name, kind) for name, kind in _MAIN_STREAMS if name in streams)
        name, mime_type = next(found, ("", kinds.COMPOUND))
        pages: int | None = None
        note: str | None = None
        try:
            pages = _read(streams, name, mime_type, sink)
        except NotReadable as exc:
            note = str(exc)
    text = sink.text()
    return Examined(
        mime_type=mime_type,
        pages=pages,
        text=text,
        is_text_cut=sink.is_cut,
        has_preview=text is not None,
        note=note,
    )


def _read(streams: CompoundFile, name: str, mime_type: str, sink: TextSink) -> int | None:
    """Read the text by the reader of the kind; returns slides or sheets, where it has such."""
    if mime_type == kinds.DOC:
        from agentsight.server.media.readers import doc

        doc.read(streams.read(name), streams.read, sink)
    elif mime_type == kinds.XLS:
        from agentsight.server.media.readers import xls

        return xls.read(streams.read(name), sink)
    elif mime_type == kinds.PPT:
        from agentsight.server.media.readers import ppt

        user = "Current User"
        return ppt.read(streams.read(name), streams.read(user) if user in streams else b"", sink)
    return None
