"""How many uploads an agent may announce, and what announcing costs where there are many."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from agentsight import _contract as contract
from agentsight.server.db import sql
from agentsight.server.uploads import store, store_announcing
from tests.server.uploads.sending import announce, begin, patch, refer, upload
from tests.server.uploads.test_limits import OpenHouse, limited, says
from tests.support.http import House, People

__all__ = ["limited"]
pytestmark = pytest.mark.anyio


async def test_an_agent_has_so_many_unfinished_uploads(limited: OpenHouse) -> None:
    """429 names the limit and the remedy; finishing, taking back and waiting make place."""
    async with limited(max_pending_uploads=3) as house:
        alice, bob = (people := await house.people()).alice, people.bob
        files = [os.urandom(1000) for _ in range(5)]
        paths = [await begin(alice, data) for data in files[:3]]
        refused = await announce(alice, files[3])
        assert refused.is_error(429, "too_many_uploads")
        assert says(refused, "max_pending_uploads", 3)
        assert int(refused.headers["retry-after"]) > 0
        await begin(bob, files[3])
        assert (await patch(alice, paths[0], 0, files[0][:500])).status == 204
        again = await announce(alice, files[0])  # no new one: it goes on
        assert (again.status, again.json()["offset"]) == (201, 500)
        assert (await patch(alice, paths[0], 500, files[0][500:])).status == 204
        await begin(alice, files[3])
        assert (await announce(alice, files[0])).status == 200  # it is here already
        assert (await announce(alice, files[4])).status == 429
        assert (await alice.writer.send("DELETE", paths[1])).status == 204
        await begin(alice, files[4])
        assert (await announce(alice, files[1])).status == 429
        house.clock.move(25 * 3600)
        await begin(alice, files[1])


async def test_bytes_that_are_here_are_announced_once(house: House, people: People) -> None:
    """The same bytes, name and type again are the same upload, which waits for longer."""
    alice, data = people.alice, os.urandom(1000)
    uid = await upload(alice, data)
    before = (await announce(alice, data)).json()
    assert before["uid"] == uid
    others: list[dict[str, Any]] = [{"filename": "b.bin"}, {"mime_type": "text/x"}]
    others += [{"mime_type": None}]
    uids = {(await announce(alice, data, **fields)).json()["uid"] for fields in others}
    assert len(uids | {uid}) == 4
    house.clock.move(3600)
    for fields in [{}, *others] * 3:
        answer = await announce(alice, data, **fields)
        assert answer.status == 200
        assert answer.json()["uid"] in uids | {uid}
        assert answer.json()["expires_at"] > before["expires_at"]
    assert await house.count("uploads", "agent_id = $1", alice.access.agent_id) == 4
    assert (await refer(alice, uid)).status == 200
    assert (await alice.writer.send("DELETE", f"{contract.UPLOADS_PATH}{uid}/")).status == 204
    assert (await announce(alice, data)).json()["uid"] not in uids | {uid}


async def test_no_question_reads_what_others_have_announced(house: House) -> None:
    """SQLite walks the agent's own range of an index, however many uploads there are of others."""
    if house.db.dialect != "sqlite":
        return
    asked = {
        store_announcing._N_UNFINISHED: "COVERING INDEX uploads_unfinished (agent_id=?",
        store_announcing._UNFINISHED_BYTES: "COVERING INDEX uploads_unfinished (agent_id=?",
        store_announcing._PIN_AGAIN: "INDEX uploads_by_name (agent_id=? AND blob_id=? AND filename",
        store._PENDING: "COVERING INDEX uploads_unfinished (agent_id=?",
        store._FIND_UNFINISHED: "INDEX uploads_by_hash (agent_id=? AND sha256=?",
        store._IS_BEING_SENT: "INDEX uploads_by_hash (agent_id=? AND sha256=?",
        store._WAITING: "(agent_id=?",
    }
    for query, wanted in asked.items():
        explain = sql(query.postgresql, sqlite=f"EXPLAIN QUERY PLAN {query.sqlite}")
        n_args = max(int(n) for n in re.findall(r"\?(\d)", query.sqlite))
        args = [1] * n_args
        plan = await house.db.read(lambda tx, e=explain, a=args: tx.rows(e, *a), slow=True)
        steps = [row[3] for row in plan if " uploads " in row[3] or " u " in row[3]]
        assert any(wanted in step for step in steps), steps
        assert not any("uploads_by_expiry" in step for step in steps), steps
