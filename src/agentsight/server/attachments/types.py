"""The type of a file: a mechanical rule over MIME types, the same on every machine. Pure.

The table of extensions is our own: the platform's differs from machine to machine and between
versions of Python, and an attachment's type must not.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, cast

AttachmentType: TypeAlias = Literal["image", "document", "text", "audio", "video"]

UNKNOWN_MIME_TYPE: Final = "application/octet-stream"
_NAME: Final = "[a-z0-9!#$&^_.+-]{1,100}"
_MIME: Final = re.compile(rf"{_NAME}/{_NAME}")
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_OPEN: Final = "application/vnd.oasis.opendocument."

# By type, so that each type is written once.
_EXTENSIONS: Final[dict[str, str]] = {
    # Images
    "image/png": "png",
    "image/apng": "apng",
    "image/jpeg": "jpg jpeg jpe jfif",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/bmp": "bmp dib",
    "image/tiff": "tif tiff",
    "image/svg+xml": "svg",
    "image/vnd.microsoft.icon": "ico",
    "image/vnd.adobe.photoshop": "psd",
    "image/jxl": "jxl",
    # Audio
    "audio/mpeg": "mp3 mpga",
    "audio/mp4": "m4a m4b",
    "audio/aac": "aac",
    "audio/ogg": "ogg oga opus spx",
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/amr": "amr",
    "audio/aiff": "aif aiff aifc",
    "audio/midi": "mid midi",
    "audio/x-ms-wma": "wma",
    "audio/webm": "weba",
    "audio/x-caf": "caf",
    # Video
    "video/mp4": "mp4 m4v mp4v",
    "video/webm": "webm",
    "video/quicktime": "mov qt",
    "video/ogg": "ogv",
    "video/mpeg": "mpeg mpg mpe",
    "video/x-msvideo": "avi",
    "video/x-matroska": "mkv",
    "video/3gpp": "3gp 3gpp",
    "video/3gpp2": "3g2",
    "video/x-ms-wmv": "wmv",
    "video/x-flv": "flv",
    "video/mp2t": "mts m2ts",
    # Text
    "text/plain": "txt text log conf ini cfg env srt",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv tab",
    "text/markdown": "md markdown mdown mkd",
    "text/html": "html htm",
    "text/css": "css",
    "text/javascript": "js mjs cjs",
    "text/vcard": "vcf vcard",
    "text/calendar": "ics ifb",
    "text/vtt": "vtt",
    "text/x-python": "py",
    "text/x-rst": "rst",
    "text/x-c": "c h cc cpp hpp",
    "text/x-java": "java",
    "text/x-shellscript": "sh bash",
    "text/x-diff": "diff patch",
    "text/x-sql": "sql",
    "text/x-typescript": "ts tsx",
    # Documents: everything else
    "application/pdf": "pdf",
    "application/msword": "doc dot",
    "application/vnd.ms-excel": "xls xlt",
    "application/vnd.ms-powerpoint": "ppt pps pot",
    "application/vnd.ms-outlook": "msg",
    _OFFICE + "wordprocessingml.document": "docx",
    _OFFICE + "wordprocessingml.template": "dotx",
    _OFFICE + "spreadsheetml.sheet": "xlsx",
    _OFFICE + "spreadsheetml.template": "xltx",
    _OFFICE + "presentationml.presentation": "pptx",
    _OFFICE + "presentationml.slideshow": "ppsx",
    "application/vnd.ms-word.document.macroenabled.12": "docm",
    "application/vnd.ms-excel.sheet.macroenabled.12": "xlsm",
    "application/vnd.ms-powerpoint.presentation.macroenabled.12": "pptm",
    _OPEN + "text": "odt",
    _OPEN + "spreadsheet": "ods",
    _OPEN + "presentation": "odp",
    _OPEN + "graphics": "odg",
    "application/vnd.apple.pages": "pages",
    "application/vnd.apple.numbers": "numbers",
    "application/vnd.apple.keynote": "keynote",
    "application/rtf": "rtf",
    "application/epub+zip": "epub",
    "application/postscript": "ps eps ai",
    "application/json": "json",
    "application/geo+json": "geojson",
    "application/jsonl": "jsonl ndjson",
    "application/xml": "xml xsd xsl",
    "application/xhtml+xml": "xhtml xht",
    "application/yaml": "yaml yml",
    "application/toml": "toml",
    "application/zip": "zip",
    "application/gzip": "gz tgz",
    "application/x-tar": "tar",
    "application/x-7z-compressed": "7z",
    "application/vnd.rar": "rar",
    "application/x-bzip2": "bz2",
    "application/x-xz": "xz",
    "application/zstd": "zst",
    "application/java-archive": "jar",
    "application/vnd.sqlite3": "sqlite sqlite3",
    "application/vnd.apache.parquet": "parquet",
    "application/x-ipynb+json": "ipynb",
    "application/pkcs7-signature": "p7s",
    "application/vnd.google-earth.kml+xml": "kml",
    "application/gpx+xml": "gpx",
    "message/rfc822": "eml",
    "font/ttf": "ttf",
    "font/otf": "otf",
    "font/woff": "woff",
    "font/woff2": "woff2",
}
MIME_TYPE_BY_EXTENSION: Final[dict[str, str]] = {
    extension: mime_type
    for mime_type, extensions in _EXTENSIONS.items()
    for extension in extensions.split()
}
KNOWN_MIME_TYPES: Final = frozenset(_EXTENSIONS)


def normal_mime_type(declared: str | None) -> str:
    """Return a declared type in lower case without parameters; empty where there is none.

    What has not the form `type/subtype` says nothing, and counts as empty.
    """
    if not declared:
        return ""
    mime_type = declared.partition(";")[0].strip().lower()
    return mime_type if _MIME.fullmatch(mime_type) else ""


def effective_mime_type(declared: str | None, filename: str, detected: str | None) -> str:
    """Decide the one MIME type of a file.

    The sender's word, where it says anything; otherwise the file name's extension; otherwise the
    content; otherwise `application/octet-stream`. A word that contradicts the content stands:
    serving, not this rule, protects the reader.

    Args:
        declared: What the sender said, as it came, or None.
        filename: The cleaned name.
        detected: What `detect_mime_type` found, or None.
    """
    mime_type = normal_mime_type(declared)
    if mime_type and mime_type != UNKNOWN_MIME_TYPE:
        return mime_type
    extension = filename.rpartition(".")[2].lower() if "." in filename else ""
    return MIME_TYPE_BY_EXTENSION.get(extension) or detected or UNKNOWN_MIME_TYPE


def attachment_type(mime_type: str) -> AttachmentType:
    """Say which of the five types a MIME type is. The set is closed: clients branch on it."""
    family = mime_type.partition("/")[0]
    if family in ("image", "audio", "video", "text"):
        return cast("AttachmentType", family)
    return "document"
