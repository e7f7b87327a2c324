"""Work that goes on beside requests: chores in steps, for as long as the server runs.

Every worker process runs every chore, so a step must bear another process doing the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from agentsight.server.blobs import StorageUnavailable
from agentsight.server.db.errors import DatabaseError
from agentsight.server.parts import Parts

log = logging.getLogger("agentsight.server")
_BETWEEN_STEPS_S = 0.01
_AFTER_FAULT_S = 30.0


@dataclass(frozen=True, slots=True)
class Chore:
    """One kind of work.

    Args:
        name: For the log: "the search index", "retention".
        step: Does a little, and returns how much was done; 0 lets it rest for `pause_s`.
        pause_s: How long to rest when there is nothing to do.
    """

    name: str
    step: Callable[[Parts], Awaitable[int]]
    pause_s: float


async def _run(parts: Parts, chore: Chore) -> None:
    while True:
        pause_s = chore.pause_s
        try:
            if await chore.step(parts):
                pause_s = _BETWEEN_STEPS_S
        except (DatabaseError, StorageUnavailable) as error:
            log.warning("%s waits: %s", chore.name, error)
        except Exception:
            # The edge of a task: one file that nobody foresaw must not end the chore for good.
            log.exception("%s failed", chore.name)
            pause_s = max(pause_s, _AFTER_FAULT_S)
        await asyncio.sleep(pause_s)


@contextlib.asynccontextmanager
async def running(parts: Parts, chores: Sequence[Chore]) -> AsyncGenerator[None]:
    """Run chores beside the block, and end them with it."""
    tasks = [asyncio.create_task(_run(parts, chore), name=chore.name) for chore in chores]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
