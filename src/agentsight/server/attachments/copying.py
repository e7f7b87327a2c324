"""The chore that carries what was learned of a content into all rows that show it."""

from __future__ import annotations

from typing import Final

from agentsight.server.attachments.store_facts import copy_some, next_to_copy
from agentsight.server.parts import Parts

PAUSE_S: Final = 1.0


async def copy_step(parts: Parts) -> int:
    """Change some rows of one content; agents take turns. Returns 0 when all rows are right.

    Safe in any number of processes, and after a crash: what is left is written down in the unit
    that leaves it.
    """
    after, now = parts.copying.last, parts.clock()
    found = await parts.db.read(lambda tx: next_to_copy(tx, after))
    if found is None:
        return 0
    parts.copying.last = found[0]
    await parts.db.write(lambda tx: copy_some(tx, *found, now_us=now))
    return 1
