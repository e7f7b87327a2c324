"""Each operation of the API: build its request, turn the reply into a value or an error.

Operations are generators that yield requests and are sent replies; they neither wait nor retry
(`_flow` does), so that the sync and the async client drive the same ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeGuard, cast

from agentsight._contract import (
    CONVERSATIONS_PATH,
    FEEDBACKS_PATH,
    FILES_PATH,
    LOOKUP_PATH,
    MAX_COMMENT_CHARS,
    MAX_NAME_CHARS,
    MAX_PAGE_SIZE,
    V1_CONVERSATIONS_PATH,
)
from agentsight._flow import Operation, Reply, Request
from agentsight.enums import Sentiment
from agentsight.exceptions import (
    ConversationApiException,
    ConversationNetworkException,
    ForbiddenException,
    InvalidConversationDataException,
    NotFoundException,
    UnauthorizedException,
)
from agentsight.logging import say

Json: TypeAlias = dict[str, Any]
ConversationRef: TypeAlias = int | str

_JSON_HEADERS: Final = (("Content-Type", "application/json"),)
_ERASE: Final = (("erase", "true"),)
_NOT_FOUND: Final = "Not found."
"""The server's words for what is not there; it does not say what it was asked for."""


# --- Reading ------------------------------------------------------------------------------------


def fetch_conversations(filters: Mapping[str, object]) -> Operation[Json]:
    """GET a page of conversations."""
    return (yield from fetch_page(CONVERSATIONS_PATH, filters))


def fetch_files(filters: Mapping[str, object]) -> Operation[Json]:
    """GET a page of the agent's files, across conversations."""
    return (yield from fetch_page(FILES_PATH, file_filters(filters)))


def file_filters(filters: Mapping[str, object]) -> dict[str, object]:
    """Return filters of files; a conversation is named by text or by its database id."""
    given = dict(filters)
    reference = given.pop("conversation_id", None)
    if reference is not None:
        check_reference(reference)
        name = "conversation" if isinstance(reference, int) else "conversation_id"
        given[name] = reference
    return given


def fetch_file(uid: str) -> Operation[Json]:
    """GET the row of one file."""
    return (yield from call("GET", _file_path(uid), what=_file_named(uid)))


def fetch_page(
    path: str, filters: Mapping[str, object], *, is_first: bool = True
) -> Operation[Json]:
    """GET a page of a list; filters the server does not know are logged with the first."""
    reply = yield Request("GET", path, query(filters))
    ignored = reply.headers.get("x-agentsight-ignored-parameters")
    if ignored and is_first:
        say("WARNING", "the server does not know these filters and ignored them", filters=ignored)
    return read_success(reply, "GET", path)


def fetch_conversation(reference: ConversationRef) -> Operation[Json]:
    """GET one conversation with its transcript."""
    pk = yield from find_pk(reference)
    return (yield from call("GET", f"{CONVERSATIONS_PATH}{pk}/", what=named(reference)))


def fetch_attachments(reference: ConversationRef) -> Operation[Json]:
    """GET a conversation's files, by message."""
    pk = yield from find_pk(reference)
    path = f"{CONVERSATIONS_PATH}{pk}/attachments/"
    return (yield from call("GET", path, what=named(reference)))


def find_pk(reference: ConversationRef) -> Operation[int]:
    """Return the database id of a conversation named by that id or by its own conversation_id."""
    check_reference(reference)
    if isinstance(reference, int):
        return reference
    reply = yield Request("GET", LOOKUP_PATH, (("conversation_id", reference),))
    if reply.status == 404:
        raise NotFoundException(f"{named(reference)} not found{endpoint_doubt(reply)}")
    found = read_success(reply, "GET", LOOKUP_PATH)
    pk = found.get("id")
    if not isinstance(pk, int):
        raise ConversationNetworkException(
            f"The server found conversation_id '{reference}' but did not say its id"
        )
    return pk


class PageWalk:
    """Which page comes next, and which of its rows are new."""

    def __init__(self, filters: Mapping[str, object], path: str = CONVERSATIONS_PATH) -> None:
        self._path = path
        self._filters = {"page_size": MAX_PAGE_SIZE} | {
            name: value for name, value in filters.items() if value is not None
        }
        self._page = int(str(self._filters.pop("page", 1)))
        self._is_first = True
        self._seen: set[object] = set()
        self.is_over = False

    def fetch(self) -> Operation[list[Json]]:
        """GET the next page and return its rows.

        A row that is new meanwhile moves the last of page one into page two; rows of the page
        before are therefore not given again.
        """
        try:
            filters = self._filters | {"page": self._page}
            page = yield from fetch_page(self._path, filters, is_first=self._is_first)
        except NotFoundException:  # rows were deleted meanwhile and the last page is gone
            if self._is_first:
                raise
            self.is_over = True
            return []
        rows: list[Json] = page.get("results") or []
        new = [row for row in rows if row.get("id") not in self._seen]
        self._seen = {row.get("id") for row in rows}
        self._page += 1
        self._is_first = False
        self.is_over = not rows or not page.get("next")
        return new


# --- Managing -----------------------------------------------------------------------------------


def rename_conversation(reference: ConversationRef, name: str) -> Operation[Json]:
    """PATCH a conversation's name."""
    if not name or not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not typed
        raise InvalidConversationDataException("Field 'name' must be a non-empty string")
    body = {"name": _checked_name(name)}
    pk = yield from find_pk(reference)
    path = f"{CONVERSATIONS_PATH}{pk}/rename/"
    return (yield from call("PATCH", path, body=body, what=named(reference)))


def mark_conversation(reference: ConversationRef, is_marked: bool) -> Operation[Json]:
    """POST a conversation's mark."""
    pk = yield from find_pk(reference)
    body = {"is_marked": bool(is_marked)}
    path = f"{CONVERSATIONS_PATH}{pk}/mark/"
    return (yield from call("POST", path, body=body, what=named(reference)))


def delete_conversation(reference: ConversationRef) -> Operation[Json]:
    """DELETE a conversation, softly. Not repeated where it may have happened: again is a 404."""
    pk = yield from find_pk(reference)
    path = f"{CONVERSATIONS_PATH}{pk}/delete/"
    return (yield from call("DELETE", path, is_repeatable=False, what=named(reference)))


def erase_conversation(reference: ConversationRef) -> Operation[Json]:
    """DELETE a conversation with all that is in it, for good."""
    path, what = conversation_path(reference), named(reference)
    return (yield from call("DELETE", path, params=_ERASE, is_repeatable=False, what=what))


def restore_conversation(reference: ConversationRef) -> Operation[Json]:
    """POST that a conversation's deletion is undone."""
    path = f"{conversation_path(reference)}restore/"
    return (yield from call("POST", path, what=named(reference)))


def delete_file(uid: str, *, erase: bool) -> Operation[Json]:
    """DELETE a file: softly, or for good. Not repeated where it may have happened."""
    path, params, what = _file_path(uid), _ERASE if erase else (), _file_named(uid)
    return (yield from call("DELETE", path, params=params, is_repeatable=False, what=what))


def restore_file(uid: str) -> Operation[Json]:
    """POST that a file's deletion is undone."""
    return (yield from call("POST", f"{_file_path(uid)}restore/", what=_file_named(uid)))


def conversation_path(reference: ConversationRef) -> str:
    """Return a conversation's address under /api/v1: by database id, or by its own id."""
    check_reference(reference)
    if isinstance(reference, int):
        return f"{V1_CONVERSATIONS_PATH}{reference}/"
    return f"{V1_CONVERSATIONS_PATH}by-id/{_quoted(reference)}/"


def _file_path(uid: object) -> str:
    if not isinstance(uid, str) or not uid:
        raise ValueError("a file is named by its uid, which is text: see the row of the file")
    return f"{FILES_PATH}{_quoted(uid)}/"


def named(reference: ConversationRef) -> str:
    """Name a conversation in an error's text."""
    if isinstance(reference, int):
        return f"Conversation with id {reference}"
    return f"Conversation with conversation_id '{reference}'"


def _file_named(uid: str) -> str:
    return f"File with uid '{uid}'"


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="", errors="replace")


def update_conversation(reference: ConversationRef, changes: Json) -> Operation[Json]:
    """PATCH several fields of a conversation; `None` means: leave it."""
    body: Json = {name: value for name, value in changes.items() if value is not None}
    if "name" in body:
        if not isinstance(body["name"], str):
            kind = type(body["name"]).__name__
            raise InvalidConversationDataException(f"Field 'name' must be a string, got {kind}")
        body["name"] = _checked_name(body["name"])
    if "is_marked" in body:
        body["is_marked"] = bool(body["is_marked"])
    for name in ("customer_id", "device", "language"):
        if name in body:
            body[name] = str(body[name])
    if not isinstance(body.get("metadata", {}), dict):
        raise InvalidConversationDataException("Field 'metadata' must be a dictionary")
    if not body:
        raise ValueError("At least one field must be provided for update")
    pk = yield from find_pk(reference)
    path = f"{CONVERSATIONS_PATH}{pk}/update/"
    return (yield from call("PATCH", path, body=body, what=named(reference)))


def submit_feedback(
    reference: ConversationRef,
    sentiment: Sentiment | str,
    comment: str | None,
    metadata: Json | None,
) -> Operation[Json]:
    """POST an end user's feedback; `item_key` makes a repetition harmless."""
    check_reference(reference)
    known = [member.value for member in Sentiment]
    sentiment = getattr(sentiment, "value", sentiment)
    if sentiment not in known:
        raise InvalidConversationDataException(
            f"Invalid sentiment: '{sentiment}'. Must be one of: {', '.join(known)}"
        )
    if comment is not None and not isinstance(comment, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not typed
        raise InvalidConversationDataException("Field 'comment' must be a string")
    if comment and len(comment) > MAX_COMMENT_CHARS:
        raise InvalidConversationDataException(
            f"Field 'comment' cannot exceed {MAX_COMMENT_CHARS} characters (got {len(comment)})"
        )
    if metadata is not None and not isinstance(metadata, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not typed
        raise InvalidConversationDataException("Field 'metadata' must be a dictionary")
    body: Json = {"sentiment": sentiment, "item_key": str(uuid.uuid4())}
    body["conversation_id" if isinstance(reference, str) else "conversation"] = reference
    if comment:
        body["comment"] = comment
    if metadata:
        body["metadata"] = metadata
    return (yield from call("POST", FEEDBACKS_PATH, body=body, what=named(reference)))


def _checked_name(name: str) -> str:
    if not name.strip():
        raise InvalidConversationDataException("Field 'name' cannot be empty")
    if len(name) > MAX_NAME_CHARS:
        raise InvalidConversationDataException(
            f"Field 'name' cannot exceed {MAX_NAME_CHARS} characters (got {len(name)})"
        )
    return name.strip()


# --- What all share -----------------------------------------------------------------------------


def call(
    method: str,
    path: str,
    *,
    params: tuple[tuple[str, str], ...] = (),
    body: object = None,
    is_repeatable: bool = True,
    what: str = "",
) -> Operation[Json]:
    """Send one JSON request and return the parsed body of its success.

    Args:
        what: the thing it is about, by name, for the message of a 404.

    Raises:
        UnauthorizedException, ForbiddenException, NotFoundException: 401, 403, 404.
        ConversationApiException: another refusal.
        ConversationNetworkException: no answer, or one that is not JSON.
    """
    content = None if body is None else encode(body)
    headers = _JSON_HEADERS if content is not None else ()
    reply = yield Request(method, path, params, content, headers, is_repeatable)
    return read_success(reply, method, path, what)


def read_success(reply: Reply, method: str, path: str, what: str = "") -> Json:
    """Return the parsed body of a success; raises as `call` does."""
    if reply.status in (200, 201) or (reply.status == 204 and method != "GET"):
        return read_object(reply, f"{method} {path}")
    raise error_of(reply, what=what)


def read_object(reply: Reply, request: str) -> Json:
    """Return the JSON object of a success; an empty body is an empty object."""
    if not reply.content.strip():
        return {}
    value = _parsed(reply)
    if not is_object(value):
        raise ConversationNetworkException(
            f"{request} answered {reply.status} without a JSON object: "
            "is the endpoint an AgentSight server?"
        )
    return value


def error_of(
    reply: Reply, request_type: str = "", *, what: str = ""
) -> ConversationApiException | ConversationNetworkException:
    """Return the error a reply means.

    Args:
        reply: any reply that is no success.
        request_type: for the messages of the tracker's own routes, whose errors are not typed.
        what: what a 404 is about, where the server names nothing.
    """
    if reply.status < 400:
        return ConversationNetworkException(
            f"The server answered {reply.status}, which is neither a success nor an error: "
            "is the endpoint an AgentSight server?"
        )
    data = _parsed(reply)
    detail = str(data["detail"]) if is_object(data) and "detail" in data else None
    if not request_type:
        if reply.status == 404:
            if what and detail == _NOT_FOUND:
                detail = f"{what} not found"
            return NotFoundException((detail or "Resource not found") + endpoint_doubt(reply))
        if reply.status == 401:
            return UnauthorizedException(detail or "Invalid or missing API key")
        if reply.status == 403:
            return ForbiddenException(
                detail or "Access forbidden - not authorized to access this resource"
            )
    start = f"API error for {request_type}" if request_type else "API error"
    message = f"{start} ({reply.status}): {_message(data, reply)}"
    return ConversationApiException(message, reply.status, {} if data is None else data)


def endpoint_doubt(reply: Reply) -> str:
    """Return what else a 404 may mean: an endpoint that has a path has perhaps one too many."""
    path = reply.endpoint.partition("://")[2].partition("/")[2]
    if not path:
        return ""
    return (
        f" (or the endpoint {reply.endpoint} is wrong: it is the server's address, mostly without "
        f"/{path})"
    )


def _message(data: object, reply: Reply) -> str:
    if is_object(data) and data:
        if "detail" in data:
            return str(data["detail"])
        return "; ".join(f"{name}: {joined(value)}" for name, value in data.items())
    if data:
        return str(data)
    return reply.content.decode("utf-8", "replace") or "Unknown error"


def joined(value: object) -> str:
    """Return what an error's body says of one field."""
    if isinstance(value, list):
        return ", ".join(str(one) for one in cast("list[object]", value))
    return str(value)


def is_object(value: object) -> TypeGuard[Json]:
    """Say whether a parsed value is a JSON object."""
    return isinstance(value, dict)


def _parsed(reply: Reply) -> object:
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):
        return None


def check_reference(reference: object) -> None:
    """Refuse what cannot name a conversation, before anything is sent."""
    if isinstance(reference, bool) or (
        reference is not None and not isinstance(reference, (int, str))
    ):
        raise ValueError(f"conversation_id must be int or str, got {type(reference).__name__}")
    if not reference:
        raise ValueError("conversation_id is required")


def query(filters: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return filters as query parameters: `None` is left out, a list is repeated."""
    for name, known in (
        ("feedback_sentiment", ["positive", "neutral", "negative"]),
        ("feedback_source", ["customer", "platform"]),
    ):
        value = getattr(filters.get(name), "value", filters.get(name))
        if value is not None and value not in known:
            raise ValueError(f"{name} must be one of {known}, got '{value}'")
    pairs: list[tuple[str, str]] = []
    for name, value in filters.items():
        is_list = isinstance(value, (list, tuple, set))
        values = cast("Iterable[object]", value) if is_list else (value,)
        pairs.extend((name, _query_text(one)) for one in values if one is not None)
    return tuple(pairs)


def _query_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    return str(getattr(value, "value", value))


_encoder: json.JSONEncoder | None = None


def encode(value: object) -> bytes:
    """Return strict JSON in UTF-8.

    Dates, UUIDs, Decimals, paths and Enums become text, sets become lists. Half a surrogate pair,
    which UTF-8 has no form for, becomes U+FFFD.

    Raises:
        ValueError: NaN, an infinity, or a circle.
        TypeError: something JSON has no form for.
    """
    global _encoder
    if _encoder is None:
        _encoder = json.JSONEncoder(
            ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
        )
    text = _encoder.encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return whole.encode()


def _plain(value: Any) -> Any:
    import enum
    import os
    from datetime import date, time
    from decimal import Decimal

    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (uuid.UUID, Decimal)):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - whatever callers pass
    if isinstance(value, (set, frozenset)):
        return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - whatever callers pass
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - whatever callers pass
    raise TypeError(f"{type(value).__name__} has no form in JSON")
