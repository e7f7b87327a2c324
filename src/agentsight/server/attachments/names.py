"""File names: cleaned once when they come in, quoted when they go out. Pure.

A sender's name is never refused: what would harm is taken out, what is left is kept.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal
from urllib.parse import quote

from agentsight._contract import MAX_FILENAME_CHARS

FALLBACK_NAME: Final = "file"
_MAX_EXTENSION_CHARS: Final = 32
"""A longer "extension" is a sentence with a full stop in it."""

# Control characters (C0, DEL, C1), line and paragraph separators, everything that turns the
# direction of text (so that `exe.gpj` cannot be shown as `jpg.exe`), byte order and annotation.
_REMOVED: Final = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]"
)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_HARMLESS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()+-]{0,200}[A-Za-z0-9]")
# RFC 6266 warns of `%` and `\` in the plain parameter: receivers differ in unescaping them.
_UNQUOTABLE: Final = re.compile(r"[^ !#$&-.0-9:;<=>?@A-Z\[\]^_`a-z{|}~]")


def clean_filename(raw: str | None) -> str:
    """Make a name that is safe to store, show, link to and save under.

    The last part of a path (both kinds of slash), without control characters, line breaks and
    bidirectional marks, lone surrogates replaced, at most 255 characters with the extension kept.
    Nothing left, or only dots: `file`. Cleaning a clean name changes nothing.
    """
    if not raw:
        return FALLBACK_NAME
    if _HARMLESS.fullmatch(raw):
        return raw
    name = _mend_surrogates(raw) if _SURROGATE.search(raw) else raw
    name = _REMOVED.sub("", name).replace("\\", "/").rstrip("/ ")
    name = _clamp(name.rpartition("/")[2].strip())
    return FALLBACK_NAME if name.strip(". ") == "" else name


def file_stem(name: str) -> str:
    """Return a cleaned name without its extension; quoting it before or after is the same."""
    return name.rpartition(".")[0] or name


def _mend_surrogates(text: str) -> str:
    """Join pairs that came apart; put U+FFFD in place of halves."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _clamp(name: str) -> str:
    if len(name) <= MAX_FILENAME_CHARS:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or not extension or len(extension) > _MAX_EXTENSION_CHARS:
        return name[:MAX_FILENAME_CHARS].rstrip()
    return f"{stem[: MAX_FILENAME_CHARS - len(extension) - 1]}{dot}{extension}"


def content_disposition(kind: Literal["inline", "attachment"], filename: str) -> str:
    """Build the header's value (RFC 6266): an ASCII name, and the true one where it differs.

    Whatever `filename` holds, the value is printable ASCII and its quotes are balanced.
    """
    if _HARMLESS.fullmatch(filename):
        return f'{kind}; filename="{filename}"'
    decomposed = unicodedata.normalize("NFKD", filename)
    without_accents = "".join(c for c in decomposed if not unicodedata.combining(c))
    plain = _UNQUOTABLE.sub("_", without_accents)
    if plain == filename:
        return f'{kind}; filename="{plain}"'
    exact = quote(filename.encode("utf-8", "replace"), safe="!#$&+^`|")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{exact}"
