"""How /api/v1 names a conversation in a path: `{ref}`, or `by-id/{conversation_id}`.

For the doors of every room that has something to say of one conversation.
"""

from __future__ import annotations

from typing import Any

from litestar import Request

from agentsight import _contract as contract
from agentsight.server.conversations.service import BY_ID
from agentsight.server.text import mend_text


def paths_of(tail: str = "") -> list[str]:
    """Return the two paths of a route on one conversation; `tail` ends with a slash."""
    return [
        f"{contract.V1_CONVERSATIONS_PATH}{{ref:str}}/{tail}",
        f"{contract.V1_CONVERSATIONS_PATH}{BY_ID}{{conversation_id:str}}/{tail}",
    ]


def ref_in(request: Request[Any, Any, Any]) -> str:
    """Return what a request's path names, for `service.resolve_ref`."""
    named = request.path_params
    if "ref" in named:
        return mend_text(str(named["ref"]))
    return BY_ID + mend_text(str(named["conversation_id"]))
