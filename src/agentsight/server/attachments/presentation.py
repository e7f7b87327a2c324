"""How a file is presented to a browser: shown or downloaded, as which type, in what confinement.

A file is shown inside the page only where its first bytes agree with its type and that type is
inert: pictures, sound, video, PDF, plain text. Everything else (SVG, HTML, the unknown, the lying)
is a download in a sandbox. The sender's word is never trusted here, and never lost either: it
stands in the row. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from agentsight.server.attachments.types import KNOWN_MIME_TYPES, UNKNOWN_MIME_TYPE

SANDBOX: Final = "default-src 'none'; sandbox"
PICTURE: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""The page that a browser makes around a picture centres it, by styles of its own
(docs/decisions/0030)."""
_MEDIA: Final = "default-src 'none'; media-src 'self'"
_PDF: Final = "default-src 'none'; object-src 'self'; frame-ancestors 'self'"
_TEXT: Final = "text/plain; charset=utf-8"
"""All text is shown as plain text, Markdown and CSV too: with `nosniff` that runs nowhere."""

_SYNONYMS: Final[dict[str, str]] = {
    "application/x-pdf": "application/pdf",
    "application/ogg": "audio/ogg",
    "audio/m4a": "audio/mp4",
    "audio/mp3": "audio/mpeg",
    "audio/mpeg3": "audio/mpeg",
    "audio/opus": "audio/ogg",
    "audio/vnd.wave": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-aac": "audio/aac",
    "audio/x-flac": "audio/flac",
    "audio/x-m4a": "audio/mp4",
    "audio/x-mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-ms-bmp": "image/bmp",
    "image/x-png": "image/png",
    "video/avi": "video/x-msvideo",
    "video/x-m4v": "video/mp4",
}
# What holds the same kind of file; the first bytes cannot tell sound from video in a container.
_CONTAINERS: Final[dict[str, str]] = {
    "audio/3gpp": "iso",
    "audio/3gpp2": "iso",
    "audio/mp4": "iso",
    "video/3gpp": "iso",
    "video/3gpp2": "iso",
    "video/mp4": "iso",
    "video/quicktime": "iso",
    "audio/ogg": "ogg",
    "video/ogg": "ogg",
    "audio/webm": "matroska",
    "audio/x-matroska": "matroska",
    "video/webm": "matroska",
    "video/x-matroska": "matroska",
    "image/heic": "heif",
    "image/heif": "heif",
}
_PICTURES: Final = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"}
)
_PICTURES_OF_FEW: Final = frozenset({"image/heic", "image/heif", "image/tiff"})
"""Pictures that most browsers make no page for."""
_PLAYABLE: Final = frozenset(
    {"audio/mpeg", "audio/wav", "audio/flac", "audio/aac", "audio/amr", "video/x-msvideo"}
    | {mime_type for mime_type, container in _CONTAINERS.items() if container != "heif"}
)
_PLAIN_TEXTS: Final = frozenset({"text/plain", "text/vcard", "text/calendar"})
"""What readable text is detected as; `text/html` and `text/xml` are not among them."""
_ACTIVE: Final = frozenset(
    {"text/html", "text/xml", "text/css", "text/javascript", "application/xml"}
    | {"application/xhtml+xml", "image/svg+xml", "text/cache-manifest"}
)
_SAFE_TO_NAME: Final = frozenset(
    mime_type
    for mime_type in KNOWN_MIME_TYPES - _ACTIVE
    if not mime_type.endswith("+xml")
    and mime_type.startswith(("application/", "message/", "font/"))
)
# RFC 6381: a list of codecs, each with dots; quoted where it has a comma.
_CODECS: Final = re.compile(r';\s*codecs="?([A-Za-z0-9][A-Za-z0-9.,+ -]{0,100})"?\s*(?:;|$)', re.I)
_TOKEN: Final = re.compile(r"[A-Za-z0-9.+-]+")
_CHARSET: Final = re.compile(r';\s*charset="?([A-Za-z0-9_-]{1,20})"?\s*(?:;|$)', re.I)
_CHARSETS: Final = frozenset(
    {"utf-8", "us-ascii", "koi8-r", "koi8-u", "shift_jis", "euc-jp", "euc-kr", "gbk", "gb18030"}
    | {"big5"}
    | {f"iso-8859-{n}" for n in range(1, 17)}
    | {f"windows-{n}" for n in range(1250, 1259)}
)


@dataclass(frozen=True, slots=True)
class Presentation:
    """What decides how a browser takes a file."""

    disposition: Literal["inline", "attachment"]
    content_type: str
    content_security_policy: str


@lru_cache(maxsize=1024)
def present(mime_type: str, detected: str | None) -> Presentation:
    """Decide how a file is presented.

    Args:
        mime_type: Its effective type.
        detected: What its first bytes say, or None.
    """
    declared = _SYNONYMS.get(mime_type, mime_type)
    if declared.startswith("text/"):
        if declared not in _ACTIVE and detected in _PLAIN_TEXTS:
            return Presentation("inline", _TEXT, SANDBOX)
        return Presentation("attachment", UNKNOWN_MIME_TYPE, SANDBOX)
    policy = _inline_policy(declared)
    if policy is None:
        known = declared if declared in _SAFE_TO_NAME else UNKNOWN_MIME_TYPE
        return Presentation("attachment", known, SANDBOX)
    if detected is None or _kind(declared) != _kind(_SYNONYMS.get(detected, detected)):
        return Presentation("attachment", UNKNOWN_MIME_TYPE, SANDBOX)
    return Presentation("inline", declared, policy)


@lru_cache(maxsize=1024)
def served_type(shown: Presentation, declared: str | None) -> str:
    """Return the Content-Type: the sender's parameter is kept where it helps and harms nothing.

    That is `codecs` of what is played, and the `charset` of text, where it names an encoding that
    browsers know and that ASCII reads the same in.

    Args:
        shown: What `present` decided; a download keeps no parameter.
        declared: The sender's word, as it came.
    """
    if shown.disposition != "inline" or not declared or ";" not in declared:
        return shown.content_type
    if shown.content_type in _PLAYABLE:
        found = _CODECS.search(declared)
        return f"{shown.content_type}; codecs={_quoted(found[1])}" if found else shown.content_type
    if shown.content_type == _TEXT:
        found = _CHARSET.search(declared)
        if found and found[1].lower() in _CHARSETS:
            return f"text/plain; charset={found[1].lower()}"
    return shown.content_type


def _quoted(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else f'"{value}"'


def _inline_policy(mime_type: str) -> str | None:
    if mime_type in _PICTURES:
        return PICTURE
    if mime_type in _PICTURES_OF_FEW:
        return SANDBOX
    if mime_type in _PLAYABLE:
        return _MEDIA
    return _PDF if mime_type == "application/pdf" else None


def _kind(mime_type: str) -> str:
    return _CONTAINERS.get(mime_type, mime_type)
