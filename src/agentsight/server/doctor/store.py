"""What the doctor asks a database about itself. It reads for the operator, on no one's behalf."""

from __future__ import annotations

from agentsight.server.db import Tx, sql

# Each question has one database to be asked of; on the other its text says nothing.
_JOURNAL_MODE = sql("SELECT 'wal'", sqlite="PRAGMA journal_mode")
_QUICK_CHECK = sql("SELECT 'ok'", sqlite="PRAGMA quick_check(1)")
_NOW_US = sql(
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    sqlite="SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
)
_SETTING = sql("SELECT current_setting($1::text)", sqlite="SELECT ?1")
_IS_REPLICA = sql("SELECT pg_is_in_recovery()::int", sqlite="SELECT 0")
_ANY_FILE = sql(
    "SELECT a.uid FROM attachments a JOIN blobs b ON b.agent_id = a.agent_id AND b.id = a.blob_id"
    " WHERE a.deleted_at IS NULL AND a.size_bytes > 0 AND b.state = 'stored' LIMIT 1"
)
_STUCK_ERASURES = sql(
    "SELECT count(*), coalesce(min(created_at), 0) FROM receipts"
    " WHERE stage <> 'complete' AND updated_at <= $1"
)
_WAITING_EXAMINATIONS = sql(
    "SELECT count(*), coalesce(min(created_at), 0) FROM blob_jobs"
    " WHERE kind = 'examine' AND created_at <= $1"
)


async def journal_mode(tx: Tx) -> str:
    """Return SQLite's journal mode."""
    return str(await tx.value(_JOURNAL_MODE))


async def quick_check(tx: Tx) -> str:
    """Return `ok`, or the first fault that SQLite finds in its file."""
    return str(await tx.value(_QUICK_CHECK))


async def database_now_us(tx: Tx) -> int:
    """Return the database's own time in µs since 1970 UTC."""
    return int(await tx.value(_NOW_US))


async def server_setting(tx: Tx, name: str) -> str:
    """Return one of PostgreSQL's settings."""
    return str(await tx.value(_SETTING, name))


async def is_replica(tx: Tx) -> bool:
    """Say whether this PostgreSQL only follows another one."""
    return bool(await tx.value(_IS_REPLICA))


async def any_file_uid(tx: Tx) -> str | None:
    """Return the uid of some attachment whose bytes are stored."""
    return await tx.value(_ANY_FILE)


async def stuck_erasures(tx: Tx, before_us: int) -> tuple[int, int]:
    """Count the erasures that nobody was at since then, and say when the first was begun."""
    return _pair(await tx.row(_STUCK_ERASURES, before_us))


async def waiting_examinations(tx: Tx, before_us: int) -> tuple[int, int]:
    """Count the files that wait to be examined since before then, and say since when the first."""
    return _pair(await tx.row(_WAITING_EXAMINATIONS, before_us))


def _pair(row: tuple[int, ...] | None) -> tuple[int, int]:
    return (0, 0) if row is None else (row[0], row[1])
