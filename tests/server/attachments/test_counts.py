"""The counters of stored bytes as a gate: for a limit that must hold."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.attachments.store_counts import (
    add_counts,
    lock_counts,
    read_counts,
)
from agentsight.server.db import Tx
from tests.support.http import House, People

pytestmark = pytest.mark.anyio


async def test_a_limit_holds_for_the_first_files_of_an_agent(house: House, people: People) -> None:
    """Of many who come at once to an agent without counters, one at a time looks and counts."""
    access = people.alice.access
    assert await house.count("storage_counts", "agent_id = $1", access.agent_id) == 0

    async def store(shard: int) -> bool:
        async def unit(tx: Tx) -> bool:
            await lock_counts(tx, access)
            if (await read_counts(tx, access)).stored_bytes:
                return False
            await add_counts(tx, access.agent_id, shard, 1, 1000)
            return True

        return await house.db.write(unit)

    n_stored = sum(await asyncio.gather(*(store(n) for n in range(16))))
    assert n_stored == 1
    assert (await house.db.read(lambda tx: read_counts(tx, access))).stored_bytes == 1000
