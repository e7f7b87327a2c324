"""Files across conversations, by both kinds of client: the same requests, the same answers."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentsight import AgentSightAPI, AsyncAgentSightAPI
from agentsight.exceptions import NotFoundException
from tests.sdk.conftest import World
from tests.sdk.support import KEY, Answer, ScriptServer, Seen

pytestmark = pytest.mark.anyio
FILES = "/api/v1/attachments/"


class Both:
    """One way to call either kind of client."""

    def __init__(self, client: AgentSightAPI | AsyncAgentSightAPI) -> None:
        self._client = client

    async def call(self, name: str, *args: Any, **filters: Any) -> Any:
        """Call a method and wait for it where it is to be awaited."""
        value = getattr(self._client, name)(*args, **filters)
        return await value if inspect.isawaitable(value) else value

    async def rows(self, **filters: Any) -> list[Any]:
        """Walk through all files."""
        walk = self._client.iter_attachments(**filters)
        if inspect.isasyncgen(walk):
            return [row async for row in walk]
        return list(walk)  # type: ignore[call-overload]


@pytest.fixture(params=["sync", "async"])
async def both(
    anyio_backend: str, request: pytest.FixtureRequest, server: ScriptServer, world: World
) -> AsyncIterator[Both]:
    """Give each kind of client, in turn."""
    if request.param == "sync":
        with AgentSightAPI(KEY, server.url) as api:
            api.runtime = world.runtime
            yield Both(api)
        return
    async with AsyncAgentSightAPI(KEY, server.url) as twin:
        twin.runtime = world.runtime
        yield Both(twin)


async def test_a_page_is_one_request_with_its_filters(both: Both, server: ScriptServer) -> None:
    """Numbers, flags and texts as the server reads them; a number for a conversation is its id."""
    page = {"count": 1, "results": [{"uid": "u"}], "next": None}
    server.script = lambda _: Answer(200, page)
    assert await both.call("fetch_attachments", contains="blue chairs", size_min=3) == page
    await both.call("fetch_attachments", conversation_id="7")
    await both.call("fetch_attachments", conversation_id=7, include_deleted=True, page=2)
    assert {(seen.method, seen.path) for seen in server.seen} == {("GET", FILES)}
    assert [sorted(seen.params) for seen in server.seen] == [
        [("contains", "blue chairs"), ("size_min", "3")],
        [("conversation_id", "7")],
        [("conversation", "7"), ("include_deleted", "true"), ("page", "2")],
    ]


async def test_all_pages_are_walked_and_no_more(both: Both, server: ScriptServer) -> None:
    """Row by row, with the filters on each page, to the page that names no next one."""

    def page_of(seen: Seen) -> Answer:
        number = int(dict(seen.params).get("page", 1))
        rows = [{"id": 2 * number + n} for n in range(2)]
        following = f"{server.url}{FILES}?page={number + 1}" if number < 3 else None
        return Answer(200, {"results": rows, "next": following})

    server.script = page_of
    rows = await both.rows(type="image", page_size=2)
    assert [row["id"] for row in rows] == [2, 3, 4, 5, 6, 7]
    assert len(server.seen) == 3
    assert {dict(seen.params)["type"] for seen in server.seen} == {"image"}
    assert {dict(seen.params)["page_size"] for seen in server.seen} == {"2"}


async def test_one_file_is_asked_for_by_its_uid(
    both: Both, server: ScriptServer, world: World
) -> None:
    """Tried again where the server is away, told where there is none, refused before it is sent."""
    uid = "01a20600-65fd-78c0-a1f6-1b52cf167229"
    server.answers = [Answer(503), Answer(200, {"uid": uid}), Answer(404, {"detail": "no"})]
    assert await both.call("fetch_attachment", uid) == {"uid": uid}
    assert {seen.path for seen in server.seen} == {f"{FILES}{uid}/"}
    assert world.slept == [0.5]
    with pytest.raises(NotFoundException):
        await both.call("fetch_attachment", uid)
    for wrong in ("", 7):
        with pytest.raises(ValueError, match="uid"):
            await both.call("fetch_attachment", wrong)
    assert len(server.seen) == 3
