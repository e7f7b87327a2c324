"""The one error that services raise for a caller's fault or a part that is away.

It knows nothing of HTTP but the number of its status; `web/errors.py` turns it into a body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Problem(Exception):
    """Something the caller must be told, in words that name the thing and the remedy.

    Args:
        status: The HTTP status that says the same.
        code: A stable word of `_contract.ERROR_CODES`.
        detail: One sentence. Left out, it is made of the first field's first message.
        fields: Messages by field name, as lists of strings (both published clients print these).
        items: A batch's refused items, each `{"index", "item_key", "code", "detail"}`.
        retry_after_s: Seconds after which a repeat makes sense.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        fields: Mapping[str, Sequence[str]] | None = None,
        items: Sequence[Mapping[str, Any]] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.fields = {name: list(messages) for name, messages in (fields or {}).items()}
        self.items: Sequence[Mapping[str, Any]] | None = items
        self.retry_after_s = retry_after_s
        if not detail and self.fields:
            name, messages = next(iter(self.fields.items()))
            detail = f"{name}: {' '.join(messages)}"
        self.detail = detail or code
        super().__init__(self.detail)


def not_found() -> Problem:
    """Make the one answer for what does not exist and what the caller may not see."""
    return Problem(404, "not_found", "Not found.")


def invalid(field: str, message: str, *, code: str = "invalid") -> Problem:
    """Make the answer for one field that is wrong."""
    return Problem(400, code, fields={field: [message]})


def required(field: str) -> Problem:
    """Make the answer for one field that is missing."""
    return invalid(field, "This field is required.", code="required")


def too_large(detail: str) -> Problem:
    """Make the answer for what passes a limit; `detail` names the limit and its value."""
    return Problem(413, "too_large", detail)
