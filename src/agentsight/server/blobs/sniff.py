"""The type of bytes by their first bytes.

What serving relies on (which files may be shown inside a page) is decided by the exact table here;
the long tail by `puremagic`, loaded when it is first needed. The numbers that led here are in
`docs/decisions/`. Hostile input costs no more than friendly input: everything looks at the first
`HEAD_BYTES` only, and nothing is unpacked.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from agentsight.server.blobs.model import HEAD_BYTES

_PREFIXES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3\x02\x00", "audio/mpeg"),
    (b"ID3\x03\x00", "audio/mpeg"),
    (b"ID3\x04\x00", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"#!AMR\n", "audio/amr"),
    (b"#!AMR-WB\n", "audio/amr"),
    (b"{\\rtf", "application/rtf"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\xfd7zXZ\x00", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"\x7fELF", "application/x-elf"),
)

# Compound files ([MS-CFB]): sectors of 512 or 4,096 bytes; entries of the directory have 128.
_COMPOUND: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SECTOR_BYTES: Final = 512
_ENTRY_BYTES: Final = 128
# What holds another program's document has entries for its streams, too: the first here wins.
_STREAMS: Final[dict[str, str]] = {
    "PowerPoint Document": "application/vnd.ms-powerpoint",
    "WordDocument": "application/msword",
    "Workbook": "application/vnd.ms-excel",
    "Book": "application/vnd.ms-excel",
}
_STREAM_BY_NAME: Final = {f"{name}\0".encode("utf-16-le"): name for name in _STREAMS}
# How those streams begin: FibBase with `nFib`, DocumentContainer, BOF of BIFF8 and of BIFF5.
_STREAM_STARTS: Final[dict[bytes, str]] = {
    b"\xec\xa5\xc0\x00": "application/msword",
    b"\xec\xa5\xc1\x00": "application/msword",
    b"\xec\xa5\xc2\x00": "application/msword",
    b"\x0f\x00\xe8\x03": "application/vnd.ms-powerpoint",
    b"\x09\x08\x10\x00": "application/vnd.ms-excel",
    b"\x09\x08\x08\x00": "application/vnd.ms-excel",
}

# ISO base media brands (ISO/IEC 14496-12, `ftyp`; the registry is mp4ra.org). What is not here is
# an MPEG-4 file.
_BRANDS: Final[dict[bytes, str]] = {
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"M4P ": "audio/mp4",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"avif": "image/avif",
    b"avis": "image/avif",
}
_STILL_KINDS: Final = frozenset({"image/heic", "image/avif"})
_PLAIN_ZIP: Final = "application/zip"
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_ZIP_FOLDERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"word/", _OFFICE + "wordprocessingml.document"),
    (b"xl/", _OFFICE + "spreadsheetml.sheet"),
    (b"ppt/", _OFFICE + "presentationml.presentation"),
    (b"META-INF/MANIFEST.MF", "application/java-archive"),
)
_MAX_ZIP_NAMES: Final = 64
_ZIP_MIME: Final = re.compile(rb"application/[a-zA-Z0-9.+-]{1,100}")
_DIB_HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})

# WHATWG MIME Sniffing, section 3: bytes that no text holds.
_BINARY: Final = bytes([*range(0x09), 0x0B, *range(0x0E, 0x1B), *range(0x1C, 0x20)])
# The tags of the same standard, section 7.1, and what else makes a browser run something.
_HTML: Final = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|script|iframe|h1|div|font|table|a|style|title|b|br|p|meta"
    rb"|link|img|object|embed|form|frameset|base|!--)(?=[\s>/-])",
    re.IGNORECASE,
)
_SVG: Final = re.compile(rb"<(?:[a-z0-9_.-]+:)?svg[\s>/]", re.IGNORECASE)
_SPACE: Final = b"\t\n\x0c\r "
_MIN_MAGIC_BYTES: Final = 4
"""Shorter signatures of the long tail meet by chance."""
_MIME: Final = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,100}")


def detect_mime_type(head: bytes, size_bytes: int) -> str | None:
    """Tell the type of bytes by the first of them; None when nothing is recognised.

    Args:
        head: The first bytes, `HEAD_BYTES` of them where there are so many; more are not looked at.
        size_bytes: The size of the whole.

    Returns:
        A type without parameters. A guess, never a promise about the rest of the bytes.
    """
    head = head[:HEAD_BYTES]
    if not head:
        return None
    return _by_signature(head) or _by_text(head, is_cut=size_bytes > len(head)) or _long_tail(head)


def _by_signature(head: bytes) -> str | None:
    for prefix, mime_type in _PREFIXES:
        if head.startswith(prefix):
            return mime_type
    if head[4:8] == b"ftyp" and head[0] == 0:  # a length; text could go "The ftyp"
        return _iso_media(head)
    if head.startswith(b"RIFF"):
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}.get(
            head[8:12]
        )
    if head.startswith(b"OggS"):
        return "video/ogg" if b"\x80theora" in head[:512] else "audio/ogg"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if head.startswith(_COMPOUND):
        return _compound(head)
    return _by_short_signature(head)


def _by_short_signature(head: bytes) -> str | None:
    """Recognise what begins with two bytes only, by the fields that follow."""
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _DIB_HEADER_SIZES:
        return "image/bmp"
    if len(head) >= 4 and head[0] == 0xFF:
        if head[1] & 0xF6 == 0xF0 and head[2] & 0x3C != 0x3C:
            return "audio/aac"  # ADTS: sync, layer 0, a known sampling frequency
        is_frame = head[1] & 0xE0 == 0xE0 and head[1] & 0x18 != 0x08 and head[1] & 0x06 in (2, 4)
        if is_frame and head[2] & 0xF0 not in (0x00, 0xF0) and head[2] & 0x0C != 0x0C:
            return "audio/mpeg"
    if head[0] == 0 and head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "video/quicktime"  # files from before `ftyp` (QuickTime File Format, "Atoms")
    return None


def _iso_media(head: bytes) -> str:
    length = min(int.from_bytes(head[:4], "big"), 256)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))]
    major = brands[0]
    if major[:2] == b"3g":
        return "video/3gpp2" if major[2:3] == b"2" else "video/3gpp"
    found = _BRANDS.get(major, "video/mp4")
    if found == "image/heif":  # the general brand; one that is compatible may say more
        return next((_BRANDS[b] for b in brands if _BRANDS.get(b) in _STILL_KINDS), found)
    return found


def _zip(head: bytes) -> str:
    """Tell what kind of ZIP, by the names of the first members; nothing is unpacked."""
    at = 0
    for _ in range(_MAX_ZIP_NAMES):
        name_bytes = int.from_bytes(head[at + 26 : at + 28], "little")
        extra_bytes = int.from_bytes(head[at + 28 : at + 30], "little")
        name = head[at + 30 : at + 30 + name_bytes]
        if at == 0 and name == b"mimetype":  # OpenDocument and EPUB: first and uncompressed
            start = at + 30 + name_bytes + extra_bytes
            size = int.from_bytes(head[at + 22 : at + 26], "little")
            found = _ZIP_MIME.fullmatch(head[start : start + min(size, 120)])
            return found[0].decode("ascii").lower() if found else _PLAIN_ZIP
        for folder, mime_type in _ZIP_FOLDERS:
            if name.startswith(folder):
                return mime_type
        at = head.find(b"PK\x03\x04", at + 30)
        if at < 0:
            break
    return _PLAIN_ZIP


def _compound(head: bytes) -> str:
    """Tell whose compound file it is, by its streams, as far as they lie in the head.

    The directory of small files does, by which alone it is certain; else a stream may begin here.
    Which it is when neither does, the examining process tells, which has the whole file.
    """
    found: set[str] = set()
    for at in range(_SECTOR_BYTES, len(head), _ENTRY_BYTES):
        if head[at + 66 : at + 67] == b"\x02":  # a stream's entry
            n_bytes = int.from_bytes(head[at + 64 : at + 66], "little")
            found.add(_STREAM_BY_NAME.get(head[at : at + n_bytes], ""))
    for name, mime_type in _STREAMS.items():
        if name in found:
            return mime_type
    for at in range(_SECTOR_BYTES, len(head), _SECTOR_BYTES):
        if mime_type := _STREAM_STARTS.get(head[at : at + 4]):
            return mime_type
    return "application/x-ole-storage"


def _by_text(head: bytes, *, is_cut: bool) -> str | None:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        codec = "utf-16-le" if head[0] == 0xFF else "utf-16-be"
        text = head[2:].decode(codec, "ignore").encode("utf-8", "ignore")
        return None if _has_binary(text) else _kind_of_text(text)
    if _has_binary(head):
        return None
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, not is_cut)
    except UnicodeDecodeError:
        # An older 8-bit encoding is still text where letters prevail; noise without control
        # characters is not.
        n_high = len(head) - len(head.translate(None, bytes(range(0x80, 0x100))))
        if n_high * 3 > len(head):
            return None
    return _kind_of_text(head.removeprefix(codecs.BOM_UTF8))


def _has_binary(text: bytes) -> bool:
    return len(text.translate(None, _BINARY)) != len(text)


def _kind_of_text(text: bytes) -> str:
    start = text.lstrip(_SPACE)[:1024]
    if start.startswith(b"<"):
        if start.startswith((b"<?xml", b"<!DOCTYPE svg")) or _SVG.match(start):
            if _SVG.search(start):
                return "image/svg+xml"
            return "text/html" if _HTML.search(start) else "text/xml"
        if start.startswith(b"<!--") and _SVG.search(start):
            return "image/svg+xml"
        if _HTML.match(start):
            return "text/html"
    upper = start[:15].upper()
    if upper.startswith(b"BEGIN:VCARD"):
        return "text/vcard"
    if upper.startswith(b"BEGIN:VCALENDAR"):
        return "text/calendar"
    return "text/plain"


def _long_tail(head: bytes) -> str | None:
    for found in _load_long_tail()(head):
        if len(found.byte_match) >= _MIN_MAGIC_BYTES and _MIME.fullmatch(found.mime_type or ""):
            mime_type = str(found.mime_type)
            # What only our own table may say: these are shown inside pages.
            is_ours = mime_type.startswith(("image/", "audio/", "video/", "text/"))
            return None if is_ours and mime_type in _OWN_TYPES else mime_type
    return None


_OWN_TYPES: Final = frozenset(
    {mime_type for _, mime_type in _PREFIXES}
    | set(_BRANDS.values())
    | {"audio/wav", "audio/aac", "audio/ogg", "video/ogg", "video/webm", "video/mp4", "image/webp"}
    | {"image/bmp", "video/3gpp", "video/3gpp2", "text/plain", "text/html", "image/svg+xml"}
)


@cache
def _load_long_tail() -> Callable[[bytes], list[Any]]:
    import puremagic

    def identify(head: bytes) -> list[Any]:
        try:
            return puremagic.magic_string(head)  # pyright: ignore[reportUnknownMemberType] # untyped argument
        except (puremagic.PureError, ValueError):
            return []

    return identify
