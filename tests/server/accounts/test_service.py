"""What can be done with clients, users and one-time links, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.accounts import service
from agentsight.server.accounts.model import TOKEN_LIFETIME_DAYS
from agentsight.server.accounts.passwords import verify_password
from agentsight.server.db import Database
from agentsight.server.ids import AgentId
from agentsight.server.problems import Problem
from tests.server.agents.world import DAY_US, NOW_US, make_world

pytestmark = pytest.mark.anyio
PASSWORD = "correct horse"


async def test_a_stranger_sees_no_client_and_no_user(db: Database) -> None:
    """For Carol, Alice's clients and people do not exist."""
    world = await make_world(db)
    await service.create_user(db, world.alice, "bob@example.com", role="member", now_us=NOW_US)
    assert [c.slug for c in await service.list_clients(db, world.alice)] == ["bakery", "florist"]
    assert [c.slug for c in await service.list_clients(db, world.carol)] == ["carol-client"]
    assert await service.list_users(db, world.carol) == []
    with pytest.raises(Problem) as caught:
        await service.create_token(db, world.carol, "bob@example.com", now_us=NOW_US)
    assert caught.value.status == 404
    with pytest.raises(Problem) as other:
        await service.create_user(
            db, world.carol, "x@example.com", role="viewer", client_slug="bakery", now_us=NOW_US
        )
    assert other.value.status == 404


async def test_a_clients_member_sees_that_client_only(db: Database) -> None:
    """Bob sees `bakery` and its people, not the rest of the organisation."""
    world = await make_world(db)
    for email, client in (("b@example.com", "bakery"), ("f@example.com", "florist")):
        await service.create_user(
            db, world.alice, email, role="viewer", client_slug=client, now_us=NOW_US
        )
    assert [c.slug for c in await service.list_clients(db, world.bob)] == ["bakery"]
    assert [u.email for u in await service.list_users(db, world.bob)] == ["b@example.com"]


async def test_a_password_signs_in(db: Database) -> None:
    """The address counts without case; another password, or no account, is None."""
    world = await make_world(db)
    user = await service.create_user(
        db, world.alice, "Bob@Example.com", role="member", password=PASSWORD, now_us=NOW_US
    )
    assert user.email == "Bob@Example.com"
    assert user.has_password
    assert await service.check_credentials(db, "bob@example.COM ", PASSWORD) == user.user_id
    assert await service.check_credentials(db, "bob@example.com", "wrong horse") is None
    assert await service.check_credentials(db, "nobody@example.com", PASSWORD) is None


async def test_an_address_has_one_account(db: Database) -> None:
    """In the whole instance, whatever the case."""
    world = await make_world(db)
    await service.create_user(db, world.alice, "bob@example.com", role="member", now_us=NOW_US)
    with pytest.raises(Problem, match="already"):
        await service.create_user(db, world.carol, "BOB@example.com", role="owner", now_us=NOW_US)


@pytest.mark.parametrize("email", ["", "bob", "a b@c", "@c", "a@", "a@b@c", "x" * 250 + "@a.de"])
async def test_a_wrong_address_is_refused(db: Database, email: str) -> None:
    """An address has one @ with something on both sides."""
    world = await make_world(db)
    with pytest.raises(Problem) as caught:
        await service.create_user(db, world.alice, email, role="member", now_us=NOW_US)
    assert "email" in caught.value.fields


@pytest.mark.parametrize("password", ["", "short", "x" * 10, "y" * 1001])
async def test_a_poor_password_is_refused(db: Database, password: str) -> None:
    """Too short, too long, or one character over and over."""
    world = await make_world(db)
    with pytest.raises(Problem) as caught:
        await service.create_user(
            db, world.alice, "b@example.com", role="member", password=password, now_us=NOW_US
        )
    assert "password" in caught.value.fields


async def test_an_owner_is_of_the_whole_organisation(db: Database) -> None:
    """An owner of one client is a contradiction."""
    world = await make_world(db)
    with pytest.raises(Problem) as caught:
        await service.create_user(
            db, world.alice, "o@example.com", role="owner", client_slug="bakery", now_us=NOW_US
        )
    assert "client" in caught.value.fields


async def test_a_link_sets_a_password_once(db: Database) -> None:
    """The second use is refused, and so is every other link of the same person."""
    world = await make_world(db)
    await service.create_user(db, world.alice, "b@example.com", role="member", now_us=NOW_US)
    token = await service.create_token(db, world.alice, "b@example.com", now_us=NOW_US)
    other = await service.create_token(db, world.alice, "b@example.com", now_us=NOW_US)
    holder = await service.find_token(db, token, NOW_US)
    assert holder is not None
    assert holder.email == "b@example.com"
    await service.use_token(db, token, PASSWORD, now_us=NOW_US)
    assert await service.check_credentials(db, "b@example.com", PASSWORD) == holder.user_id
    for dead in (token, other, "never-made"):
        assert await service.find_token(db, dead, NOW_US) is None
        with pytest.raises(Problem) as caught:
            await service.use_token(db, dead, "another password", now_us=NOW_US)
        assert (caught.value.status, caught.value.code) == (410, "gone")
    assert await service.check_credentials(db, "b@example.com", PASSWORD) is not None


async def test_two_uses_of_one_link_at_once_make_one_password(db: Database) -> None:
    """One of them is told, and its password does not count."""
    world = await make_world(db)
    await service.create_user(db, world.alice, "b@example.com", role="member", now_us=NOW_US)
    token = await service.create_token(db, world.alice, "b@example.com", now_us=NOW_US)
    passwords = ["first password", "second password"]
    answers = await asyncio.gather(
        *(service.use_token(db, token, p, now_us=NOW_US) for p in passwords),
        return_exceptions=True,
    )
    assert sorted(answer is None for answer in answers) == [False, True]
    won = passwords[answers.index(None)]
    assert await service.check_credentials(db, "b@example.com", won) is not None


async def test_a_link_expires(db: Database) -> None:
    """It works until the microsecond of its end."""
    world = await make_world(db)
    await service.create_user(db, world.alice, "b@example.com", role="member", now_us=NOW_US)
    token = await service.create_token(db, world.alice, "b@example.com", now_us=NOW_US)
    end = NOW_US + TOKEN_LIFETIME_DAYS * DAY_US
    assert await service.find_token(db, token, end - 1) is not None
    assert await service.find_token(db, token, end) is None
    with pytest.raises(Problem):
        await service.use_token(db, token, PASSWORD, now_us=end)


async def test_a_poor_password_does_not_use_the_link_up(db: Database) -> None:
    """Who typed too little may try again."""
    world = await make_world(db)
    await service.create_user(db, world.alice, "b@example.com", role="member", now_us=NOW_US)
    token = await service.create_token(db, world.alice, "b@example.com", now_us=NOW_US)
    with pytest.raises(Problem):
        await service.use_token(db, token, "short", now_us=NOW_US)
    assert await service.find_token(db, token, NOW_US) is not None


async def test_the_operator_sees_nothing_before_anything_was_made(db: Database) -> None:
    """A list on a fresh database is empty and makes nothing."""
    access = await service.operator_access(db, now_us=NOW_US, create=False)
    assert await service.list_clients(db, access) == []
    made = await service.operator_access(db, now_us=NOW_US, create=True)
    assert [c.slug for c in await service.list_clients(db, made)] == ["default"]


async def test_the_operator_is_no_background_job(db: Database) -> None:
    """The audit log must tell what a person asked for from what the server does by itself."""
    for create in (False, True, False):
        access = await service.operator_access(db, now_us=NOW_US, create=create)
        assert access.principal == "operator"
        assert access.within(AgentId(7)).principal == "operator"


async def test_operators_side_by_side_make_one_organisation(db: Database) -> None:
    """Commands started together on a fresh database agree."""
    made = await asyncio.gather(
        *(service.operator_access(db, now_us=NOW_US, create=True) for _ in range(8))
    )
    assert len({access.organisation_id for access in made}) == 1


async def test_no_hash_fits_no_password(anyio_backend: str) -> None:
    """An account without a password cannot be signed in to, whatever is typed."""
    assert not await verify_password(None, "no account has this password")
    assert not await verify_password("not a hash", PASSWORD)
