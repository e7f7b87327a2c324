"""The cache of keys: quick, bounded, and never wrong for longer than five seconds."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from agentsight.server.agents import service
from agentsight.server.agents.model import generate_key
from agentsight.server.agents.service import KeyCache
from agentsight.server.db import Database
from agentsight.server.problems import Problem
from tests.server.agents.world import DAY_US, NOW_US, SECOND_US, make_world

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_us = NOW_US

    def __call__(self) -> int:
        return self.now_us


class CountingReads:
    """The real database, counting the questions it is asked."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.n_reads = 0

    def read(self, query: Any) -> Awaitable[Any]:
        """Count and pass on."""
        self.n_reads += 1
        return self._db.read(query)


def _cache(db: Database, clock: Clock, **options: Any) -> tuple[KeyCache, CountingReads]:
    counting: Any = CountingReads(db)
    return KeyCache(counting, clock, **options), counting


async def _refusal(cache: KeyCache, key: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await cache.find(key)
    return caught.value


async def test_a_key_is_looked_up_once_in_five_seconds(db: Database) -> None:
    """Within the five seconds the database is not asked again; after them it is."""
    world, clock = await make_world(db), Clock()
    cache, reads = _cache(db, clock)
    first = await cache.find(world.support_key.text)
    clock.now_us += 5 * SECOND_US - 1
    assert await cache.find(world.support_key.text.upper()) is first
    assert reads.n_reads == 1
    clock.now_us += 1
    assert await cache.find(world.support_key.text) == first
    assert reads.n_reads == 2


async def test_a_revoked_key_dies_within_five_seconds(db: Database) -> None:
    """A process that knows the key refuses it five seconds after it looked at the latest."""
    world, clock = await make_world(db), Clock()
    cache, _ = _cache(db, clock)
    await cache.find(world.support_key.text)
    await service.revoke_key(db, world.alice, world.support_key.key.key_id, now_us=NOW_US)
    clock.now_us += 5 * SECOND_US
    assert (await _refusal(cache, world.support_key.text)).status == 401


async def test_an_expiring_key_is_not_trusted_past_its_end(db: Database) -> None:
    """The cache ends with the key, even in the middle of the five seconds."""
    world, clock = await make_world(db), Clock()
    key = await service.create_key(
        db, world.alice, "support", role="read", expires_in_days=1, now_us=NOW_US
    )
    cache, _ = _cache(db, clock)
    clock.now_us += DAY_US - SECOND_US
    await cache.find(key.text)
    clock.now_us += SECOND_US
    assert (await _refusal(cache, key.text)).code == "invalid_key"


async def test_every_bad_key_gets_the_same_answer(db: Database) -> None:
    """Malformed, mistyped, unknown, revoked and expired cannot be told apart."""
    world, clock = await make_world(db), Clock()
    cache, _ = _cache(db, clock)
    await service.revoke_key(db, world.alice, world.support_key.key.key_id, now_us=NOW_US)
    mistyped = generate_key()[:-1] + "g"
    wrong_sum = generate_key()[:36] + "_000000"
    bad = [
        "x",
        mistyped,
        wrong_sum,
        generate_key(),
        world.support_key.text,
        "ags_\ud800",
        "k" * 9999,
    ]
    answers = {(p.status, p.code, p.detail) for p in [await _refusal(cache, key) for key in bad]}
    assert len(answers) == 1
    assert next(iter(answers))[:2] == (401, "invalid_key")


async def test_a_malformed_key_costs_no_question(db: Database) -> None:
    """A wrong shape or checksum is refused without the database."""
    clock = Clock()
    cache, reads = _cache(db, clock)
    await _refusal(cache, "ags_nonsense")
    await _refusal(cache, generate_key()[:36] + "_000000")
    assert reads.n_reads == 0


async def test_no_key_says_how_to_send_one(db: Database) -> None:
    """An empty key is `not_authenticated`."""
    cache, _ = _cache(db, Clock())
    assert (await _refusal(cache, "")).code == "not_authenticated"


async def test_an_unknown_key_is_asked_for_once(db: Database) -> None:
    """A bot with a dead key in a loop costs one question in five seconds."""
    clock = Clock()
    cache, reads = _cache(db, clock)
    key = generate_key()
    for _ in range(3):
        await _refusal(cache, key)
    assert reads.n_reads == 1
    clock.now_us += 5 * SECOND_US
    await _refusal(cache, key)
    assert reads.n_reads == 2


async def test_a_flood_of_unknown_keys_does_not_push_the_known_out(db: Database) -> None:
    """Refusals are kept apart and bounded, so the known key stays known."""
    world, clock = await make_world(db), Clock()
    cache, reads = _cache(db, clock, max_entries=3)
    await cache.find(world.support_key.text)
    for _ in range(10):
        await _refusal(cache, generate_key())
    before = reads.n_reads
    await cache.find(world.support_key.text)
    assert reads.n_reads == before


async def test_a_clock_set_back_makes_nothing_live_longer(db: Database) -> None:
    """What was learned in a future that did not come is asked for again."""
    world, clock = await make_world(db), Clock()
    cache, reads = _cache(db, clock)
    await cache.find(world.support_key.text)
    clock.now_us -= SECOND_US
    await cache.find(world.support_key.text)
    assert reads.n_reads == 2


@pytest.mark.parametrize("ttl_s", [-1, 5.5, 60])
def test_no_cache_may_last_longer_than_five_seconds(ttl_s: float) -> None:
    """The promise about revocations is not a setting's to break."""
    nowhere: Any = None
    with pytest.raises(ValueError, match="0 to 5 seconds"):
        KeyCache(nowhere, Clock(), ttl_s=ttl_s)
