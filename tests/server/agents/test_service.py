"""What can be done with agents and keys, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.access import Permission
from agentsight.server.agents import service
from agentsight.server.agents.store import list_environments
from agentsight.server.db import Database
from agentsight.server.ids import KeyId
from agentsight.server.problems import Problem
from tests.server.agents.world import DAY_US, HOUR_US, NOW_US, make_world

pytestmark = pytest.mark.anyio


async def test_a_key_opens_its_agent_and_nothing_else(db: Database) -> None:
    """The access of a key names its organisation, client and agent, and what its role allows."""
    world = await make_world(db)
    access = await service.authenticate_key(db, world.support_key.text.upper(), NOW_US)
    assert access is not None
    assert access.principal == "key"
    assert access.agent_id == world.support.agent_id
    assert access.agent_uid == world.support.uid
    assert access.organisation_id == world.alice.organisation_id
    assert access.client_id == world.support.client_id
    assert access.may(Permission.READ | Permission.WRITE)
    assert not access.may(Permission.ADMIN)


async def test_a_read_key_may_only_read(db: Database) -> None:
    """The role decides: `read` does not write."""
    world = await make_world(db)
    key = await service.create_key(db, world.alice, "support", role="read", now_us=NOW_US)
    access = await service.authenticate_key(db, key.text, NOW_US)
    assert access is not None
    assert access.permissions == Permission.READ


async def test_the_key_itself_is_never_kept(db: Database, database_url: str) -> None:
    """Neither the answer of a list nor the database holds the text of a key."""
    world = await make_world(db)
    listed = await service.list_keys(db, world.alice)
    assert world.support_key.text not in repr(listed)
    assert world.support_key.text[4:36] not in repr(listed)


async def test_an_expired_key_is_refused(db: Database) -> None:
    """A key works until the microsecond of its end."""
    world = await make_world(db)
    key = await service.create_key(
        db, world.alice, "support", role="read", expires_in_days=1, now_us=NOW_US
    )
    assert await service.authenticate_key(db, key.text, NOW_US + DAY_US - 1) is not None
    assert await service.authenticate_key(db, key.text, NOW_US + DAY_US) is None


async def test_a_revoked_key_is_refused(db: Database) -> None:
    """Revoking ends a key at once, twice is no error, and the first end stays."""
    world = await make_world(db)
    key_id = world.support_key.key.key_id
    first = await service.revoke_key(db, world.alice, key_id, now_us=NOW_US + 5)
    again = await service.revoke_key(db, world.alice, key_id, now_us=NOW_US + 9)
    assert first.revoked_at == again.revoked_at == NOW_US + 5
    assert await service.authenticate_key(db, world.support_key.text, NOW_US + 5) is None


async def test_rotation_leaves_an_overlap(db: Database) -> None:
    """Old and new key work side by side for the overlap; then only the new one does."""
    world = await make_world(db)
    old = world.support_key
    new = await service.rotate_key(db, world.alice, old.key.key_id, overlap_hours=24, now_us=NOW_US)
    during, after = NOW_US + 24 * HOUR_US - 1, NOW_US + 24 * HOUR_US
    assert await service.authenticate_key(db, old.text, during) is not None
    assert await service.authenticate_key(db, new.text, during) is not None
    assert await service.authenticate_key(db, old.text, after) is None
    assert await service.authenticate_key(db, new.text, after) is not None
    assert (new.key.role, new.key.agent_slug) == (old.key.role, "support")


async def test_rotating_an_ended_key_is_refused(db: Database) -> None:
    """A revoked key gets no successor: that would bring it back to life."""
    world = await make_world(db)
    key_id = world.support_key.key.key_id
    await service.revoke_key(db, world.alice, key_id, now_us=NOW_US)
    with pytest.raises(Problem, match="is revoked") as caught:
        await service.rotate_key(db, world.alice, key_id, overlap_hours=1, now_us=NOW_US)
    assert caught.value.status == 400


async def test_a_rotated_key_lives_as_long_as_the_old_one_was_meant_to(db: Database) -> None:
    """A key for 30 days is followed by a key for 30 days."""
    world = await make_world(db)
    old = await service.create_key(
        db, world.alice, "support", role="read", expires_in_days=30, now_us=NOW_US
    )
    later = NOW_US + 29 * DAY_US
    new = await service.rotate_key(db, world.alice, old.key.key_id, overlap_hours=1, now_us=later)
    assert new.key.expires_at == later + 30 * DAY_US


async def test_a_stranger_sees_no_agent_and_no_key(db: Database) -> None:
    """For Carol, Alice's agents and keys do not exist, whatever she tries."""
    world = await make_world(db)
    carol, key_id = world.carol, world.support_key.key.key_id
    assert [agent.slug for agent in await service.list_agents(db, carol)] == ["spy"]
    assert [key.agent_slug for key in await service.list_keys(db, carol)] == ["spy"]
    with pytest.raises(Problem) as listed:
        await service.list_keys(db, carol, "support")
    with pytest.raises(Problem) as created:
        await service.create_key(db, carol, "support", role="read", now_us=NOW_US)
    with pytest.raises(Problem) as revoked:
        await service.revoke_key(db, carol, key_id, now_us=NOW_US)
    with pytest.raises(Problem) as rotated:
        await service.rotate_key(db, carol, key_id, overlap_hours=1, now_us=NOW_US)
    with pytest.raises(Problem) as missing:
        await service.revoke_key(db, carol, KeyId(99_999), now_us=NOW_US)
    answers = [p.value for p in (listed, created, revoked, rotated, missing)]
    assert {(p.status, p.code, p.detail) for p in answers} == {(404, "not_found", "Not found.")}
    assert await service.authenticate_key(db, world.support_key.text, NOW_US) is not None


async def test_a_clients_member_sees_that_clients_agents(db: Database) -> None:
    """Bob belongs to `bakery`; `florist`'s agent is not there for him."""
    world = await make_world(db)
    assert [agent.slug for agent in await service.list_agents(db, world.bob)] == ["support"]
    with pytest.raises(Problem) as caught:
        await service.list_keys(db, world.bob, "sales")
    assert caught.value.status == 404


async def test_an_agent_is_born_with_two_environments(db: Database) -> None:
    """`production` is production, `development` is not."""
    world = await make_world(db)
    access = await service.authenticate_key(db, world.support_key.text, NOW_US)
    assert access is not None
    environments = await db.read(lambda tx: list_environments(tx, access))
    assert [(e.slug, e.is_production) for e in environments] == [
        ("production", True),
        ("development", False),
    ]


async def test_a_slug_is_unique_in_the_instance(db: Database) -> None:
    """A slug that anybody has is taken, in words that do not say whose it is."""
    world = await make_world(db)
    with pytest.raises(Problem, match="already") as caught:
        await service.create_agent(
            db, world.carol, "support", client_slug="carol-client", now_us=NOW_US
        )
    assert caught.value.fields["slug"]


@pytest.mark.parametrize("slug", ["", "-a", "a/b", "ü", "a" * 64, "a b", "..", "a\nb"])
async def test_a_bad_slug_is_refused(db: Database, slug: str) -> None:
    """A slug goes into addresses, so it may hold little."""
    world = await make_world(db)
    with pytest.raises(Problem) as caught:
        await service.create_agent(db, world.alice, slug, client_slug="bakery", now_us=NOW_US)
    assert caught.value.status == 400


async def test_a_key_is_found_by_number_or_by_itself(db: Database) -> None:
    """`keys revoke` takes either, and a stranger finds neither."""
    world = await make_world(db)
    key = world.support_key
    assert await service.find_key_id(db, world.alice, str(key.key.key_id)) == key.key.key_id
    assert await service.find_key_id(db, world.alice, key.text) == key.key.key_id
    with pytest.raises(Problem) as caught:
        await service.find_key_id(db, world.carol, key.text)
    assert caught.value.status == 404
    with pytest.raises(Problem) as malformed:
        await service.find_key_id(db, world.alice, "support")
    assert malformed.value.status == 400


@pytest.mark.parametrize("role", ["ingest", "admin", "", "WRITE"])
async def test_other_roles_are_refused(db: Database, role: str) -> None:
    """Keys are made with `read` or `write`; `ingest` is reserved."""
    world = await make_world(db)
    with pytest.raises(Problem) as caught:
        await service.create_key(db, world.alice, "support", role=role, now_us=NOW_US)
    assert caught.value.fields["role"]


async def test_a_rotated_key_is_not_rotated_again(db: Database) -> None:
    """That would shorten the overlap its users count on; the refusal names its real end."""
    world = await make_world(db)
    key_id = world.support_key.key.key_id
    new = await service.rotate_key(db, world.alice, key_id, overlap_hours=48, now_us=NOW_US)
    assert new.replaced is not None
    assert new.replaced.ends_at == NOW_US + 48 * HOUR_US
    with pytest.raises(Problem, match="rotate its successor, or revoke") as caught:
        await service.rotate_key(db, world.alice, key_id, overlap_hours=0, now_us=NOW_US + 1)
    assert (caught.value.status, "2026-09-23T" in caught.value.detail) == (400, True)
    assert len(await service.list_keys(db, world.alice, "support")) == 2
    still = NOW_US + 48 * HOUR_US - 1
    assert await service.authenticate_key(db, world.support_key.text, still) is not None


async def test_of_two_rotations_at_once_one_is_refused(db: Database) -> None:
    """Two people with one plan leave one successor."""
    world = await make_world(db)
    key_id = world.support_key.key.key_id
    answers = await asyncio.gather(
        *(
            service.rotate_key(db, world.alice, key_id, overlap_hours=hours, now_us=NOW_US)
            for hours in (48, 1, 24)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Problem) for answer in answers) == 2
    assert len(await service.list_keys(db, world.alice, "support")) == 2


async def test_an_overlap_never_outlives_the_old_keys_own_end(db: Database) -> None:
    """A key that expires in a day ends then, whatever overlap was asked for."""
    world = await make_world(db)
    old = await service.create_key(
        db, world.alice, "support", role="read", expires_in_days=1, now_us=NOW_US
    )
    new = await service.rotate_key(db, world.alice, old.key.key_id, overlap_hours=72, now_us=NOW_US)
    assert new.replaced is not None
    assert new.replaced.ends_at == old.key.expires_at == NOW_US + DAY_US
