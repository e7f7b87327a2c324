"""Questions about malware scans: what waits, what was found."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from agentsight.server.access import Access
from agentsight.server.attachments.store_facts import put_facts, read_facts
from agentsight.server.attachments.store_jobs import finish_job
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, BlobId
from agentsight.server.scans.model import Verdict

_READ = sql(
    "SELECT uid, object_key, size_bytes FROM blobs"
    " WHERE agent_id = $1 AND id = $2 AND state = 'stored'"
)
_PUT_DETAIL = sql("UPDATE blobs SET scan_detail = $3 WHERE agent_id = $1 AND id = $2")
# What the operator sees: agents of the organisation, or of what the access is narrowed to.
_VISIBLE = (
    "g.organisation_id = $1 AND ($2::bigint = 0 OR g.client_id = $2)"
    " AND ($3::bigint = 0 OR g.id = $3)"
)
_LIST = sql(
    "SELECT g.slug, b.uid, b.sha256, b.size_bytes, b.scan, b.scan_detail, b.updated_at,"
    " (SELECT count(*) FROM attachments a WHERE a.agent_id = b.agent_id AND a.blob_id = b.id"
    " AND a.deleted_at IS NULL)"
    " FROM blobs b JOIN agents g ON g.id = b.agent_id"
    f" WHERE {_VISIBLE} AND b.state = 'stored' AND b.scan IN ('infected', 'failed')"
    " ORDER BY b.updated_at DESC, b.agent_id, b.id DESC LIMIT $4::bigint"
)
_QUEUE = sql(
    "INSERT INTO blob_jobs (agent_id, blob_id, kind, attempts, not_before, created_at)"
    " SELECT b.agent_id, b.id, 'scan', 0, $4::bigint, $4::bigint"
    " FROM blobs b JOIN agents g ON g.id = b.agent_id"
    f" WHERE {_VISIBLE} AND b.state = 'stored' AND ($5::bigint = 1 OR b.scan <> 'clean')"
    " ON CONFLICT (agent_id, blob_id, kind) DO NOTHING"
)
_WAITING = sql("SELECT count(*), min(created_at) FROM blob_jobs WHERE kind = 'scan'")


@dataclass(frozen=True, slots=True)
class Scannable:
    """A blob's bytes."""

    uid: str
    object_key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A blob that is infected, or could not be scanned; `n_attachments` rows show it."""

    agent_slug: str
    blob_uid: str
    sha256: str
    size_bytes: int
    scan: str
    scan_detail: str | None
    scanned_at: int
    n_attachments: int


async def read_scannable(tx: Tx, agent_id: AgentId, blob_id: BlobId) -> Scannable | None:
    """Read where a blob's bytes are; None when it is on its way out."""
    row = await tx.row(_READ, agent_id, blob_id)
    return None if row is None else Scannable(*row)


async def put_verdict(
    tx: Tx, agent_id: AgentId, blob_id: BlobId, verdict: Verdict, *, now_us: int
) -> None:
    """Keep what a scan said, in the blob and in every row that shows it, and end its job."""
    facts = await read_facts(tx, agent_id, blob_id)
    if facts is not None:
        facts = replace(facts, scan=verdict.result)
        await put_facts(tx, agent_id, blob_id, facts, now_us=now_us)
        await tx.execute(_PUT_DETAIL, agent_id, blob_id, verdict.detail)
    await finish_job(tx, agent_id, blob_id, "scan")


async def list_found(tx: Tx, access: Access, limit: int) -> list[Found]:
    """Return what is infected or failed of what the caller may see, the latest first."""
    rows = await tx.rows(
        _LIST, access.organisation_id, access.client_id or 0, access.agent_id, limit
    )
    return [Found(*row) for row in rows]


async def queue_scans(tx: Tx, access: Access, *, also_clean: bool, now_us: int) -> int:
    """Let the stored blobs that the caller may see wait for a scan; return how many now do."""
    return await tx.execute(
        _QUEUE,
        access.organisation_id,
        access.client_id or 0,
        access.agent_id,
        now_us,
        int(also_clean),
    )


async def waiting_scans(tx: Tx) -> tuple[int, int | None]:
    """Count the scans that wait, of the whole instance, and say since when the oldest does."""
    row = await tx.row(_WAITING)
    return (0, None) if row is None else (row[0], row[1])
