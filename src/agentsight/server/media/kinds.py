"""What can be made of a file, by its detected type. Pure: usable by every room.

The type is the detected one (`blobs.detect_mime_type`), never what a sender declared: a program
that was sent as a picture is no picture here either.
"""

from __future__ import annotations

from typing import Final, Literal

PreviewKind = Literal["image", "text"]

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_OPEN_DOCUMENT: Final = "application/vnd.oasis.opendocument."

PDF: Final = "application/pdf"

PICTURES: Final = frozenset(
    {
        "image/avif",
        "image/bmp",
        "image/gif",
        "image/heic",
        "image/heif",
        "image/jpeg",
        "image/png",
        "image/tiff",
        "image/webp",
    }
)
VIDEOS: Final = frozenset(
    {
        "video/3gpp",
        "video/3gpp2",
        "video/mp4",
        "video/ogg",
        "video/quicktime",
        "video/webm",
        "video/x-matroska",
        "video/x-msvideo",
    }
)
SOUNDS: Final = frozenset(
    {
        "audio/aac",
        "audio/amr",
        "audio/flac",
        "audio/mp4",
        "audio/mpeg",
        "audio/ogg",
        "audio/wav",
    }
)
DOCX: Final = _OFFICE + "wordprocessingml.document"
XLSX: Final = _OFFICE + "spreadsheetml.sheet"
PPTX: Final = _OFFICE + "presentationml.presentation"
ODT: Final = _OPEN_DOCUMENT + "text"
ODS: Final = _OPEN_DOCUMENT + "spreadsheet"
ODP: Final = _OPEN_DOCUMENT + "presentation"
EPUB: Final = "application/epub+zip"
ZIPPED: Final = frozenset({DOCX, XLSX, PPTX, ODT, ODS, ODP, EPUB})
"""Documents that are ZIP archives of XML. Drawing their pages would take an office suite: they are
shown by their text."""
DOC: Final = "application/msword"
XLS: Final = "application/vnd.ms-excel"
PPT: Final = "application/vnd.ms-powerpoint"
COMPOUND: Final = "application/x-ole-storage"
"""A compound file whose first bytes do not tell of which program: looking at the whole may."""
COMPOUNDS: Final = frozenset({DOC, XLS, PPT, COMPOUND})
"""What Word, Excel and PowerPoint wrote before 2007, templates too, and others of that kind."""
RTF: Final = "application/rtf"

# SVG is text here: drawing it takes a browser's worth of code, and it can run scripts.
_TEXTS: Final = frozenset(
    {DOC, XLS, PPT, RTF}
    | {"application/json", "application/xml", "image/svg+xml", "message/rfc822"}
)

_PLAYABLE: Final = {
    # Voice notes as WhatsApp, Telegram and Signal send them; Safari plays neither Opus nor Vorbis
    # in Ogg in all its versions.
    "audio/ogg": "m4a",
    "audio/amr": "m4a",
    # What old and cheap phones record; one with sound alone becomes an MP4 with sound alone.
    "video/3gpp": "mp4",
    "video/3gpp2": "mp4",
    "image/heic": "jpg",
    "image/heif": "jpg",
    "image/tiff": "jpg",
}
PLAYBACK_MIME_TYPES: Final = {"m4a": "audio/mp4", "mp4": "video/mp4", "jpg": "image/jpeg"}
"""The type of a derived copy, by the extension that `can_play` gives."""


def can_preview(mime_type: str | None) -> PreviewKind | None:
    """Tell how a file of this type is previewed: as a picture, as text, or not at all."""
    if mime_type is None:
        return None
    if mime_type in PICTURES or mime_type in VIDEOS or mime_type == PDF:
        return "image"
    return "text" if has_text(mime_type) else None


def can_play(mime_type: str | None) -> str | None:
    """Return the extension of the derived copy that browsers can show or play; None: needs none.

    The type that goes with it is in `PLAYBACK_MIME_TYPES`.
    """
    return _PLAYABLE.get(mime_type or "")


def has_text(mime_type: str | None) -> bool:
    """Tell whether files of this type may hold text that can be searched."""
    if mime_type is None:
        return False
    return (
        mime_type.startswith("text/")
        or mime_type == PDF
        or mime_type in _TEXTS
        or mime_type in ZIPPED
    )


def can_examine(mime_type: str | None) -> bool:
    """Tell whether there is anything to learn of a file of this type by opening it."""
    return (
        can_preview(mime_type) is not None
        or has_text(mime_type)
        or mime_type in SOUNDS
        or mime_type == COMPOUND
    )


def settled_type(detected: str | None, found: str | None) -> str | None:
    """Return the type that stands after a look at a whole file.

    Only compound files are told apart by it. How files are served follows their type: a process
    that a hostile file has taken over must not be able to make a page of one.

    Args:
        detected: By the first bytes.
        found: What the examining process says; None: nothing.
    """
    return found if found in COMPOUNDS and detected in COMPOUNDS else detected
