"""The keys that sign file links: from the setting, or made once and kept in the database."""

from __future__ import annotations

import hashlib
import secrets

from agentsight.server.db import Database, Tx
from agentsight.server.instance import store


def keys_of_setting(texts: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Derive signing keys from `AGENTSIGHT_SECRET_KEY`, the first of which signs.

    The id is made of the secret, so that a link still finds its key after a rotation.
    """
    return [
        (
            "s" + hashlib.sha256(b"agentsight link key id\0" + text.encode()).hexdigest()[:8],
            hashlib.sha256(b"agentsight link key\0" + text.encode()).digest(),
        )
        for text in texts
    ]


async def signing_keys(
    db: Database, setting: tuple[str, ...], *, now_us: int
) -> list[tuple[str, bytes]]:
    """Return the keys that are valid, the one that signs first.

    Keys in the database stay valid beside the setting's: links made before it was set still work.
    """
    kept = await _kept(db)
    if not kept and not setting:
        await _make(db, now_us)
        kept = await _kept(db)
    return [*keys_of_setting(setting), *kept]


async def _kept(db: Database) -> list[tuple[str, bytes]]:
    rows = await db.read(store.read_signing_keys)
    return [(key_id, bytes.fromhex(secret)) for key_id, secret in rows]


async def _make(db: Database, now_us: int) -> None:
    secret = secrets.token_hex(32)

    async def unit(tx: Tx) -> None:
        await store.claim_signing_key(tx, secret, now_us)

    await db.write(unit)
