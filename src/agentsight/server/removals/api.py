"""Doors to removal: hide, bring back, erase, and read what an erasure did."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath

from agentsight import _contract as contract
from agentsight.server.conversations.model import Head
from agentsight.server.conversations.references import paths_of, ref_in
from agentsight.server.conversations.service import resolve_ref
from agentsight.server.parts import Parts
from agentsight.server.queries import read_flag
from agentsight.server.removals import service
from agentsight.server.removals.shapes import (
    HiddenAttachmentShape,
    HiddenConversationShape,
    ReceiptShape,
    shape_receipt,
)
from agentsight.server.removals.store_receipts import Work
from agentsight.server.request_context import parts_of
from agentsight.server.text import mend_text
from agentsight.server.times import to_datetime
from agentsight.server.web.auth import access_of, reads, writes
from agentsight.server.web.openapi import with_query

AnyRequest = Request[Any, Any, Any]
_DAY_US = 24 * 3600 * 1_000_000
_TAGS = ["removal"]
_FILE_PATH = contract.FILES_PATH + "{uid:str}/"
_ERASE = {
    "erase": "`true` erases at once and for good, and answers with a receipt; without it, what is"
    " deleted is hidden and can be brought back for `deletion_grace_days`."
}


def _wants_erasure(request: AnyRequest) -> bool:
    return read_flag(request.query_params, "erase")


def _receipt(parts: Parts, work: Work) -> Response[ReceiptShape]:
    """Answer with a receipt: 200 for one that is complete, 202 for one that goes on."""
    shape = shape_receipt(work, parts.db.dialect)
    return Response(shape, status_code=200 if shape.state == "complete" else 202)


@delete(
    _FILE_PATH,
    guards=[writes],
    tags=_TAGS,
    status_code=200,
    summary="Delete a file",
    operation_class=with_query(_ERASE),
)
async def delete_attachment(
    request: AnyRequest, uid: FromPath[str]
) -> Response[HiddenAttachmentShape] | Response[ReceiptShape]:
    """Hide a file: its links are dead at once, and it can be restored for the grace period.

    With `?erase=true` it is erased at once, also from the grace period, with its bytes where no
    other file has the same: 200 with the receipt, or 202 while the erasure goes on.
    """
    parts, access, uid = parts_of(request), access_of(request), mend_text(uid)
    if _wants_erasure(request):
        return _receipt(parts, await service.erase_attachment(parts, access, uid))
    deleted_at = await service.hide_attachment(parts, access, uid)
    shape = HiddenAttachmentShape(
        uid, True, to_datetime(deleted_at), to_datetime(deleted_at + _grace_us(parts))
    )
    return Response(shape, status_code=200)


def _grace_us(parts: Parts) -> int:
    return parts.settings.deletion_grace_days * _DAY_US


@post(
    _FILE_PATH + "restore/",
    guards=[writes],
    tags=_TAGS,
    status_code=200,
    summary="Bring a deleted file back",
)
async def restore_attachment(request: AnyRequest, uid: FromPath[str]) -> HiddenAttachmentShape:
    """Show a file again that was deleted and not yet erased; its links work again."""
    uid = mend_text(uid)
    await service.restore_attachment(parts_of(request), access_of(request), uid)
    return HiddenAttachmentShape(uid, False, None, None)


async def _head(request: AnyRequest) -> Head:
    return await resolve_ref(parts_of(request), access_of(request), ref_in(request))


@delete(
    paths_of(),
    guards=[writes],
    tags=_TAGS,
    status_code=200,
    summary="Delete a conversation",
    operation_class=with_query(_ERASE),
)
async def delete_conversation(
    request: AnyRequest, ref: FromPath[str] = "", conversation_id: FromPath[str] = ""
) -> Response[HiddenConversationShape] | Response[ReceiptShape]:
    """Hide a conversation from lists; it can be restored for the grace period.

    With `?erase=true` it is erased at once with everything in it, and with the bytes of its files
    where no other file has the same: 200 with the receipt, or 202 while the erasure goes on. What
    is sent again later of what was erased is dropped.
    """
    del ref, conversation_id  # one of the two; `ref_in` says which
    parts, access = parts_of(request), access_of(request)
    head = await _head(request)
    if _wants_erasure(request):
        return _receipt(parts, await service.erase_conversation(parts, access, head))
    deleted_at = await service.hide_conversation(parts, access, head)
    shape = HiddenConversationShape(
        head.pk,
        head.conversation_id,
        head.uid,
        True,
        to_datetime(deleted_at),
        to_datetime(deleted_at + _grace_us(parts)),
    )
    return Response(shape, status_code=200)


@post(
    paths_of("restore/"),
    guards=[writes],
    tags=_TAGS,
    status_code=200,
    summary="Bring a deleted conversation back",
)
async def restore_conversation(
    request: AnyRequest, ref: FromPath[str] = "", conversation_id: FromPath[str] = ""
) -> HiddenConversationShape:
    """Show a conversation in lists again that was deleted and not yet erased."""
    del ref, conversation_id  # one of the two; `ref_in` says which
    head = await _head(request)
    await service.restore_conversation(parts_of(request), access_of(request), head)
    return HiddenConversationShape(head.pk, head.conversation_id, head.uid, False, None, None)


@get(
    "/api/v1/receipts/{uid:str}/",
    guards=[reads],
    tags=_TAGS,
    summary="What an erasure did",
)
async def read_receipt(request: AnyRequest, uid: FromPath[str]) -> ReceiptShape:
    """Read the receipt of an erasure of this agent's: what was removed, what was kept, and why."""
    parts = parts_of(request)
    work = await service.read_receipt(parts, access_of(request), mend_text(uid))
    return shape_receipt(work, parts.db.dialect)


routes = [
    delete_attachment,
    restore_attachment,
    delete_conversation,
    restore_conversation,
    read_receipt,
]
