"""Mend, fold and measure text: the few rules that hold for every text that comes in.

What a refusal would lose is mended instead: NUL and lone surrogates, which PostgreSQL and UTF-8
cannot hold, become U+FFFD.
"""

from __future__ import annotations

import re
from typing import Any, cast

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
REPLACEMENT = "\ufffd"


def mend_text(text: str) -> str:
    """Replace NUL and lone surrogates by U+FFFD."""
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub(REPLACEMENT, text)


def mend_value(value: Any) -> Any:
    """Mend every text in a decoded JSON value, keys too; other values pass as they are.

    Recursion is safe: a decoder has been through the same depth before.
    """
    if isinstance(value, str):
        return mend_text(value)
    if isinstance(value, dict):
        mapping = cast("dict[str, Any]", value)
        return {mend_text(key): mend_value(item) for key, item in mapping.items()}
    if isinstance(value, list):
        return [mend_value(item) for item in cast("list[Any]", value)]
    return value


def fold_text(text: str | None) -> str | None:
    """Return the copy that case-blind search compares (Python's full case folding)."""
    return None if text is None else text.casefold()


def like_pattern(part: str) -> str:
    """Return the `LIKE … ESCAPE '\\'` pattern of texts that contain `part`."""
    return f"%{like_prefix(part)}"


def like_prefix(start: str) -> str:
    """Return the `LIKE … ESCAPE '\\'` pattern of texts that begin with `start`."""
    escaped = start.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{escaped}%"
