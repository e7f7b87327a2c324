"""Conditional and range requests (RFC 9110, sections 13 and 14), for what has a strong ETag.

Pure: header texts in, decisions out. What is malformed is ignored, as the RFC asks.
"""

from __future__ import annotations

import re
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

_RANGE: Final = re.compile(r"\s*bytes\s*=\s*([0-9]*)\s*-\s*([0-9]*)\s*", re.IGNORECASE)
_ETAG: Final = re.compile(r'(?:W/)?"[^"]*"|\*')
_MAX_DIGITS: Final = 18
_PAST_ALL_ENDS: Final = 10**18


class RangeNotSatisfiable(Exception):
    """The requested range lies outside of the bytes that there are."""


def parse_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Read a Range header.

    Args:
        header: Its value.
        size_bytes: How many bytes there are.

    Returns:
        `(start, end)`, end exclusive, within the size; None to answer with the whole: no range of
        bytes, a malformed one, several at once, or any range of nothing.

    Raises:
        RangeNotSatisfiable: It is well formed and no byte of it exists.
    """
    found = _RANGE.fullmatch(header)
    if found is None or size_bytes == 0:
        return None
    first, last = found[1], found[2]
    if not first and not last:
        return None
    if not first:
        n_bytes = _number(last)
        if n_bytes == 0:
            raise RangeNotSatisfiable
        return max(0, size_bytes - n_bytes), size_bytes
    start = _number(first)
    if last and _number(last) < start:
        return None
    if start >= size_bytes:
        raise RangeNotSatisfiable
    return start, min(_number(last) + 1, size_bytes) if last else size_bytes


def _number(digits: str) -> int:
    """Read digits of any length; beyond every size there is, one number is as good as another."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else _PAST_ALL_ENDS


def http_date(at_us: int) -> str:
    """Format a time (µs since 1970 UTC) for a header."""
    return formatdate(at_us // 1_000_000, usegmt=True)


def is_range_wanted(if_range: str | None, etag: str, modified_at_us: int) -> bool:
    """Say whether a Range counts: without If-Range, or with one that names exactly what we have.

    A weak tag never does (RFC 9110, 13.1.5).
    """
    if if_range is None:
        return True
    value = if_range.strip()
    if value.startswith('"'):
        return value == etag
    return _seconds(value) == modified_at_us // 1_000_000


def is_not_modified(
    if_none_match: str | None, if_modified_since: str | None, etag: str, modified_at_us: int
) -> bool:
    """Say whether the caller already has it: 304. If-None-Match, where sent, alone decides."""
    if if_none_match is not None:
        tags = _ETAG.findall(if_none_match)
        return any(tag == "*" or tag.removeprefix("W/") == etag for tag in tags)
    if if_modified_since is None:
        return False
    since_s = _seconds(if_modified_since)
    return since_s is not None and modified_at_us // 1_000_000 <= since_s


def is_match_refused(if_match: str | None, etag: str) -> bool:
    """Say whether If-Match asks for other bytes than ours: 412."""
    if if_match is None:
        return False
    return not any(tag in ("*", etag) for tag in _ETAG.findall(if_match))


def _seconds(date: str) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
