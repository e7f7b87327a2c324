"""Receipts, by which an erasure is carried on after a crash, and the ledger of what was erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentsight.server.access import NO_AGENT, Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, OrganisationId
from agentsight.server.removals.model import (
    LedgerEntry,
    LedgerKind,
    Receipt,
    Stage,
    decode_receipt,
    encode_receipt,
)

_INSERT = sql(
    "INSERT INTO receipts (uid, organisation_id, agent_id, kind, receipt, stage, subject,"
    " created_at, updated_at) VALUES ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $8)"
)
_LOCK = sql(
    "SELECT uid, organisation_id, agent_id, stage, subject, receipt FROM receipts"
    " WHERE uid = $1 FOR UPDATE"
)
_PUT = sql(
    "UPDATE receipts SET receipt = $2::jsonb, stage = $3, subject = $4, updated_at = $5"
    " WHERE uid = $1"
)
_READ = sql(
    "SELECT uid, organisation_id, agent_id, stage, subject, receipt FROM receipts WHERE uid = $1"
)
# An agent's key sees what was erased in its agent; the operator, all of the organisation.
_READ_OWN = sql(
    "SELECT uid, organisation_id, agent_id, stage, subject, receipt FROM receipts"
    " WHERE uid = $1 AND organisation_id = $2 AND ($3::bigint = 0 OR agent_id = $3)"
)
_LATEST = sql(
    "SELECT uid, organisation_id, agent_id, stage, subject, receipt FROM receipts"
    " WHERE organisation_id = $1 AND ($2::bigint = 0 OR agent_id = $2)"
    " ORDER BY id DESC LIMIT $3::bigint"
)
_UNFINISHED = sql(
    "SELECT uid FROM receipts WHERE stage <> 'complete' AND updated_at <= $1"
    " ORDER BY id LIMIT $2::bigint"
)
_IN_STAGE = sql("SELECT uid FROM receipts WHERE stage = $1 ORDER BY id LIMIT 500")
_ADD_ENTRY = sql(
    "INSERT INTO erasures (uid, organisation_id, agent_id, kind, subject_hash, erased_at,"
    " receipt_uid) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (uid) DO NOTHING"
)
_ENTRIES = sql(
    "SELECT e.uid, e.organisation_id, e.agent_id, g.uid, e.kind, e.subject_hash, e.erased_at"
    " FROM erasures e LEFT JOIN agents g ON g.id = e.agent_id"
    " WHERE e.receipt_uid = $1 ORDER BY e.id"
)
_ORGANISATION_UID = sql("SELECT uid FROM organisations WHERE id = $1")
_LEDGERED = sql("SELECT DISTINCT receipt_uid FROM erasures ORDER BY receipt_uid")
_ORGANISATION_OF = sql("SELECT organisation_id FROM erasures WHERE receipt_uid = $1 LIMIT 1")
_FIND_ENTRIES = sql(
    "SELECT subject_hash, erased_at, receipt_uid FROM erasures"
    " WHERE subject_hash = ANY($1::text[]) ORDER BY id"
)


@dataclass(slots=True)
class Work:
    """An erasure under way: its receipt, how far it has come, whom it still looks for."""

    uid: str
    organisation_id: OrganisationId
    agent_id: AgentId | None
    stage: Stage
    subject: str | None
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """A hash that the ledger knows."""

    hash: str
    erased_at: int
    receipt_uid: str


def _work(row: tuple[str, int, int | None, Stage, str | None, str] | None) -> Work | None:
    if row is None:
        return None
    uid, organisation_id, agent_id, stage, subject, text = row
    agent = None if agent_id is None else AgentId(agent_id)
    return Work(uid, OrganisationId(organisation_id), agent, stage, subject, decode_receipt(text))


async def insert(
    tx: Tx,
    access: Access,
    uid: str,
    receipt: Receipt,
    stage: Stage,
    *,
    subject: str | None = None,
    now_us: int,
) -> Work:
    """Begin an erasure."""
    agent_id = None if access.agent_id == NO_AGENT else access.agent_id
    await tx.execute(
        _INSERT,
        uid,
        access.organisation_id,
        agent_id,
        receipt.kind,
        encode_receipt(receipt),
        stage,
        subject,
        now_us,
    )
    return Work(uid, access.organisation_id, agent_id, stage, subject, receipt)


async def lock(tx: Tx, uid: str) -> Work | None:
    """Read an erasure, and let nobody else carry it on until the unit ends.

    No access: whoever carries on what was begun does it for all.
    """
    return _work(await tx.row(_LOCK, uid))  # pyright: ignore[reportArgumentType] # a row of these


async def hold(tx: Tx, uid: str, stage: Stage) -> Work | None:
    """Lock an erasure that still stands at a stage. No access: as `lock`."""
    held = await lock(tx, uid)
    return held if held is not None and held.stage == stage else None


async def put(tx: Tx, work: Work, *, now_us: int) -> None:
    """Write down how far an erasure has come. No access: it was locked by its uid."""
    await tx.execute(_PUT, work.uid, encode_receipt(work.receipt), work.stage, work.subject, now_us)


async def read_any(tx: Tx, uid: str) -> Work | None:
    """Read an erasure by its uid. No access: for who has just begun it, or carries it on."""
    return _work(await tx.row(_READ, uid))  # pyright: ignore[reportArgumentType] # a row of these


async def read(tx: Tx, access: Access, uid: str) -> Work | None:
    """Read an erasure that the caller may see."""
    row = await tx.row(_READ_OWN, uid, access.organisation_id, access.agent_id)
    return _work(row)  # pyright: ignore[reportArgumentType] # a row of these


async def latest(tx: Tx, access: Access, limit: int) -> list[Work]:
    """Read the latest erasures that the caller may see, the last one first."""
    rows = await tx.rows(_LATEST, access.organisation_id, access.agent_id, limit)
    return [work for row in rows if (work := _work(row)) is not None]  # pyright: ignore[reportArgumentType] # rows of these


async def unfinished(tx: Tx, idle_since_us: int, limit: int) -> list[str]:
    """Return erasures that nobody has carried on since then, oldest first.

    No access: of all organisations.
    """
    return [row[0] for row in await tx.rows(_UNFINISHED, idle_since_us, limit)]


async def in_stage(tx: Tx, stage: Stage) -> list[str]:
    """Return erasures that stand at a stage. No access: the index and the log are everybody's."""
    return [row[0] for row in await tx.rows(_IN_STAGE, stage)]


# --- The ledger -----------------------------------------------------------------------------------


async def add_entry(
    tx: Tx,
    access: Access,
    *,
    uid: str,
    agent_id: AgentId | None,
    kind: LedgerKind,
    subject_hash: str,
    erased_at: int,
    receipt_uid: str,
) -> bool:
    """Remember that something was erased; False when this entry is there already."""
    organisation_id = access.organisation_id
    done = await tx.execute(
        _ADD_ENTRY, uid, organisation_id, agent_id, kind, subject_hash, erased_at, receipt_uid
    )
    return done == 1


async def entries(tx: Tx, receipt_uid: str) -> list[LedgerEntry]:
    """Read what one erasure remembers. No access: for whoever carries it on."""
    rows = await tx.rows(_ENTRIES, receipt_uid)
    return [
        LedgerEntry(
            uid=uid,
            organisation_id=organisation_id,
            agent_id=agent_id,
            agent_uid=agent_uid,
            kind=kind,
            subject_hash=subject_hash,
            erased_at=erased_at,
        )
        for uid, organisation_id, agent_id, agent_uid, kind, subject_hash, erased_at in rows
    ]


async def organisation_uid(tx: Tx, access: Access) -> str | None:
    """Return the uid of the caller's organisation."""
    return await tx.value(_ORGANISATION_UID, access.organisation_id)


async def ledgered(tx: Tx) -> set[str]:
    """Return the receipts that the ledger knows. No access: a restore asks for all."""
    return {row[0] for row in await tx.rows(_LEDGERED)}


async def organisation_of(tx: Tx, receipt_uid: str) -> OrganisationId | None:
    """Return whose erasure it was. No access: for whoever copies the ledger."""
    return await tx.value(_ORGANISATION_OF, receipt_uid)


async def find_entries(tx: Tx, access: Access, hashes: Sequence[str]) -> list[FoundEntry]:
    """Find what was erased under these hashes, which carry the caller's scope."""
    del access
    return [FoundEntry(*row) for row in await tx.rows(_FIND_ENTRIES, list(hashes))]
