"""Read the values of a query string, for every list alike: flags, times, orderings, metadata. Pure.

A blank value is no filter; what cannot be understood is told with the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from agentsight.server.problems import Problem, invalid
from agentsight.server.text import mend_text
from agentsight.server.times import parse_time

T = TypeVar("T", bound=str)
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_MAX_VALUE_CHARS: Final = 1000
_MAX_PATH_KEYS: Final = 50
"""Of a metadata filter. SQLite joins a table for each, and 64 at most; metadata is 20 deep."""
# JSON's grammar (RFC 8259, section 6), within what a double and 64 bits can be.
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")


class MetadataFilter(msgspec.Struct, frozen=True):
    """A leaf of the metadata, by its path through objects, that equals the value.

    A text equals by its characters, a number by its value (`1`, `1.0` and `1e0` are one), `true`,
    `false` and `null` by their names. Objects and lists equal nothing.
    """

    path: tuple[str, ...]
    text: str


def read_query(
    query: Mapping[str, str],
    names: Collection[str],
    read: Callable[[str, str], tuple[str | None, Any]],
) -> dict[str, Any]:
    """Read what a query string says of the names a list knows; others are passed over.

    Args:
        query: Names and raw values.
        names: The names that are known.
        read: Takes a name and a value that is not blank; gives the filter's field (None: not a
            filter) and its value, or raises `ValueError` with the remedy.

    Raises:
        Problem: 400 with a list of messages for each value that cannot be understood.
    """
    values: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    for name, raw in query.items():
        if name not in names or not raw.strip():
            continue
        try:
            field, value = read(name, mend_text(raw))
        except ValueError as error:
            errors[name] = [str(error)]
            continue
        if field is not None:
            values[field] = value
    if errors:
        raise Problem(400, "invalid", fields=errors)
    return values


def unknown_names(query: Mapping[str, str], names: Collection[str]) -> list[str]:
    """Return the names that no filter has, for the header that tells of them."""
    return sorted(name for name in query if name not in names)


def parse_text(raw: str) -> str:
    """Read a text as it is.

    Raises:
        ValueError: With the remedy.
    """
    if len(raw) > _MAX_VALUE_CHARS:
        raise ValueError(f"Send at most {_MAX_VALUE_CHARS} characters.")
    return raw


def parse_flag(raw: str) -> bool:
    """Read `true` or `false`, and what people write for them.

    Raises:
        ValueError: With the remedy.
    """
    text = raw.strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("Send true or false.")


def read_flag(query: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Read one flag of a query string; blank is as if it were not there.

    Raises:
        Problem: 400 with the remedy for what is neither true nor false.
    """
    raw = str(query.get(name, ""))
    try:
        return parse_flag(raw) if raw.strip() else default
    except ValueError as error:
        raise invalid(name, str(error)) from error


def parse_time_us(raw: str) -> int:
    """Read an ISO 8601 date or time as µs since 1970 UTC.

    Raises:
        ValueError: With the remedy.
    """
    time_us = parse_time(raw)
    if time_us is None:
        raise ValueError("Send an ISO 8601 date or time, such as 2026-01-31T10:00:00Z.")
    return time_us


def parse_number(raw: str, most: int) -> int:
    """Read a whole number from 0 to `most`.

    Raises:
        ValueError: With the remedy.
    """
    text = raw.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > most:
        raise ValueError(f"Send a whole number from 0 to {most}.")
    return int(text)


def parse_choice(raw: str, choices: Sequence[str]) -> str:
    """Read one of a few words, whatever its case.

    Raises:
        ValueError: With the remedy.
    """
    text = raw.strip().lower()
    if text not in choices:
        raise ValueError(f"Send one of {', '.join(choices)}.")
    return text


def parse_ordering(raw: str, columns: Sequence[T]) -> tuple[tuple[T, bool], ...]:
    """Read columns with `-` for descending.

    Raises:
        ValueError: With the remedy.
    """
    order: dict[T, bool] = {}
    for part in raw.split(","):
        bare = part.strip().removeprefix("-")
        column = next((known for known in columns if known == bare), None)
        if column is None:
            raise ValueError(f"Send columns out of {', '.join(columns)}, with - for descending.")
        # What is named again orders nothing more; databases take a limited number of columns.
        order.setdefault(column, part.strip().startswith("-"))
    return tuple(order.items())


def parse_metadata_filter(raw: str) -> tuple[MetadataFilter, ...]:
    """Read `key:value,other.nested:value2`: all must hold.

    A piece without a colon belongs to the value before it, so that values may have commas; the
    first colon ends the path, so that values may have colons.

    Raises:
        ValueError: When there is no `key:` at all.
    """
    if len(raw) > 4 * _MAX_VALUE_CHARS:
        raise ValueError(f"Send at most {4 * _MAX_VALUE_CHARS} characters.")
    pieces: list[str] = []
    for piece in raw.split(","):
        if ":" in piece or not pieces:
            pieces.append(piece)
        else:
            pieces[-1] += "," + piece
    filters: list[MetadataFilter] = []
    for piece in pieces:
        path, colon, value = piece.partition(":")
        keys = tuple(key.strip() for key in path.split("."))
        if not colon or not all(keys):
            raise ValueError("Send key:value pairs, such as plan:gold,address.city:Paris.")
        if len(keys) > _MAX_PATH_KEYS:
            raise ValueError(f"Name at most {_MAX_PATH_KEYS} keys in a path.")
        filters.append(MetadataFilter(keys, value.strip()))
    if len(filters) > 10:
        raise ValueError("Send at most 10 key:value pairs.")
    return tuple(filters)


def number_text(text: str) -> str | None:
    """Return the JSON number that a filter's text is, in the one form both databases compare.

    None for what is no number, and for one that no leaf can be: out of a double's range, or with
    more digits than a double keeps. Then only a text can equal it.
    """
    if _NUMBER.fullmatch(text) is None:
        return None
    exact = Decimal(text)
    if exact == exact.to_integral_value() and -(2**63) <= exact < 2**63:
        return str(int(exact))
    shortest = repr(float(text))
    return shortest if Decimal(shortest) == exact else None
