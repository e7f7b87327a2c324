"""Small public helpers: ids, timestamps, MIME types, the form of 0.0.x, a JSON encoder."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from io import BytesIO
from typing import Any, Final

__all__ = [
    "AgentSightJSONEncoder",
    "generate_conversation_id",
    "get_iso_timestamp",
    "get_mime_type",
    "prepare_form_data_payload_from_data",
]

OCTET_STREAM: Final = "application/octet-stream"
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_SNIFFED_TEXT_BYTES: Final = 64 * 1024

# First bytes, and where they stand (file-format specifications and RFC 9559, 9639).
_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"%PDF-", "application/pdf"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\x00\x00\x01\x00", "image/x-icon"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (4, b"ftyp", "video/mp4"),
    (0, b"<!DOCTYPE html", "text/html"),
    (0, b"<html", "text/html"),
    (0, b"<?xml", "text/xml"),
)
_ZIP_STARTS: Final = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_ZIP_MEMBERS: Final = (
    ("xl/workbook.xml", _OFFICE + "spreadsheetml.sheet"),
    ("ppt/presentation.xml", _OFFICE + "presentationml.presentation"),
    ("word/document.xml", _OFFICE + "wordprocessingml.document"),
)
# What the standard library's table lacks on some systems (it also reads the system's own files).
_MORE_EXTENSIONS: Final = {
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".webp": "image/webp",
    ".docx": _OFFICE + "wordprocessingml.document",
    ".xlsx": _OFFICE + "spreadsheetml.sheet",
    ".pptx": _OFFICE + "presentationml.presentation",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".epub": "application/epub+zip",
    ".rtf": "application/rtf",
}


class AgentSightJSONEncoder(json.JSONEncoder):
    """A JSON encoder that writes an Enum as its value."""

    def default(self, o: Any) -> Any:
        """Return the value of an Enum; TypeError for anything else JSON has no form for."""
        return o.value if isinstance(o, Enum) else super().default(o)


def generate_conversation_id() -> str:
    """Return a new conversation id: `conv_` and 12 hexadecimal characters."""
    return f"conv_{uuid.uuid4().hex[:12]}"


def get_iso_timestamp() -> str:
    """Return the time now, in UTC, as `2026-11-22T19:13:21.738137+00:00`."""
    return datetime.now(UTC).isoformat()


def get_mime_type(source: str | bytes) -> str:
    """Guess a MIME type: of a file name by its extension, of bytes by what they are.

    Returns:
        `application/octet-stream` where nothing is known.
    """
    if isinstance(source, str):
        return _mime_type_of_name(source)
    if isinstance(source, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not typed
        return _mime_type_of_bytes(source)
    return OCTET_STREAM


def extension_of(mime_type: str) -> str:
    """Return the usual extension of a MIME type, with its dot; `.bin` where there is none."""
    import mimetypes

    bare = mime_type.partition(";")[0].strip().lower()
    for extension, known in _MORE_EXTENSIONS.items():
        if known == bare:
            return extension
    return mimetypes.guess_extension(bare) or ".bin"


def prepare_form_data_payload_from_data(
    attachments: Iterable[Mapping[str, Any]],
    conversation_id: str | None,
    sender: str | None = "end_user",
    metadata: Mapping[str, Any] | None = None,
    timestamp: str | None = None,
) -> dict[str, Any]:
    """Return the parts of a multipart `POST /api/attachments/` in order, as 0.0.x sent them.

    Returns:
        Part name to `(None, text)` for the five fields, then `attachment_0`, … to
        `(file name, open file, MIME type)`.
    """
    parts: dict[str, Any] = {
        "timestamp": (None, timestamp or get_iso_timestamp()),
        "conversation": (None, conversation_id),
        "sender": (None, sender),
        "mode": (None, "form_data"),
        "metadata": (None, json.dumps(metadata)),
    }
    for i, attachment in enumerate(attachments):
        data: Any = attachment["data"]
        mime_type = attachment.get("mime_type") or get_mime_type(data)
        filename = attachment.get("filename") or f"attachment_{i}{extension_of(mime_type)}"
        file: Any = BytesIO(data) if isinstance(data, bytes) else data
        if hasattr(file, "seek"):
            file.seek(0)
        parts[f"attachment_{i}"] = (filename, file, mime_type)
    return parts


def _mime_type_of_name(filename: str) -> str:
    import mimetypes

    guessed = mimetypes.guess_type(filename)[0]
    if guessed is not None:
        return guessed
    extension = "." + filename.rpartition(".")[2].lower() if "." in filename else ""
    return _MORE_EXTENSIONS.get(extension, OCTET_STREAM)


def _mime_type_of_bytes(content: bytes) -> str:
    if content.startswith(_ZIP_STARTS):
        return _mime_type_of_zip(content)
    for offset, signature, mime_type in _SIGNATURES:
        if content.startswith(signature, offset):
            return mime_type
    return _mime_type_of_text(content) if content else OCTET_STREAM


def _mime_type_of_zip(content: bytes) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names:  # OpenDocument and EPUB name themselves in this member
                with archive.open("mimetype") as member:
                    return member.read(255).decode("ascii").strip()
            return next((kind for name, kind in _ZIP_MEMBERS if name in names), "application/zip")
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError):
        return "application/zip"


def _mime_type_of_text(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return OCTET_STREAM
    sample = text[:_SNIFFED_TEXT_BYTES]
    if any(character < " " and character not in "\t\n\r\f" for character in sample):
        return OCTET_STREAM
    if _is_json(text):
        return "application/json"
    lines = [line for line in sample.splitlines() if line.strip()][:20]
    if _is_csv(lines):
        return "text/csv"
    return "text/markdown" if _is_markdown(lines) else "text/plain"


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_csv(lines: list[str]) -> bool:
    n_commas = [line.count(",") for line in lines]
    return bool(lines) and min(n_commas) >= 1 and max(n_commas) - min(n_commas) <= 2


def _is_markdown(lines: list[str]) -> bool:
    starts = ("# ", "## ", "### ", "- ", "* ", "> ", "```", "1. ")
    n_marks = sum(line.lstrip().startswith(starts) or "](" in line for line in lines)
    return n_marks >= 2 or (bool(lines) and lines[0].startswith(("# ", "## ")))
