"""What the collector has removed, and what is still to be overwritten of it (SQLite).

One note in `instance_values`, written in the units that remove: how far its scrub has come, since
when it waits, and when it was last asked for. All that is removed meanwhile is scrubbed together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from agentsight.server.db import Tx, sql

ScrubStage = Literal["index", "merging", "scrub"]
_NAME: Final = "scrub_due"

_READ = sql("SELECT value FROM instance_values WHERE name = $1")
_PUT = sql(
    "INSERT INTO instance_values (name, value, created_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_FORGET = sql("DELETE FROM instance_values WHERE name = $1 AND value = $2")


@dataclass(frozen=True, slots=True)
class ScrubNote:
    """A scrub that is asked for; times are µs since 1970 UTC."""

    stage: ScrubStage
    since: int
    asked_at: int

    @property
    def text(self) -> str:
        """What is kept of it."""
        return f"{self.stage}:{self.since}:{self.asked_at}"


async def read_note(tx: Tx) -> ScrubNote | None:
    """Read what is to be scrubbed. No access: pages and log are everybody's."""
    text: str | None = await tx.value(_READ, _NAME)
    if text is None:
        return None
    stage, since, asked_at = text.split(":")
    known: ScrubStage = "index" if stage == "index" else "scrub"
    return ScrubNote("merging" if stage == "merging" else known, int(since), int(asked_at))


async def ask_for_scrub(tx: Tx, *, with_index: bool, now_us: int) -> None:
    """Have scrubbed what this unit removes.

    Args:
        with_index: It was in a search index: that is rewritten first.
        now_us: The time.
    """
    note = await read_note(tx)
    stage: ScrubStage = "index" if with_index else "scrub"
    if note is not None and not with_index:
        stage = note.stage
    since = now_us if note is None else note.since
    # Never the same text twice: whoever scrubs forgets the note only as it was before.
    asked_at = now_us if note is None else max(now_us, note.asked_at + 1)
    await tx.execute(_PUT, _NAME, ScrubNote(stage, since, asked_at).text, now_us)


async def set_stage(tx: Tx, note: ScrubNote, stage: ScrubStage, *, now_us: int) -> None:
    """Note how far a scrub has come; one that was asked for anew meanwhile stays as it is."""
    if await read_note(tx) == note:
        await tx.execute(_PUT, _NAME, ScrubNote(stage, note.since, note.asked_at).text, now_us)


async def forget_note(tx: Tx, note: ScrubNote) -> None:
    """Note that nothing is left to scrub, unless it was asked for meanwhile."""
    await tx.execute(_FORGET, _NAME, note.text)
