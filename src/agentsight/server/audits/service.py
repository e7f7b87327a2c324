"""What an operator asks the audit log."""

from __future__ import annotations

from agentsight._contract import MAX_ROW_ID
from agentsight.server.access import Access
from agentsight.server.audits import store
from agentsight.server.audits.model import AuditRecord
from agentsight.server.db import Database


async def list_records(
    db: Database,
    access: Access,
    *,
    agent_slug: str = "",
    subject_uid: str = "",
    action: str = "",
    since_us: int = 0,
    limit: int,
) -> list[AuditRecord]:
    """Return what the log says to the caller, the latest first.

    Args:
        agent_slug: Of this agent only.
        subject_uid: Of this thing only; a file's content by its SHA-256.
        action: Of this kind only, one of `model.ACTIONS`.
        since_us: From this time on, µs since 1970 UTC.
        limit: How many at most.
    """
    return await db.read(
        lambda tx: store.list_records(
            tx,
            access,
            agent_slug=agent_slug,
            subject_uid=subject_uid,
            action=action,
            since_us=since_us,
            before_id=MAX_ROW_ID,
            limit=limit,
        ),
        slow=True,
    )
