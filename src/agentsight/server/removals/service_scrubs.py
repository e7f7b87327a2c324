"""Overwrite what the collector has removed: a content that an erasure had to keep goes later.

Erasures scrub for themselves before their receipts are complete. Here all that went within some
minutes is scrubbed at once: rewriting the search index costs as much for one text as for many.
"""

from __future__ import annotations

from typing import Final

from agentsight.server.db import Tx
from agentsight.server.parts import Parts
from agentsight.server.removals import store_scrubs, store_search
from agentsight.server.removals.store_scrubs import ScrubNote

SCRUB_AFTER_US: Final = 5 * 60 * 1_000_000
PAUSE_S: Final = 10.0


async def scrub_step(parts: Parts) -> int:
    """Take one step of a scrub whose time has come; 0 when there is none, or it cannot go on now.

    Safe in any number of processes, and after a crash: the note says what is left.
    """
    note = await parts.db.read(store_scrubs.read_note)
    now = parts.clock()
    if note is None or now < note.since + SCRUB_AFTER_US:
        return 0
    if note.stage == "scrub":
        return await _scrub(parts, note)
    await parts.db.write(lambda tx: _merge(tx, note, now))
    return 1


async def _merge(tx: Tx, note: ScrubNote, now_us: int) -> None:
    if note.stage == "index":
        await store_search.begin_merging(tx, [store_search.TEXTS])
        await store_scrubs.set_stage(tx, note, "merging", now_us=now_us)
    elif not await store_search.go_on_merging(tx, [store_search.TEXTS]):
        await store_scrubs.set_stage(tx, note, "scrub", now_us=now_us)


async def _scrub(parts: Parts, note: ScrubNote) -> int:
    if not await parts.db.scrub():
        return 0  # somebody reads an older state
    await parts.db.write(lambda tx: store_scrubs.forget_note(tx, note))
    return 1
