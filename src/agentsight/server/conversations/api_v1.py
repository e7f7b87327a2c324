"""Our own doors to one conversation, by row id, uid or its caller's id."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.params import FromPath

from agentsight.server.attachments import service as attachments
from agentsight.server.attachments.addresses import addresses_of
from agentsight.server.attachments.shapes import ConversationFilesShape, shape_conversation_files
from agentsight.server.conversations import service
from agentsight.server.conversations.references import paths_of, ref_in
from agentsight.server.request_context import parts_of
from agentsight.server.web.auth import access_of, reads


@get(
    paths_of("attachments/"),
    guards=[reads],
    tags=["attachments"],
    summary="All files of a conversation, by any of its ids",
)
async def list_files(
    request: Request[Any, Any, Any], ref: FromPath[str] = "", conversation_id: FromPath[str] = ""
) -> ConversationFilesShape:
    """Read all files of a conversation, each with a link that works.

    `ref` is its row id or its uid. Grouped by message in `messages`, flat in `attachments`; deleted
    conversations too. An id with a slash in it must be looked up first.
    """
    del ref, conversation_id  # one of the two; `ref_in` says which
    parts, access = parts_of(request), access_of(request)
    head = await service.resolve_ref(parts, access, ref_in(request))
    files = await attachments.conversation_files(parts, access, head.pk)
    return shape_conversation_files(files, access.agent_id, parts.links, addresses_of(request))


routes = [list_files]
