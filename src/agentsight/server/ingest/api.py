"""Doors through which things come in: gen A's write routes and files.

What gen A is and sends: docs/published-clients.md, "Requests" and "Bodies".

Every one answers 200 or 201 with a JSON body and nothing else: published clients send again on 202
and 204. 201 means stored now, 200 that it was stored before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import msgspec
from litestar import Request, Response, post
from litestar.params import JSONBody

from agentsight import _contract as contract
from agentsight.server.attachments.addresses import addresses_of
from agentsight.server.attachments.model import HandedIn, ReferredUpload
from agentsight.server.attachments.service import Receiving
from agentsight.server.attachments.shapes import AttachmentShape, shape_files
from agentsight.server.conversations.model import Head
from agentsight.server.ids import MessageId
from agentsight.server.ingest import service
from agentsight.server.ingest.bodies import (
    ActionBody,
    AttachmentsBody,
    ButtonBody,
    ConversationBody,
    ItemBody,
    TrackBody,
)
from agentsight.server.ingest.documents import ATTACHMENTS_BODY
from agentsight.server.ingest.files import (
    Form,
    check_count,
    is_multipart,
    keyed,
    open_form,
    receive_files,
)
from agentsight.server.ingest.model import Applied, Item, StoredItem, Target
from agentsight.server.ingest.reading import Reader, repeat_key
from agentsight.server.messages.model import NewMessage
from agentsight.server.problems import Problem, invalid
from agentsight.server.request_context import parts_of
from agentsight.server.times import to_datetime
from agentsight.server.web.auth import access_of, writes
from agentsight.server.web.bodies import convert_body, decode_json
from agentsight.server.web.fields import reference_id

AnyRequest = Request[Any, Any, Any]
_TAGS = ["tracking"]


class OpenedShape(msgspec.Struct):
    """A conversation that is there now, made or found."""

    id: int
    conversation_id: str
    uid: str


class TrackedShape(msgspec.Struct):
    """An item that is stored now. `id` is the message's, or its action's or click's row."""

    id: int
    message: int
    conversation: int
    conversation_id: str
    timestamp: datetime


class UploadedShape(msgspec.Struct):
    """Files that are stored now, and the message that holds them."""

    message: int
    conversation: int
    conversation_id: str
    attachments: list[AttachmentShape]


def reader_of(request: AnyRequest) -> Reader:
    """Return the reader of this server's limits and the time of now."""
    parts = parts_of(request)
    return Reader(parts.settings, parts.clock())


@post(contract.CONVERSATIONS_PATH, guards=[writes], tags=_TAGS, summary="Open a conversation")
async def open_conversation(
    request: AnyRequest, data: JSONBody[ConversationBody]
) -> Response[OpenedShape]:
    """Make a conversation (201), or fill what is still empty in the one that is there (200)."""
    new = reader_of(request).conversation(data)
    head, is_new = await service.open_conversation(parts_of(request), access_of(request), new)
    shape = OpenedShape(head.pk, head.conversation_id, head.uid)
    return Response(shape, status_code=201 if is_new else 200)


@post(contract.TRACK_PATH, guards=[writes], tags=_TAGS, summary="Store a message")
async def track_message(request: AnyRequest, data: JSONBody[TrackBody]) -> Response[TrackedShape]:
    """Store a message of the end user or the agent."""
    return await _track(request, data, reader_of(request).message(data), contract.TRACK_PATH)


@post(contract.ACTION_LOGS_PATH, guards=[writes], tags=_TAGS, summary="Store an action")
async def track_action(request: AnyRequest, data: JSONBody[ActionBody]) -> Response[TrackedShape]:
    """Store a run of a tool; one named `token_usage` is kept as token counters."""
    return await _track(request, data, reader_of(request).action(data), contract.ACTION_LOGS_PATH)


@post(contract.BUTTONS_PATH, guards=[writes], tags=_TAGS, summary="Store a click")
async def track_button(request: AnyRequest, data: JSONBody[ButtonBody]) -> Response[TrackedShape]:
    """Store a click on a button."""
    return await _track(request, data, reader_of(request).button(data), contract.BUTTONS_PATH)


async def _track(
    request: AnyRequest, body: ItemBody, message: NewMessage, route: str
) -> Response[TrackedShape]:
    target = reader_of(request).target(body)
    message = with_repeat_key(message, body, route)
    applied = await _alone(
        service.apply_items(parts_of(request), access_of(request), target, [Item(message)])
    )
    stored = applied.items[0]
    shape = TrackedShape(
        stored.detail_id or stored.message_id,
        stored.message_id,
        applied.head.pk,
        applied.head.conversation_id,
        to_datetime(message.timestamp),
    )
    return Response(shape, status_code=200 if stored.is_repeat else 201)


async def _alone(applying: Any) -> Applied:
    """Await a single item; its refusal speaks of itself, not of item 0."""
    try:
        return await applying
    except Problem as problem:
        problem.items = None
        raise


def with_repeat_key(message: NewMessage, body: ItemBody, route: str, *more: str) -> NewMessage:
    """Give a published client's message the key of its body, where it has none and has a time.

    Without a time of its own two equal bodies may be two events: nothing is de-duplicated.
    """
    if message.item_key is not None or not body.timestamp:
        return message
    key = repeat_key(route, body, *more)
    return replace(message, item_key=key, is_repeat_lasting=False)


@post(
    contract.ATTACHMENTS_PATH,
    guards=[writes],
    tags=["attachments"],
    summary="Store files",
    operation_class=ATTACHMENTS_BODY,
)
async def upload_attachments(request: AnyRequest) -> Response[UploadedShape]:
    """Store files, as JSON with base64 or as multipart/form-data.

    With `message` they join that message; without it they get a message of their own.
    """
    parts, access = parts_of(request), access_of(request)
    async with Receiving(parts, access) as receiving:
        body, files = await _read_upload(request, receiving)
        applied = await _store_upload(request, body, files)
        receiving.settled(applied.object_keys)
    return await _uploaded(request, applied.head, applied.items[0])


async def _read_upload(
    request: AnyRequest, receiving: Receiving
) -> tuple[AttachmentsBody, list[HandedIn]]:
    reader = reader_of(request)
    if is_multipart(request):
        async with open_form(request, receiving, reader.settings) as form:
            check_count(len(form.files), reader.settings)
            return _form_body(form), [*form.in_order()]
    body = convert_body(await request.json(), AttachmentsBody)
    files = await receive_files(body.attachments or (), receiving, reader)
    body.attachments = None
    return body, files


def _form_body(form: Form) -> AttachmentsBody:
    fields = form.fields
    raw = fields.get("metadata", "").strip()
    try:
        metadata = decode_json(raw.encode()) if raw else None
    except Problem as error:
        raise invalid("metadata", "Send an object as JSON text.") from error
    if metadata is not None and not isinstance(metadata, dict):
        raise invalid("metadata", "Send an object as JSON text.")
    metadata = cast("dict[str, Any] | None", metadata)
    return AttachmentsBody(
        timestamp=fields.get("timestamp"),
        conversation=fields.get("conversation"),
        conversation_id=fields.get("conversation_id"),
        metadata=metadata,
        item_key=fields.get("item_key"),
        message=fields.get("message"),
        sender=fields.get("sender"),
        mode=fields.get("mode"),
    )


async def _store_upload(
    request: AnyRequest, body: AttachmentsBody, files: list[HandedIn]
) -> Applied:
    parts, access, reader = parts_of(request), access_of(request), reader_of(request)
    message = reader.files_message(body.sender, body.timestamp, body.metadata, body.item_key)
    names = [_identity(f) for f in files]
    message = with_repeat_key(message, body, contract.ATTACHMENTS_PATH, *names)
    message_id = reference_id(body.message)
    if message_id is None:
        target = reader.target(body)
        return await _alone(service.apply_items(parts, access, target, [Item(message, files)]))
    named = reader.target(body, is_made=False)
    target = Target(named.pk, named.conversation_id, MessageId(message_id))
    return await service.add_files(
        parts,
        access,
        target,
        keyed(files, message.item_key),
        is_repeat_lasting=message.is_repeat_lasting,
    )


def _identity(file: HandedIn) -> str:
    """Tell one file of a body from another, for the key of its repeat."""
    what = f"upload {file.upload_uid}" if isinstance(file, ReferredUpload) else file.sha256
    return f"{file.filename}\n{file.declared_mime_type}\n{what}"


async def _uploaded(request: AnyRequest, head: Head, stored: StoredItem) -> Response[UploadedShape]:
    parts, access = parts_of(request), access_of(request)
    rows = await service.read_files(parts, access, [stored])
    shapes = shape_files(
        rows.get(stored.message_id, []), access.agent_id, parts.links, addresses_of(request)
    )
    shape = UploadedShape(stored.message_id, head.pk, head.conversation_id, shapes)
    return Response(shape, status_code=200 if stored.is_repeat else 201)


routes = [open_conversation, track_message, track_action, track_button, upload_attachments]
