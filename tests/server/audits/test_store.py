"""The audit log as a table: only ever added to, and told to whom it concerns alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from agentsight.server.access import Access
from agentsight.server.audits import service, store
from agentsight.server.audits.model import AuditRecord
from agentsight.server.db import Tx
from agentsight.server.db.errors import QueryError
from agentsight.server.problems import Problem
from tests.support.http import NOW_US, House, People

pytestmark = pytest.mark.anyio


async def add(house: House, access: Access, uid: str, action: str = "delete", at: int = 0) -> None:
    """Write one record."""
    await house.db.write(
        lambda tx: store.add(
            tx, access, action, "conversation", uid, n=2, detail='{"rows": 3}', now_us=NOW_US + at
        )
    )


async def seen(house: House, access: Access, **narrowed: object) -> list[AuditRecord]:
    """Return what somebody may see."""
    return await service.list_records(house.db, access, limit=100, **narrowed)  # type: ignore[arg-type]


async def test_a_record(house: House, people: People) -> None:
    """It says who, what, how often and when, as it was written."""
    await add(house, people.alice.access, "c1")
    [record] = await seen(house, people.organisation)
    access = people.alice.access
    assert replace(record, record_id=0, detail=None) == AuditRecord(
        0, people.alice.slug, "key", access.principal_uid, "delete", "conversation", "c1", 2, None,
        NOW_US,
    )  # fmt: skip
    assert json.loads(record.detail or "") == {"rows": 3}


async def test_it_is_kept_with_the_deed_or_not_at_all(house: House, people: People) -> None:
    """A unit that is undone leaves no record of what it did not do."""

    async def unit(tx: Tx) -> None:
        await store.add(tx, people.alice.access, "erase", "conversation", "c", now_us=NOW_US)
        raise Problem(400, "invalid", "changed my mind")

    with pytest.raises(Problem):
        await house.db.write(unit)
    assert await seen(house, people.organisation) == []


@pytest.mark.parametrize("text", ["UPDATE audit_log SET n = 0", "DELETE FROM audit_log"])
async def test_nothing_in_it_is_changed_or_removed(house: House, people: People, text: str) -> None:
    """The database itself refuses, whoever asks."""
    await add(house, people.alice.access, "c1")
    with pytest.raises(QueryError, match="only ever added to"):
        await house.run(text)
    assert len(await seen(house, people.organisation)) == 1


async def test_who_sees_what(house: House, people: People) -> None:
    """An organisation sees its own; an agent's principal that agent; a stranger nothing of it."""
    await add(house, people.alice.access, "of alice")
    await add(house, people.bob.access, "of bob")
    await add(house, people.organisation, "of the operator")
    await add(house, people.carol.access, "of carol")

    async def uids(access: Access) -> list[str | None]:
        return [record.subject_uid for record in await seen(house, access)]

    assert await uids(people.organisation) == ["of the operator", "of bob", "of alice"]
    assert await uids(people.alice.access) == ["of alice"]
    assert await uids(people.carol.access) == ["of carol"]
    of_client = replace(people.organisation, client_id=people.alice.access.client_id)
    assert await uids(of_client) == ["of bob", "of alice"]


async def test_narrowing(house: House, people: People) -> None:
    """By agent, thing, action and time, each alone; the latest first; at most so many."""
    us = people.organisation
    await add(house, people.alice.access, "x", "delete")
    await add(house, people.alice.access, "y", "erase", at=10)
    await add(house, people.bob.access, "x", "erase", at=20)

    async def times(**narrowed: object) -> list[int]:
        return [record.created_at - NOW_US for record in await seen(house, us, **narrowed)]

    assert await times() == [20, 10, 0]
    assert await times(agent_slug=people.alice.slug) == [10, 0]
    assert await times(subject_uid="x") == [20, 0]
    assert await times(action="erase") == [20, 10]
    assert await times(since_us=NOW_US + 10) == [20, 10]
    assert await times(agent_slug=people.carol.slug) == []
    latest = await service.list_records(house.db, us, limit=1)
    assert [record.created_at - NOW_US for record in latest] == [20]
