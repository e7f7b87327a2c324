"""The committed files, what each is called by its type, and the two ways of sending one."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Literal

FOLDER = Path(__file__).parents[1] / "data" / "files"
Mode = Literal["base64", "form_data"]

_OFFICE = "application/vnd.openxmlformats-officedocument."
MIME_TYPES = {
    "sample.png": "image/png",
    "sample.jpg": "image/jpeg",
    "sample.gif": "image/gif",
    "sample.webp": "image/webp",
    "sample.heic": "image/heic",
    "hostile.svg": "image/svg+xml",
    "sample.pdf": "application/pdf",
    "sample-scan.pdf": "application/pdf",
    "actually-a-png.pdf": "application/pdf",
    "by-word.doc": "application/msword",
    "by-xlwt.xls": "application/vnd.ms-excel",
    "chairs.doc": "application/msword",
    "chairs.ppt": "application/vnd.ms-powerpoint",
    "chairs.xls": "application/vnd.ms-excel",
    "sample.docx": _OFFICE + "wordprocessingml.document",
    "sample.xlsx": _OFFICE + "spreadsheetml.sheet",
    "sample.pptx": _OFFICE + "presentationml.presentation",
    "sample.odt": "application/vnd.oasis.opendocument.text",
    "sample.zip": "application/zip",
    "sample.vcf": "text/vcard",
    "note.txt": "text/plain",
    "orders.csv": "text/csv",
    "policy.md": "text/markdown",
    "hostile.html": "text/html",
    "sample.mp3": "audio/mpeg",
    "sample.ogg": "audio/ogg",
    "sample.oga": "audio/ogg",
    "sample.opus": "audio/opus",
    "sample.wav": "audio/wav",
    "sample.amr": "audio/amr",
    "sample.m4a": "audio/mp4",
    "sample.mp4": "video/mp4",
    "sample.3gp": "video/3gpp",
    "sample.mov": "video/quicktime",
    "sample.webm": "video/webm",
}
TYPES = ("image", "document", "text", "audio", "video")


def type_of(mime_type: str) -> str:
    """Say which of the five types a MIME type is, as the promise's table does."""
    family = mime_type.partition("/")[0]
    return family if family in ("image", "text", "audio", "video") else "document"


def content_of(name: str) -> bytes:
    """Read a committed file."""
    return (FOLDER / name).read_bytes()


def attachment(mode: Mode, filename: str, content: bytes, mime_type: str | None) -> dict[str, Any]:
    """Make what 0.0.x is given: base64 text in one mode, bytes in the other."""
    made: dict[str, Any] = {"filename": filename}
    if mime_type is not None:
        made["mime_type"] = mime_type
    made["data"] = base64.b64encode(content).decode() if mode == "base64" else content
    return made


def committed(mode: Mode, *names: str) -> list[dict[str, Any]]:
    """Make attachments of committed files."""
    return [attachment(mode, name, content_of(name), MIME_TYPES[name]) for name in names]


def unnamed_stream(content: bytes, filename: str) -> dict[str, Any]:
    """Make an attachment of a stream without a type; 0.0.x sends it as application/octet-stream."""
    return {"filename": filename, "data": io.BytesIO(content)}
