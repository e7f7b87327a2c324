"""The filters of a list of files: what a query string may ask, read and checked. Pure.

`store_lists.py` turns a `Filters` into SQL; the tests' oracle says in plain Python what each means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from agentsight import _contract as contract
from agentsight.server.agents.model import clean_environment
from agentsight.server.queries import (
    MetadataFilter,
    parse_choice,
    parse_flag,
    parse_metadata_filter,
    parse_number,
    parse_ordering,
    parse_text,
    parse_time_us,
    read_query,
)

Ordering = Literal["sent_at", "size_bytes", "filename", "type", "id"]
ORDERINGS: Final[tuple[Ordering, ...]] = ("sent_at", "size_bytes", "filename", "type", "id")
MAX_SIZE_BYTES: Final = 2**62
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MIME: Final = re.compile(r"([a-z0-9!#$&^_.+-]{1,100})/([a-z0-9!#$&^_.+-]{1,100}|\*)")


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; None is "no opinion". Times are µs since 1970 UTC.

    `detected_mime_type` ends with `/` where it stands for a whole family of types.
    """

    type: str | None = None
    detected_mime_type: str | None = None
    filename_contains: str | None = None
    text_contains: str | None = None
    contains: str | None = None
    sender: str | None = None
    conversation: int | None = None
    conversation_id: str | None = None
    customer_id: str | None = None
    environment: str | None = None
    size_min: int | None = None
    size_max: int | None = None
    sent_after: int | None = None
    sent_before: int | None = None
    metadata: tuple[MetadataFilter, ...] = ()
    scan: str | None = None
    sha256: str | None = None
    include_deleted: bool = False
    count: bool = True
    ordering: tuple[tuple[Ordering, bool], ...] = ()
    """Columns with "descending"; empty is the default, newest first."""


_TEXTS: Final = (
    "filename_contains",
    "text_contains",
    "contains",
    "conversation_id",
    "customer_id",
)
_CHOICES: Final = {
    "type": contract.ATTACHMENT_TYPES,
    "sender": ("end_user", "agent", "system"),
    "scan": ("not_scanned", "clean", "infected", "failed"),
}
_NUMBERS: Final = {
    "conversation": contract.MAX_ROW_ID,
    "size_min": MAX_SIZE_BYTES,
    "size_max": MAX_SIZE_BYTES,
}
DESCRIPTIONS: Final[dict[str, str]] = {
    "type": "image, document, text, audio or video.",
    "detected_mime_type": "The type by content, exactly, or a family such as image/*.",
    "filename_contains": "Contained in the file's name, without case.",
    "text_contains": "Contained in the text inside the file, without case.",
    "contains": "Contained in the file's name or in the text inside it, without case.",
    "sender": "end_user, agent or system: who sent the message.",
    "conversation": "The conversation's row id.",
    "conversation_id": "The caller's own id of the conversation, exactly.",
    "customer_id": "The conversation's customer, exactly.",
    "environment": "The environment's slug; prod and dev are understood.",
    "size_min": "Bytes, inclusive.",
    "size_max": "Bytes, inclusive.",
    "sent_after": "ISO 8601, inclusive; without an offset it is UTC.",
    "sent_before": "ISO 8601, inclusive; without an offset it is UTC.",
    "metadata": "key:value,other.nested:value2 of the file's own metadata: all must be so.",
    "scan": "not_scanned, clean, infected or failed.",
    "sha256": "The bytes' SHA-256 in hex.",
    "include_deleted": "true shows deleted files, and those of deleted conversations, too.",
    "count": "false leaves the counting out: count is then the least there are.",
    "ordering": "Columns with - for descending: " + ", ".join(ORDERINGS) + ".",
    "page": "From 1.",
    "page_size": "1 to 100; 10 where absent.",
}
FILTER_NAMES: Final = frozenset(DESCRIPTIONS)


def parse_filters(query: Mapping[str, str]) -> Filters:
    """Read the filters of a query string; a blank value is no filter, unknown names are ignored.

    Raises:
        Problem: 400 with a list of messages for each value that cannot be understood.
    """
    return Filters(**read_query(query, FILTER_NAMES, _read))


def _read(name: str, raw: str) -> tuple[str | None, Any]:
    if name in _TEXTS:
        return name, parse_text(raw)
    if name in _CHOICES:
        return name, parse_choice(raw, _CHOICES[name])
    if name in _NUMBERS:
        return name, parse_number(raw, _NUMBERS[name])
    if name in ("sent_after", "sent_before"):
        return name, parse_time_us(raw)
    if name in ("include_deleted", "count"):
        return name, parse_flag(raw)
    return _read_special(name, raw)


def _read_special(name: str, raw: str) -> tuple[str | None, Any]:
    match name:
        case "environment":
            return name, clean_environment(parse_text(raw))
        case "detected_mime_type":
            return name, _read_mime_type(raw)
        case "sha256":
            return name, _read_sha256(raw)
        case "metadata":
            return name, parse_metadata_filter(raw)
        case "ordering":
            return name, parse_ordering(raw, ORDERINGS)
        case _:
            return None, None


def _read_mime_type(raw: str) -> str:
    text = raw.strip().lower()
    if _MIME.fullmatch(text) is None:
        raise ValueError("Send a MIME type such as image/png, or a family such as image/*.")
    return text.removesuffix("*")


def _read_sha256(raw: str) -> str:
    text = raw.strip().lower()
    if _SHA256.fullmatch(text) is None:
        raise ValueError("Send 64 hexadecimal digits.")
    return text
