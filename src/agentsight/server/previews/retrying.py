"""Looking at old files again: after a media library was installed, or a newer version knows more.

That nothing could be made of a file is remembered, so that nobody tries for each who asks; only the
operator has it forgotten.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from agentsight.server.access import Access
from agentsight.server.attachments.store_facts import put_facts, read_facts
from agentsight.server.attachments.store_jobs import add_job
from agentsight.server.db import Database, Tx
from agentsight.server.media.kinds import can_examine, can_play, can_preview
from agentsight.server.previews import store
from agentsight.server.previews.model import ExaminedRow

_STRIDE: Final = 100


async def retry_previews(
    db: Database,
    access: Access,
    *,
    max_examined_bytes: int,
    also_complete: bool = False,
    now_us: int,
) -> int:
    """Let files be examined again whose type can have more than was found; returns how many.

    A running server does it in the background. Until then their rows offer what their type
    promises, as those of new files do; what was made and found of them before stays.

    Args:
        access: Files of which agents: the operator sees all.
        max_examined_bytes: Larger files are never examined.
        also_complete: Files that lack nothing, too: a newer library may find more text.
    """
    after, n_queued = (0, 0), 0
    while True:
        place = after
        rows = await db.read(
            lambda tx, place=place: store.examined_after(tx, access, place, _STRIDE), slow=True
        )
        chosen = [
            row
            for row in rows
            if can_examine(row.detected_mime_type)
            and row.size_bytes <= max_examined_bytes
            and (also_complete or row.is_lacking)
        ]

        async def unit(tx: Tx, chosen: list[ExaminedRow] = chosen) -> None:
            for row in chosen:
                await _forget(tx, row, now_us)

        if chosen:
            await db.write(unit)
            n_queued += len(chosen)
        if len(rows) < _STRIDE:
            return n_queued
        after = (rows[-1].agent_id, rows[-1].blob_id)


async def _forget(tx: Tx, row: ExaminedRow, now_us: int) -> None:
    agent_id, blob_id, mime_type = row.agent_id, row.blob_id, row.detected_mime_type
    # The blob's row first, as everywhere: two units that lock in two orders wait for ever.
    known = await read_facts(tx, agent_id, blob_id)
    if known is None:
        return
    await store.forget_none(tx, agent_id, blob_id)
    promised = replace(known, preview=can_preview(mime_type), playback=can_play(mime_type))
    if promised != known:
        await put_facts(tx, agent_id, blob_id, promised, now_us=now_us)
    if row.text_state != "stored":
        await store.put_text_state(tx, agent_id, blob_id, "waiting")
    await add_job(tx, agent_id, blob_id, "examine", now_us=now_us)
