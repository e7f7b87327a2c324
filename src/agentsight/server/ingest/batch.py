"""The door of our own SDK: a conversation and what happened in it, in one request.

Applied whole or not at all; every item carries its `item_key`, so a resend changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from litestar import Request, post

from agentsight import _contract as contract
from agentsight.server.attachments.addresses import addresses_of
from agentsight.server.attachments.model import HandedIn, ReceivedFile
from agentsight.server.attachments.service import Receiving
from agentsight.server.attachments.shapes import AttachmentShape, shape_files
from agentsight.server.ingest import service
from agentsight.server.ingest.bodies import BatchBody, BatchItem, FileBody
from agentsight.server.ingest.documents import BATCH_BODY
from agentsight.server.ingest.files import (
    check_count,
    is_multipart,
    open_form,
    receive_files,
    with_details,
)
from agentsight.server.ingest.model import Applied, Item, StoredItem
from agentsight.server.ingest.reading import Reader
from agentsight.server.messages.model import NewMessage
from agentsight.server.problems import Problem, invalid, required, too_large
from agentsight.server.request_context import parts_of
from agentsight.server.web.auth import access_of, writes
from agentsight.server.web.bodies import convert_body, decode_json
from agentsight.server.web.fields import scalar_text


class BatchItemShape(msgspec.Struct):
    """What became of an item: `stored` now, `repeated` because it was stored before, or `erased`:
    what it belongs to was erased after it happened, so it is not kept (`id` is null)."""

    index: int
    item_key: str | None
    type: str
    id: int | None
    status: str
    attachments: list[AttachmentShape]


class BatchShape(msgspec.Struct):
    """What became of a batch. Without ids, all of it belongs to what was erased."""

    conversation: int | None
    conversation_id: str
    uid: str | None
    items: list[BatchItemShape]


@dataclass(slots=True)
class _Batch:
    """A batch on its way in: its body, the files that came as parts, its items as they are read."""

    body: BatchBody
    files_by_part: dict[str, ReceivedFile] = field(default_factory=dict[str, ReceivedFile])


@post(
    contract.BATCH_PATH,
    guards=[writes],
    tags=["tracking"],
    status_code=200,
    summary="Apply a batch",
    operation_class=BATCH_BODY,
)
async def apply_batch(request: Request[Any, Any, Any]) -> BatchShape:
    """Open a conversation and store what happened in it, whole or not at all.

    A refusal names the items at fault in `items`; then nothing was stored.
    """
    parts, access = parts_of(request), access_of(request)
    reader = Reader(parts.settings, parts.clock())
    async with Receiving(parts, access) as receiving:
        batch = await _read(request, receiving, reader)
        new = reader.conversation(batch.body.conversation)
        items = await _read_items(batch, receiving, reader)
        applied = await service.apply_items(parts, access, new, items)
        receiving.settled(applied.object_keys)
    return await _shape(request, batch.body, applied)


async def _read(request: Request[Any, Any, Any], receiving: Receiving, reader: Reader) -> _Batch:
    if not is_multipart(request):
        batch = _Batch(convert_body(await request.json(), BatchBody))
    else:
        async with open_form(request, receiving, reader.settings) as form:
            if "batch" not in form.fields:
                raise required("batch")
            body = convert_body(decode_json(form.fields["batch"].encode()), BatchBody)
            batch = _Batch(body, dict(form.files))
    limit = reader.settings.max_items_per_batch
    if len(batch.body.items) > limit:
        raise too_large(f"Send at most {limit} items a batch (max_items_per_batch).")
    return batch


async def _read_items(batch: _Batch, receiving: Receiving, reader: Reader) -> list[Item]:
    items: list[Item] = []
    refused: list[dict[str, Any]] = []
    worst: Problem | None = None
    n_files = 0
    for index, body in enumerate(batch.body.items):
        try:
            n_files += len(body.attachments or ())
            if n_files > reader.settings.max_files_per_request:
                check_count(n_files, reader.settings)
            message = read_item(body, reader)
            files = await _read_files(body, batch, receiving, reader)
            items.append(Item(message, files))
        except Problem as problem:
            if problem.status >= 500:
                raise
            refused.append(service.refusal(index, scalar_text(body.item_key), problem))
            worst = worst or problem
    if worst is not None:
        detail = f"{len(refused)} of {len(batch.body.items)} items are refused; nothing was stored."
        raise Problem(worst.status, worst.code, f"{detail} {worst.detail}", items=refused)
    return items


def read_item(body: BatchItem, reader: Reader) -> NewMessage:
    """Read one item by its type.

    Raises:
        Problem: 400 for an unknown type or a field that cannot be read.
    """
    readers: dict[str, Callable[[BatchItem], NewMessage]] = {
        "message": lambda item: reader.message(item, has_files=bool(item.attachments)),
        "attachments": lambda item: reader.files_message(
            item.sender, item.timestamp, item.metadata, item.item_key
        ),
        "action": reader.action,
        "button": reader.button,
        "usage": reader.usage,
    }
    read = readers.get(body.type)
    if read is None:
        raise invalid("type", f"Send one of {', '.join(readers)}.")
    return read(body)


async def _read_files(
    body: BatchItem, batch: _Batch, receiving: Receiving, reader: Reader
) -> list[HandedIn]:
    if body.type not in ("message", "attachments"):
        return []
    files = body.attachments or []
    if body.type == "attachments":
        check_count(len(files), reader.settings)
    received: list[HandedIn] = []
    for file in files:
        if file.part is not None and file.upload is None:
            received.append(_take_part(file, batch, reader))
        else:
            received += await receive_files([file], receiving, reader)
    return received


def _take_part(file: FileBody, batch: _Batch, reader: Reader) -> ReceivedFile:
    received = batch.files_by_part.get(file.part or "")
    if received is None:
        raise invalid("attachments", f"There is no part {str(file.part)[:100]!r} in the body.")
    return with_details(received, file, reader)


def _status(stored: StoredItem) -> str:
    if stored.is_erased:
        return "erased"
    return "repeated" if stored.is_repeat else "stored"


async def _shape(request: Request[Any, Any, Any], body: BatchBody, applied: Applied) -> BatchShape:
    parts, access, to = parts_of(request), access_of(request), addresses_of(request)
    rows = await service.read_files(parts, access, applied.items)
    return BatchShape(
        None if applied.is_nowhere else applied.head.pk,
        applied.head.conversation_id,
        None if applied.is_nowhere else applied.head.uid,
        [
            BatchItemShape(
                index,
                scalar_text(item.item_key),
                item.type,
                None if stored.is_erased else stored.message_id,
                _status(stored),
                shape_files(rows.get(stored.message_id, []), access.agent_id, parts.links, to),
            )
            for index, (item, stored) in enumerate(zip(body.items, applied.items, strict=True))
        ],
    )


routes = [apply_batch]
