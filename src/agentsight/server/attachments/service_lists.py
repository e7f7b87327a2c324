"""What a person can do with all of an agent's files: list them, and look at one."""

from __future__ import annotations

from agentsight.server.access import Access
from agentsight.server.attachments import store_lists
from agentsight.server.attachments.filters import Filters
from agentsight.server.attachments.store_lists import ListedRow, Page
from agentsight.server.parts import Parts
from agentsight.server.problems import not_found


async def list_files(
    parts: Parts, access: Access, filters: Filters, *, limit: int, offset: int
) -> Page:
    """List an agent's files across its conversations, narrowed by filters."""
    # Counting and texts take more than a millisecond: not on the event loop.
    return await parts.db.read(
        lambda tx: store_lists.page(tx, access, filters, limit=limit, offset=offset),
        slow=True,
        snapshot=True,
    )


async def read_file(parts: Parts, access: Access, uid: str) -> ListedRow:
    """Read one file by its uid, also one of a deleted conversation.

    Raises:
        Problem: 404 when there is none for this caller, or it is deleted.
    """
    row = await parts.db.read(lambda tx: store_lists.read_one(tx, access, uid))
    if row is None:
        raise not_found()
    return row
