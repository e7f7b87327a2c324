"""What the shapes of all rooms share: JSON that was stored as text and passes through."""

from __future__ import annotations

import msgspec

_EMPTY_OBJECT = msgspec.Raw(b"{}")


def raw_json(text: str | None) -> msgspec.Raw:
    """Pass stored JSON through as it is; nothing is an empty object."""
    return _EMPTY_OBJECT if text is None else msgspec.Raw(text.encode())
