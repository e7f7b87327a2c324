"""Questions about the audit log; triggers refuse whatever is not an addition."""

from __future__ import annotations

from collections.abc import Sequence

from agentsight.server.access import NO_AGENT, Access
from agentsight.server.audits.model import AuditRecord, ReadKey
from agentsight.server.db import Tx, sql

_ADD = sql(
    "INSERT INTO audit_log (organisation_id, agent_id, principal, principal_uid, action,"
    " subject_kind, subject_uid, n, detail, created_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10)"
)
# A link names no organisation, and the one call no uid: what was not worth a question while a
# reader waited is asked here.
_ADD_READS = sql(
    "INSERT INTO audit_log (organisation_id, agent_id, principal, principal_uid, action,"
    " subject_kind, subject_uid, n, created_at, detail)"
    " SELECT"
    " coalesce((SELECT g.organisation_id FROM agents g WHERE g.id = $2::bigint), $1::bigint),"
    " $2::bigint, $3::text, $4::text, $5::text, $6::text, coalesce($7::text,"
    " (SELECT c.uid FROM conversations c WHERE c.agent_id = $2::bigint AND c.id = $8::bigint)),"
    " $9::bigint, $10::bigint, $11::jsonb"
)
# agent 0: all of the organisation's. What names no agent is told to the organisation alone.
_LIST = sql(
    "SELECT l.id, g.slug, l.principal, l.principal_uid, l.action, l.subject_kind, l.subject_uid,"
    " l.n, l.detail, l.created_at FROM audit_log l LEFT JOIN agents g ON g.id = l.agent_id"
    " WHERE l.organisation_id = $1 AND ($2::bigint = 0 OR l.agent_id = $2)"
    " AND ($3::bigint = 0 OR g.client_id = $3)"
    " AND ($4::text = '' OR l.subject_uid = $4) AND ($5::text = '' OR l.action = $5)"
    " AND ($6::text = '' OR g.slug = $6)"
    " AND l.created_at >= $7 AND l.id < $8 ORDER BY l.id DESC LIMIT $9::bigint"
)


async def add(
    tx: Tx,
    access: Access,
    action: str,
    subject_kind: str,
    subject_uid: str | None,
    *,
    n: int = 1,
    detail: str | None = None,
    now_us: int,
) -> None:
    """Write down what somebody did, in the unit that does it: both are kept, or neither.

    Args:
        action: One of `model.ACTIONS`.
        subject_kind: `conversation`, `attachment`, `customer`, `agent` or `content`.
        subject_uid: Its uid; never a name of a person. For content: its SHA-256.
        n: How many things it was.
        detail: JSON text, of counts and our own words only.
    """
    agent_id = None if access.agent_id == NO_AGENT else access.agent_id
    await tx.execute(
        _ADD,
        access.organisation_id,
        agent_id,
        access.principal,
        access.principal_uid,
        action,
        subject_kind,
        subject_uid,
        n,
        detail,
        now_us,
    )


async def add_reads(tx: Tx, counts: Sequence[tuple[ReadKey, int]], *, now_us: int) -> None:
    """Write down reads that were counted, of whomever. No access: each key says whose it was."""
    rows = [
        (
            key.organisation_id,
            None if key.agent_id == NO_AGENT else key.agent_id,
            key.principal,
            key.principal_uid,
            key.action,
            key.subject_kind,
            key.subject if isinstance(key.subject, str) else None,
            key.subject if isinstance(key.subject, int) else None,
            n,
            now_us,
            key.detail,
        )
        for key, n in counts
    ]
    await tx.execute_many(_ADD_READS, rows)


async def list_records(
    tx: Tx,
    access: Access,
    *,
    agent_slug: str = "",
    subject_uid: str = "",
    action: str = "",
    since_us: int = 0,
    before_id: int,
    limit: int,
) -> list[AuditRecord]:
    """Return records the caller may see, the latest first, narrowed where something is given."""
    rows = await tx.rows(
        _LIST,
        access.organisation_id,
        access.agent_id,
        access.client_id or 0,
        subject_uid,
        action,
        agent_slug,
        since_us,
        before_id,
        limit,
    )
    return [AuditRecord(*row) for row in rows]
