"""SQL of the facts about the instance. They belong to nobody, so no `Access` comes first."""

from __future__ import annotations

from agentsight.server.db import Tx, sql

INSTANCE_UID = "instance_uid"
STORE_UID = "store_uid"
FIRST_START = "first_start_at"
LEDGER_KEY = "ledger_key"

_READ = sql("SELECT value FROM instance_values WHERE name = $1")
_CLAIM = sql(
    "INSERT INTO instance_values (name, value, created_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (name) DO NOTHING"
)


async def read_value(tx: Tx, name: str) -> str | None:
    """Return a fact, or None while nobody has stated it."""
    return await tx.value(_READ, name)


async def claim_value(tx: Tx, name: str, value: str, now_us: int) -> bool:
    """State a fact for good; False when somebody else was first.

    On PostgreSQL a second claim waits until the first one's transaction has ended.
    """
    return await tx.execute(_CLAIM, name, value, now_us) == 1


_READ_KEYS = sql("SELECT key_id, secret FROM signing_keys WHERE retired_at IS NULL ORDER BY id")
# The name is fixed, so that of many first starts one makes the key.
_CLAIM_KEY = sql(
    "INSERT INTO signing_keys (key_id, secret, created_at) VALUES ('k1', $1, $2)"
    " ON CONFLICT (key_id) DO NOTHING"
)


async def read_signing_keys(tx: Tx) -> list[tuple[str, str]]:
    """Return the signing keys that are valid, oldest first: key id and secret in hex."""
    return [(key_id, secret) for key_id, secret in await tx.rows(_READ_KEYS)]


async def claim_signing_key(tx: Tx, secret: str, now_us: int) -> bool:
    """Keep the first signing key; False when somebody else was first."""
    return await tx.execute(_CLAIM_KEY, secret, now_us) == 1
