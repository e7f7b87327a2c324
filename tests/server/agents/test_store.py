"""Environments come into being as items name them, up to a limit."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.access import Access
from agentsight.server.agents import service, store
from agentsight.server.db import Database, Tx
from agentsight.server.problems import Problem
from tests.server.agents.world import NOW_US, make_world

pytestmark = pytest.mark.anyio


async def _access(db: Database) -> Access:
    world = await make_world(db)
    access = await service.authenticate_key(db, world.support_key.text, NOW_US)
    assert access is not None
    return access


async def _ensure(db: Database, access: Access, slug: str, **options: int) -> int | None:
    async def unit(tx: Tx) -> int | None:
        return await store.environment_id(tx, access, slug, NOW_US, True, **options)

    return await db.write(unit)


async def test_an_unknown_environment_is_made_once(db: Database) -> None:
    """The second item finds what the first one made, and it is never a production one."""
    access = await _access(db)
    first = await _ensure(db, access, "staging")
    assert first == await _ensure(db, access, "staging")
    listed = await db.read(lambda tx: store.list_environments(tx, access))
    assert [(e.slug, e.is_production) for e in listed][2:] == [("staging", False)]


async def test_an_environment_is_not_made_when_nobody_asked(db: Database) -> None:
    """A filter by an environment that is not there finds None and leaves none behind."""
    access = await _access(db)
    found = await db.read(lambda tx: store.environment_id(tx, access, "staging", NOW_US, False))
    assert found is None
    known = await db.read(lambda tx: store.environment_id(tx, access, "production", NOW_US, False))
    assert known is not None


async def test_too_many_environments_are_refused(db: Database) -> None:
    """The built-in two count; one more than the limit is a 400 and changes nothing."""
    access = await _access(db)
    for number in range(18):
        await _ensure(db, access, f"stage-{number}")
    with pytest.raises(Problem) as caught:
        await _ensure(db, access, "one-too-many")
    assert (caught.value.status, caught.value.code) == (400, "too_many_environments")
    assert await _ensure(db, access, "stage-17") is not None
    assert len(await db.read(lambda tx: store.list_environments(tx, access))) == 20


async def test_requests_side_by_side_do_not_pass_the_limit(db: Database) -> None:
    """Many at once make each environment once and stop at the limit."""
    access = await _access(db)
    slugs = [f"stage-{number % 6}" for number in range(24)]
    answers = await asyncio.gather(
        *(_ensure(db, access, slug, max_environments=5) for slug in slugs), return_exceptions=True
    )
    refused = [a for a in answers if isinstance(a, BaseException)]
    assert all(isinstance(a, Problem) and a.code == "too_many_environments" for a in refused)
    assert len(await db.read(lambda tx: store.list_environments(tx, access))) == 5


async def test_agents_do_not_share_environments(db: Database) -> None:
    """What one agent's items named is not there for another agent."""
    world = await make_world(db)
    mine = await service.authenticate_key(db, world.support_key.text, NOW_US)
    other = await service.authenticate_key(db, world.carol_key.text, NOW_US)
    assert mine is not None
    assert other is not None
    await _ensure(db, mine, "staging")
    found = await db.read(lambda tx: store.environment_id(tx, other, "staging", NOW_US, False))
    assert found is None
