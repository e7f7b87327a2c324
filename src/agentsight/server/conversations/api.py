"""Doors to conversations: lists, transcripts, look-up, and the manager's writes.

Routes and answers are those of docs/published-clients.md, "Requests" and "Answers".
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec
from litestar import MediaType, Request, Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody

from agentsight import _contract as contract
from agentsight.server.attachments.addresses import addresses_of
from agentsight.server.conversations import service
from agentsight.server.conversations.filters import DESCRIPTIONS, FILTER_NAMES, parse_filters
from agentsight.server.conversations.shapes import (
    ConversationShape,
    shape_full,
    shape_lean,
)
from agentsight.server.feedback.shapes import FeedbackShape, shape_feedback
from agentsight.server.feedback.store import NewFeedback
from agentsight.server.ids import ConversationPk
from agentsight.server.problems import Problem, invalid, required
from agentsight.server.queries import read_flag
from agentsight.server.request_context import bases_of, parts_of
from agentsight.server.text import mend_text
from agentsight.server.times import to_datetime
from agentsight.server.web.auth import access_of, reads, writes
from agentsight.server.web.fields import (
    Scalar,
    json_text,
    optional_text,
    parse_row_id,
    reference_id,
    reference_text,
    required_text,
    scalar_text,
)
from agentsight.server.web.openapi import with_query
from agentsight.server.web.paging import Envelope, ignored_header, make_envelope, parse_page

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
_ENCODER = msgspec.json.Encoder()
_TAGS = ["conversations"]
_DETAIL_PATH = "/api/conversations/{pk:str}/"


class RenameBody(msgspec.Struct):
    """The new name, 1 to 255 characters."""

    name: Scalar = None


class MarkBody(msgspec.Struct):
    """Whether the conversation is marked."""

    is_marked: bool


class UpdateBody(msgspec.Struct):
    """What to set; absent fields stay. `metadata` replaces the whole document."""

    name: Scalar | msgspec.UnsetType = msgspec.UNSET
    is_marked: bool | msgspec.UnsetType = msgspec.UNSET
    customer_id: Scalar | msgspec.UnsetType = msgspec.UNSET
    device: Scalar | msgspec.UnsetType = msgspec.UNSET
    language: Scalar | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class FeedbackBody(msgspec.Struct):
    """A word on a conversation, named by `conversation` (row id) or `conversation_id`."""

    sentiment: str
    conversation_id: Scalar = None
    conversation: Scalar = None
    comment: str | None = None
    metadata: dict[str, Any] | None = None
    item_key: str | None = None


class ConversationPage(Envelope, kw_only=True):
    """A page of conversations; with `full=false` each without its transcript."""

    results: list[ConversationShape]


class LookupShape(msgspec.Struct):
    """A conversation's two ids, and its uid."""

    id: int
    conversation_id: str
    uid: str


class RenamedShape(msgspec.Struct):
    """A conversation's new name."""

    id: int
    conversation_id: str
    name: str


class MarkedShape(msgspec.Struct):
    """Whether the conversation is marked now."""

    id: int
    conversation_id: str
    is_marked: bool


class DeletedShape(msgspec.Struct):
    """A conversation that lists hide from now on."""

    id: int
    conversation_id: str
    is_deleted: bool
    deleted_at: datetime


def _pk(text: str) -> ConversationPk:
    return ConversationPk(parse_row_id(text))


def _encoded(shape: T, headers: dict[str, str] | None = None) -> Response[T]:
    """Answer with JSON made here: the framework makes an encoder for every answer."""
    body = cast("T", _ENCODER.encode(shape))
    return Response(body, headers=headers, media_type=MediaType.JSON)


@get(
    contract.CONVERSATIONS_PATH,
    guards=[reads],
    tags=_TAGS,
    summary="List conversations",
    operation_class=with_query(DESCRIPTIONS),
)
async def list_conversations(request: AnyRequest) -> Response[ConversationPage]:
    """List the agent's conversations, newest start first, narrowed by filters.

    Unknown parameters are ignored and named in the header `X-AgentSight-Ignored-Parameters`.
    """
    query = {name: str(value) for name, value in request.query_params.items()}
    asked, filters, is_full = (
        parse_page(query.get("page"), query.get("page_size")),
        parse_filters(query),
        read_flag(query, "full", default=True),
    )
    parts, access, to = parts_of(request), access_of(request), addresses_of(request)
    listed = await service.list_conversations(
        parts, access, filters, limit=asked.size, offset=asked.offset, full=is_full
    )
    transcripts = listed.transcripts
    results = [
        shape_lean(row, access.agent_id)
        if transcripts is None
        else shape_full(row, access.agent_id, transcripts, parts.links, to)
        for row in listed.rows
    ]
    envelope = make_envelope(
        page=asked,
        count=listed.count,
        url=bases_of(request).public_base(request.scope) + contract.CONVERSATIONS_PATH,
        query=request.scope["query_string"].decode("latin-1"),
        truncated=transcripts is not None and bool(transcripts.omitted),
    )
    # Lean rows are full ones without the last keys; the struct names what a full one has.
    rows = cast("list[ConversationShape]", results)
    page = ConversationPage(**msgspec.structs.asdict(envelope), results=rows)
    return _encoded(page, ignored_header(query, FILTER_NAMES))


@get(
    contract.LOOKUP_PATH,
    guards=[reads],
    tags=_TAGS,
    summary="Find a conversation by its caller's id",
    operation_class=with_query({"conversation_id": "The caller's own id, exactly."}),
)
async def look_up_conversation(request: AnyRequest) -> LookupShape:
    """Find a conversation by the id its caller gave it, deleted ones too."""
    wanted = mend_text(str(request.query_params.get("conversation_id", "")))
    if not wanted:
        raise required("conversation_id")
    head = await service.look_up(parts_of(request), access_of(request), wanted)
    return LookupShape(head.pk, head.conversation_id, head.uid)


@get(_DETAIL_PATH, guards=[reads], tags=_TAGS, summary="Read a conversation")
async def read_conversation(request: AnyRequest, pk: FromPath[str]) -> Response[ConversationShape]:
    """Read a conversation by its row id with its whole transcript, deleted ones too."""
    parts, access = parts_of(request), access_of(request)
    row, transcripts = await service.read_conversation(parts, access, _pk(pk))
    shape = shape_full(row, access.agent_id, transcripts, parts.links, addresses_of(request))
    return _encoded(shape)


@patch(_DETAIL_PATH + "rename/", guards=[writes], tags=_TAGS, summary="Rename a conversation")
async def rename_conversation(
    request: AnyRequest, pk: FromPath[str], data: JSONBody[RenameBody]
) -> RenamedShape:
    """Set a conversation's name."""
    name = required_text(data.name, "name", contract.MAX_NAME_CHARS).strip()
    head = await service.change_conversation(
        parts_of(request), access_of(request), _pk(pk), service.Change(name=name)
    )
    return RenamedShape(head.pk, head.conversation_id, name)


@post(
    _DETAIL_PATH + "mark/",
    guards=[writes],
    tags=_TAGS,
    status_code=200,
    summary="Mark a conversation",
)
async def mark_conversation(
    request: AnyRequest, pk: FromPath[str], data: JSONBody[MarkBody]
) -> MarkedShape:
    """Set or clear a conversation's mark."""
    head = await service.change_conversation(
        parts_of(request), access_of(request), _pk(pk), service.Change(is_marked=data.is_marked)
    )
    return MarkedShape(head.pk, head.conversation_id, data.is_marked)


@patch(_DETAIL_PATH + "update/", guards=[writes], tags=_TAGS, summary="Update a conversation")
async def update_conversation(
    request: AnyRequest, pk: FromPath[str], data: JSONBody[UpdateBody]
) -> dict[str, Any]:
    """Set several fields at once; answers with those that were set."""
    change, changed = _read_change(request, data)
    if not changed:
        names = "name, is_marked, customer_id, device, language, metadata"
        raise Problem(400, "required", f"Send at least one of {names}.")
    head = await service.change_conversation(parts_of(request), access_of(request), _pk(pk), change)
    ids = {"id": head.pk, "conversation_id": head.conversation_id}
    return ids | changed | {"updated_fields": list(changed)}


def _read_change(request: AnyRequest, data: UpdateBody) -> tuple[service.Change, dict[str, Any]]:
    settings = parts_of(request).settings
    changed: dict[str, Any] = {}
    fields: list[tuple[str, str | None]] = []
    if data.name is not msgspec.UNSET:
        changed["name"] = required_text(data.name, "name", contract.MAX_NAME_CHARS).strip()
    if data.is_marked is not msgspec.UNSET:
        changed["is_marked"] = data.is_marked
    for field, value in (
        ("customer_id", data.customer_id),
        ("device", data.device),
        ("language", data.language),
    ):
        if value is not msgspec.UNSET:
            changed[field] = optional_text(value, field)
            fields.append((field, changed[field]))
    if data.metadata is not msgspec.UNSET:
        changed["metadata"] = data.metadata
        text = json_text(
            data.metadata, "metadata", settings.max_metadata_bytes, settings.max_metadata_depth
        )
        fields.append(("metadata", text))
    change = service.Change(changed.get("name"), changed.get("is_marked"), tuple(fields))
    return change, changed


@delete(
    _DETAIL_PATH + "delete/",
    guards=[writes],
    tags=_TAGS,
    status_code=200,
    summary="Hide a conversation",
)
async def delete_conversation(request: AnyRequest, pk: FromPath[str]) -> DeletedShape:
    """Hide a conversation from lists; its files and transcript stay readable by row id."""
    head, deleted_at = await service.delete_conversation(
        parts_of(request), access_of(request), _pk(pk)
    )
    return DeletedShape(head.pk, head.conversation_id, True, to_datetime(deleted_at))


@post(
    contract.FEEDBACKS_PATH,
    guards=[writes],
    tags=["feedback"],
    summary="Judge a conversation",
)
async def add_feedback(
    request: AnyRequest, data: JSONBody[FeedbackBody]
) -> Response[FeedbackShape]:
    """Store a customer's word on a conversation (201); one stored before is shown again (200)."""
    parts = parts_of(request)
    pk = reference_id(data.conversation)
    named = reference_text(data.conversation_id)
    if pk is None and named is None:
        raise required("conversation")
    sentiment = data.sentiment.strip().lower()
    if sentiment not in ("positive", "neutral", "negative"):
        raise invalid("sentiment", "Send one of positive, neutral, negative.")
    new = NewFeedback(
        sentiment,
        "customer",
        optional_text(data.comment, "comment", contract.MAX_COMMENT_CHARS),
        json_text(
            data.metadata,
            "metadata",
            parts.settings.max_metadata_bytes,
            parts.settings.max_metadata_depth,
        ),
        optional_text(scalar_text(data.item_key), "item_key"),
    )
    reference = ConversationPk(pk) if pk is not None else named or ""
    row, is_new = await service.add_feedback(parts, access_of(request), reference, new)
    return Response(shape_feedback(row), status_code=201 if is_new else 200)


routes = [
    list_conversations,
    look_up_conversation,
    read_conversation,
    rename_conversation,
    mark_conversation,
    update_conversation,
    delete_conversation,
    add_feedback,
]
