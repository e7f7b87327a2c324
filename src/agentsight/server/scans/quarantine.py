"""What an operator does about bytes of which they know better than any scan.

It concerns the whole instance: the same bytes are blocked for every agent, wherever they are and
whenever they come again. Nothing is removed, so it can be taken back.
"""

from __future__ import annotations

import json
import re

from agentsight.server.access import Access
from agentsight.server.attachments import store_quarantine as store
from agentsight.server.attachments.store_quarantine import Quarantined
from agentsight.server.audits import store as audits
from agentsight.server.db import Database, Tx
from agentsight.server.problems import invalid, not_found, required

_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_REASON_CHARS = 500


async def quarantine(
    db: Database, access: Access, sha256: str, *, reason: str, now_us: int
) -> Quarantined:
    """Block bytes from now on; every process refuses them with its next question.

    Raises:
        Problem: 400 for what is no SHA-256, or without a reason.
    """
    wanted = _checked(sha256)
    text = reason.strip()[:MAX_REASON_CHARS]
    if not text:
        raise required("reason")

    async def unit(tx: Tx) -> Quarantined:
        await store.add_quarantine(tx, wanted, text, now_us=now_us)
        detail = json.dumps({"reason": text})
        await audits.add(tx, access, "quarantine", "content", wanted, detail=detail, now_us=now_us)
        return next(row for row in await store.list_quarantine(tx) if row.sha256 == wanted)

    return await db.write(unit)


async def release(db: Database, access: Access, sha256: str, *, now_us: int) -> None:
    """Let blocked bytes through again.

    Raises:
        Problem: 404 when they are not blocked.
    """
    wanted = _checked(sha256)

    async def unit(tx: Tx) -> None:
        if not await store.remove_quarantine(tx, wanted):
            raise not_found()
        await audits.add(tx, access, "release", "content", wanted, now_us=now_us)

    await db.write(unit)


async def list_quarantined(db: Database) -> list[Quarantined]:
    """Return what is blocked, the oldest first."""
    return await db.read(store.list_quarantine, slow=True)


def _checked(sha256: str) -> str:
    text = sha256.strip().lower()
    if _SHA256.fullmatch(text) is None:
        raise invalid("sha256", "This must be a file's SHA-256, 64 hexadecimal digits.")
    return text
