"""Uploads end in strides, and keep nothing that serves nobody any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from agentsight.server.db import sql
from agentsight.server.uploads import store
from agentsight.server.uploads.service import expire_step
from tests.server.uploads.sending import MORE, announce, begin, patch, refer, upload
from tests.support.http import House, Person, open_house

pytestmark = pytest.mark.anyio
DAY_S = 24 * 3600


@pytest.fixture
async def own_house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """Run an application on a database that is this test's alone."""
    async with open_house(database_url, tmp_path) as house:
        yield house


async def announce_many(house: House, person: Person, n: int) -> None:
    """Make one stored upload, and as many more of the same bytes as a client might announce."""
    await upload(person, b"the same bytes", filename="a name.txt")
    assert await house.run(MORE.format(n=n - 1)) == n - 1


async def ended(house: House) -> int:
    return await house.count("uploads", "state = 'expired'")


async def test_many_uploads_expire_in_strides(own_house: House) -> None:
    """However many have the same time: no unit is longer than the ones of everybody else."""
    house, people = own_house, await own_house.people()
    await announce_many(house, people.alice, 1_201)
    house.clock.move(2 * DAY_S)
    seen = [0]
    while await expire_step(house.parts):
        seen.append(await ended(house))
    assert [after - before for before, after in pairwise(seen)] == [
        500,
        500,
        201,
    ]
    house.clock.move(31 * DAY_S)
    left = [await house.count("uploads")]
    while await expire_step(house.parts):
        left.append(await house.count("uploads"))
    assert left == [1_201, 701, 201, 0]


async def test_an_idle_server_forgets_too(own_house: House) -> None:
    """Also when no other upload ever comes whose end would remind it."""
    house, people = own_house, await own_house.people()
    await upload(people.alice, b"bytes")
    house.clock.move(2 * DAY_S)
    assert await expire_step(house.parts) == 1
    assert await expire_step(house.parts) == 0
    house.clock.move(31 * DAY_S)
    assert await expire_step(house.parts) == 1
    assert await house.count("uploads") == 0


async def test_an_upload_that_is_over_names_nothing(own_house: House) -> None:
    """Taken back, broken off or used: name, hash and type go; its uid goes on saying `expired`."""
    house, people = own_house, await own_house.people()
    alice = people.alice
    paths = []
    for n, data in enumerate((b"taken back", b"used", b"refused")):
        path = await begin(alice, data, filename=f"secret {n}.txt", mime_type="text/x-secret")
        if n < 2:
            assert (await patch(alice, path, 0, data)).status == 204
        else:
            assert (await patch(alice, path, 0, b"other b")).is_error(400, "hash_mismatch")
        paths.append(path)
    assert (await alice.writer.send("DELETE", paths[0])).status == 204
    assert (await refer(alice, paths[1].split("/")[-2])).status == 200
    broken = await begin(alice, b"broken off", filename="secret 3.txt", mime_type="text/x-secret")
    assert (await patch(alice, broken, 0, b"brok", is_cut=True)).status in (204, 400, 499)
    house.clock.move(2 * DAY_S)
    while await expire_step(house.parts):
        pass
    rows = await house.rows(
        "SELECT state, filename, sha256, declared_mime_type, detected_mime_type, blob_id, parts"
        " FROM uploads"
    )
    assert set(rows) == {("expired", "", None, None, None, None, "")}
    assert len(rows) == 4
    for path in (*paths, broken):
        assert (await alice.writer.send("HEAD", path)).is_error(410, "upload_expired")
        assert (await refer(alice, path.split("/")[-2])).is_error(410, "upload_expired")
    assert (await announce(alice, b"broken off")).json()["offset"] == 0


async def test_strides_read_an_index(own_house: House) -> None:
    """On SQLite no stride looks at more rows than it changes."""
    if own_house.db.dialect != "sqlite":
        return
    for statement, n_arguments in ((store._EXPIRE_STORED, 2), (store._FORGET, 2)):
        explain = sql(statement.postgresql, sqlite=f"EXPLAIN QUERY PLAN {statement.sqlite}")
        arguments = [1] * n_arguments
        plan = await own_house.db.read(lambda tx, e=explain, a=arguments: tx.rows(e, *a), slow=True)
        steps = [row[3] for row in plan]
        assert not any(step.startswith("SCAN uploads") for step in steps), steps
