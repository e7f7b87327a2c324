"""Whose turn it is with an upload: the newest request's.

A client whose connection broke comes again, often before the server has read what the old one had
brought as far as here, and sometimes long before the old one is known to be dead. So a request that
wants to go on waits for the one that still writes, and after a moment asks it, by a mark in the row
that its keeper sees in whatever process it runs, to stop, note how far it came, and let go.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agentsight.server.access import Access
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem
from agentsight.server.uploads import store
from agentsight.server.uploads.model import LEASE_S, Announced, Upload

_LOOK_S: Final = 0.05
"""How often somebody who waits looks whether the upload is free."""
PATIENCE_S: Final = 1.0
"""So long an old request may take to come to its end by itself: what was on its way is kept."""
WAIT_S: Final = 4.0
"""After so long without an end we say that the upload is locked: a store that is slow, bytes that
are being checked, or a process that died."""
_LIVELY_S: Final = 5
"""A writer that lives has renewed its lease since."""


def locked(upload: Upload, now_us: int) -> Problem:
    """Make the answer for an upload that another request writes, or that waits for its client."""
    left_s = -(-max(0, (upload.leased_until or 0) - now_us) // 1_000_000)
    retry_s = left_s if 0 < left_s < LEASE_S - _LIVELY_S else 1
    text = f"Another request is writing upload {upload.uid}; try again."
    return Problem(423, "upload_locked", text, retry_after_s=retry_s)


def taken_over(uid: str) -> Problem:
    """Make the answer for a request that another has taken the place of. Rarely does one hear it:
    it goes to the connection that its client has left."""
    text = f"A newer request goes on with upload {uid}; this one was stopped."
    return Problem(409, "upload_conflict", text)


async def await_turn(parts: Parts, access: Access, upload: Upload) -> Upload:
    """Return an upload as it is once nobody writes it.

    Raises:
        Problem: 423 when whoever writes it does not let go.
    """
    now_s, uid = asyncio.get_running_loop().time, upload.uid
    began_s, is_asked = now_s(), False
    while upload.is_leased_at(parts.clock()):
        waited_s = now_s() - began_s
        if waited_s >= PATIENCE_S and not is_asked:
            is_asked = True
            await parts.db.write(lambda tx: store.want(tx, access, uid, parts.clock()))
        if waited_s >= WAIT_S:
            raise locked(upload, parts.clock())
        await asyncio.sleep(_LOOK_S)
        upload = await parts.db.read(lambda tx: store.find(tx, access, uid)) or upload
    return upload


async def await_twin(parts: Parts, access: Access, announced: Announced) -> None:
    """Wait a moment while the same file is being sent: perhaps by a client that was stopped just
    now and began again, and whose first connection has not been read to its end."""
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    while await parts.db.read(lambda tx: store.is_being_sent(tx, access, announced, parts.clock())):
        if now_s() - began_s >= PATIENCE_S:
            return
        await asyncio.sleep(_LOOK_S)
