"""Questions about bytes that the operator has blocked, wherever they are, of the whole instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentsight.server.db import Tx, sql

_IS_QUARANTINED = sql("SELECT 1 FROM quarantined_hashes WHERE sha256 = $1")
_AMONG = sql("SELECT sha256 FROM quarantined_hashes WHERE sha256 = ANY($1::text[])")
_ADD = sql(
    "INSERT INTO quarantined_hashes (sha256, reason, created_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (sha256) DO UPDATE SET reason = excluded.reason"
)
_REMOVE = sql("DELETE FROM quarantined_hashes WHERE sha256 = $1")
_LIST = sql(
    "SELECT q.sha256, q.reason, q.created_at,"
    " (SELECT count(*) FROM blobs b WHERE b.sha256 = q.sha256 AND b.state = 'stored')"
    " FROM quarantined_hashes q ORDER BY q.created_at, q.sha256"
)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that are blocked, and how many agents have them."""

    sha256: str
    reason: str
    created_at: int
    n_blobs: int


async def is_quarantined(tx: Tx, sha256: str) -> bool:
    """Say whether bytes of this hash (lower-case hex) are blocked."""
    return await tx.value(_IS_QUARANTINED, sha256) is not None


async def quarantined_among(tx: Tx, sha256s: Sequence[str]) -> set[str]:
    """Return those of the hashes that are blocked."""
    return {row[0] for row in await tx.rows(_AMONG, list(sha256s))}


async def add_quarantine(tx: Tx, sha256: str, reason: str, *, now_us: int) -> None:
    """Block a hash; one that is blocked gets the new reason."""
    await tx.execute(_ADD, sha256, reason, now_us)


async def remove_quarantine(tx: Tx, sha256: str) -> bool:
    """Let a hash through again; False when it was not blocked."""
    return await tx.execute(_REMOVE, sha256) == 1


async def list_quarantine(tx: Tx) -> list[Quarantined]:
    """Return all blocked hashes, the oldest first."""
    return [Quarantined(*row) for row in await tx.rows(_LIST)]
