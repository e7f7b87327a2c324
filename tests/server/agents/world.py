"""Two organisations side by side: Alice's, with two clients, and Carol's, a stranger's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentsight.server.access import Access
from agentsight.server.accounts.service import create_client, create_organisation
from agentsight.server.agents.model import Agent
from agentsight.server.agents.service import NewKey, create_agent, create_key
from agentsight.server.db import Database

NOW_US = 1_790_000_000_000_000
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US


@dataclass(frozen=True)
class World:
    """Who is there: Alice owns, Bob belongs to Alice's client `bakery`, Carol is a stranger."""

    alice: Access
    bob: Access
    carol: Access
    support: Agent
    sales: Agent
    support_key: NewKey
    carol_key: NewKey


async def make_world(db: Database) -> World:
    """Fill a fresh database: agent `support` for `bakery`, `sales` for `florist`, Carol's `spy`."""
    alice = await create_organisation(db, "alice", now_us=NOW_US)
    bakery = await create_client(db, alice, "bakery", now_us=NOW_US)
    await create_client(db, alice, "florist", now_us=NOW_US)
    support = await create_agent(db, alice, "support", client_slug="bakery", now_us=NOW_US)
    sales = await create_agent(db, alice, "sales", client_slug="florist", now_us=NOW_US)
    carol = await create_organisation(db, "carol", now_us=NOW_US)
    await create_client(db, carol, "carol-client", now_us=NOW_US)
    await create_agent(db, carol, "spy", client_slug="carol-client", now_us=NOW_US)
    return World(
        alice=alice,
        bob=replace(alice, principal="user", client_id=bakery.client_id),
        carol=carol,
        support=support,
        sales=sales,
        support_key=await create_key(db, alice, "support", role="write", now_us=NOW_US),
        carol_key=await create_key(db, carol, "spy", role="write", now_us=NOW_US),
    )
