"""Read single fields of bodies: what published clients send loosely, made strict once.

A field that cannot be read is a 400 that names it; what can be mended is.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from agentsight import _contract as contract
from agentsight.server.problems import Problem, invalid, not_found, required
from agentsight.server.times import parse_time

Scalar = str | int | float | bool | None
"""What gen A may send where a text is meant; see docs/published-clients.md, "Bodies"."""


def scalar_text(value: Scalar) -> str | None:
    """Return the text of a scalar, as Python's clients would write it; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def optional_text(value: Scalar, field: str, max_chars: int = contract.MAX_ID_CHARS) -> str | None:
    """Read a short text; blank is None.

    Raises:
        Problem: 400 when it is longer than `max_chars` characters.
    """
    text = scalar_text(value)
    if text is None or not text.strip():
        return None
    if len(text) > max_chars:
        raise invalid(field, f"Send at most {max_chars} characters; this has {len(text)}.")
    return text


def required_text(value: Scalar, field: str, max_chars: int = contract.MAX_ID_CHARS) -> str:
    """Read a short text that must be there.

    Raises:
        Problem: 400 when it is missing, blank or too long.
    """
    text = optional_text(value, field, max_chars)
    if text is None:
        raise required(field)
    return text


def long_text(value: Scalar, field: str, max_bytes: int) -> str | None:
    """Read a text of up to `max_bytes` in UTF-8; None stays None, blank is kept.

    Raises:
        Problem: 413 when it is longer, naming the limit.
    """
    text = scalar_text(value)
    if text is not None and len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
        raise Problem(
            413, "too_large", fields={field: [f"Send at most {max_bytes} bytes (max_text_bytes)."]}
        )
    return text


def json_text(value: Any, field: str, max_bytes: int, max_depth: int) -> str | None:
    """Read an object of free form and return its JSON text; None stays None.

    Raises:
        Problem: 400 when it is no object or too deep; 413 when it is too large.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid(field, "Send an object.")
    if is_deeper(value, max_depth):
        raise invalid(field, f"Nest at most {max_depth} levels (max_metadata_depth).")
    encoded = msgspec.json.encode(value)
    if len(encoded) > max_bytes:
        text = f"Send at most {max_bytes} bytes (max_metadata_bytes); this has {len(encoded)}."
        raise Problem(413, "too_large", fields={field: [text]})
    return encoded.decode()


def is_deeper(value: Any, depth: int) -> bool:
    """Say whether a decoded JSON value nests deeper than `depth` levels."""
    level = [value]
    for _ in range(depth):
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(cast("dict[str, Any]", item).values())
            elif isinstance(item, list):
                following.extend(cast("list[Any]", item))
        if not following:
            return False
        level = following
    return any(isinstance(item, dict | list) for item in level)


def time_field(value: Scalar, field: str, default_us: int) -> int:
    """Read a time; missing is `default_us`. Without an offset it is UTC.

    Raises:
        Problem: 400 when it is no time.
    """
    if value is None or value == "":
        return default_us
    time_us = parse_time(value) if isinstance(value, str) else None
    if time_us is None:
        raise invalid(field, "Send an ISO 8601 time, such as 2026-01-31T10:00:00Z.")
    return time_us


def typed_time(value: Scalar) -> tuple[int | None, str | None]:
    """Read a time that somebody typed: µs since 1970 UTC, or the text as it is."""
    text = scalar_text(value)
    if text is None or not text.strip():
        return None, None
    time_us = parse_time(text)
    return (time_us, None) if time_us is not None else (None, text[: contract.MAX_ID_CHARS])


def parse_row_id(text: str) -> int:
    """Read a row id out of a path.

    Raises:
        Problem: 404 for whatever is no row id: it names nothing.
    """
    if (
        not text.isascii()
        or not text.isdigit()
        or len(text) > 16
        or int(text) > contract.MAX_ROW_ID
    ):
        raise not_found()
    return int(text)


def reference_id(value: Scalar) -> int | None:
    """Read a row id out of a body: a number or digits. None for what gen A sends for "unknown".

    Raises:
        Problem: 404 for what can be no row id (true, 1.5, "abc", 2^70): it names nothing.
    """
    if value is None or value in ("", "None"):
        return None
    if isinstance(value, bool | float):
        raise not_found()
    return parse_row_id(str(value).strip())


def reference_text(value: Scalar) -> str | None:
    """Read a caller's own id out of a body; gen A sends `"None"` for "unknown".

    Raises:
        Problem: 400 when it is too long.
    """
    text = optional_text(value, "conversation_id")
    return None if text == "None" else text
