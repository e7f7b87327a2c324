"""Doors to all of an agent's files: the list with its filters, and one row."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from litestar import Request, get
from litestar.params import FromPath
from litestar.response import Response

from agentsight import _contract as contract
from agentsight.server.attachments import service_lists
from agentsight.server.attachments.addresses import Addresses, addresses_of
from agentsight.server.attachments.filters import DESCRIPTIONS, FILTER_NAMES, parse_filters
from agentsight.server.attachments.links import Links
from agentsight.server.attachments.shapes import AttachmentShape, shape_file
from agentsight.server.attachments.store_lists import ListedRow
from agentsight.server.request_context import bases_of, parts_of
from agentsight.server.text import mend_text
from agentsight.server.times import to_datetime
from agentsight.server.web.auth import access_of, reads
from agentsight.server.web.openapi import with_query
from agentsight.server.web.paging import (
    OpenEnvelope,
    ignored_header,
    make_open_envelope,
    parse_page,
)
from agentsight.server.web.shapes import raw_json

AnyRequest = Request[Any, Any, Any]
_TAGS = ["attachments"]


class ListedAttachmentShape(AttachmentShape, kw_only=True):
    """One file of a list, with the message and the conversation that brought it."""

    conversation: int
    conversation_id: str
    sender: str
    timestamp: datetime
    metadata: msgspec.Raw
    is_deleted: bool


class AttachmentPage(OpenEnvelope, kw_only=True):
    """A page of files. `truncated`: not all files' texts were looked at."""

    results: list[ListedAttachmentShape]


def _shape(row: ListedRow, agent_id: int, links: Links, to: Addresses) -> ListedAttachmentShape:
    file = shape_file(row.file, agent_id, links, to)
    values = {name: getattr(file, name) for name in AttachmentShape.__struct_fields__}
    return ListedAttachmentShape(
        **values,
        conversation=row.conversation_pk,
        conversation_id=row.conversation_id,
        sender=row.sender,
        timestamp=to_datetime(row.sent_at),
        metadata=raw_json(row.metadata),
        is_deleted=row.is_deleted,
    )


@get(
    contract.FILES_PATH,
    guards=[reads],
    tags=_TAGS,
    summary="List files of all conversations",
    operation_class=with_query(DESCRIPTIONS),
)
async def list_files(request: AnyRequest) -> Response[AttachmentPage]:
    """List the agent's files across its conversations, newest first, narrowed by filters.

    `text_contains` and `contains` look inside documents, whose text is extracted in the background:
    a new file is found some seconds after it came. Where a text stands in more than five hundred
    files, or has fewer than three characters, they are not counted: `count` is then the least there
    are, `count_is_exact` false and `total_pages` null. Unknown parameters are ignored and named in
    the header `X-AgentSight-Ignored-Parameters`.
    """
    query = {name: str(value) for name, value in request.query_params.items()}
    asked, filters = parse_page(query.get("page"), query.get("page_size")), parse_filters(query)
    parts, access, to = parts_of(request), access_of(request), addresses_of(request)
    parts.audit.read(access, "list", "agent", access.agent_uid)
    found = await service_lists.list_files(
        parts, access, filters, limit=asked.size, offset=asked.offset
    )
    envelope = make_open_envelope(
        page=asked,
        n_rows=len(found.rows),
        has_more=found.has_more,
        count=found.count,
        url=bases_of(request).public_base(request.scope) + contract.FILES_PATH,
        query=request.scope["query_string"].decode("latin-1"),
        truncated=found.is_cut,
    )
    rows = [_shape(row, access.agent_id, parts.links, to) for row in found.rows]
    page = AttachmentPage(**msgspec.structs.asdict(envelope), results=rows)
    return Response(page, headers=ignored_header(query, FILTER_NAMES))


@get(
    contract.FILES_PATH + "{uid:str}/",
    guards=[reads],
    tags=_TAGS,
    summary="Read one file's row",
)
async def read_file(request: AnyRequest, uid: FromPath[str]) -> ListedAttachmentShape:
    """Read what is known of one file, with a link that works; deleted conversations' files too."""
    parts, access = parts_of(request), access_of(request)
    row = await service_lists.read_file(parts, access, mend_text(uid))
    parts.audit.read(access, "read", "attachment", row.file.uid)
    return _shape(row, access.agent_id, parts.links, addresses_of(request))


routes = [list_files, read_file]
