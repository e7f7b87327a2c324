"""Every filter means the same on both databases: what the oracle in plain Python says."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agentsight.server.access import Access
from agentsight.server.conversations import service
from agentsight.server.conversations.filters import parse_filters
from agentsight.server.feedback.store import NewFeedback
from agentsight.server.ids import ConversationPk
from agentsight.server.ingest import service as ingest
from agentsight.server.ingest.batch import read_item
from agentsight.server.ingest.bodies import BatchItem, ConversationBody
from agentsight.server.ingest.model import Item
from agentsight.server.ingest.reading import Reader
from agentsight.server.messages.store_search import index_step
from agentsight.server.parts import Parts
from tests.server.conversations import oracle
from tests.server.conversations.worlds import Case, cases
from tests.support.http import House, TestClock, make_settings, open_parts
from tests.support.postgres import TestDatabases

pytestmark = pytest.mark.anyio


@dataclass
class Library:
    """A database of which no background work moves the search index: the test does."""

    parts: Parts
    house: House

    async def new_agent(self) -> Access:
        """Make an agent that has no conversations yet."""
        return (await self.house.people()).alice.access


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
async def library(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Library]:
    """Open the parts of a server without its application, on each kind of database."""
    folder: Path = tmp_path_factory.mktemp("library")
    clock = TestClock()
    databases: TestDatabases | None = None
    if request.param == "sqlite":
        shutil.copyfile(request.getfixturevalue("sqlite_template"), folder / "agentsight.db")
        url = f"sqlite:///{folder / 'agentsight.db'}"
    else:
        databases = request.getfixturevalue("postgres_databases")
        url = databases.create()
    async with open_parts(make_settings(url, folder), clock) as parts:
        yield Library(parts, House(None, parts, clock))
    if databases is not None:
        databases.drop(url)


async def store(parts: Parts, access: Access, conversation: dict[str, Any]) -> None:
    """Store a conversation by the way that everything comes in, and note its row id."""
    reader = Reader(parts.settings, parts.clock())
    fields = ConversationBody.__struct_fields__
    body = ConversationBody(**{k: v for k, v in conversation.items() if k in fields})
    body.timestamp = conversation["timestamp"].isoformat()
    items = [
        Item(read_item(BatchItem(**m | {"timestamp": m["timestamp"].isoformat()}), reader))
        for m in conversation["messages"]
    ]
    applied = await ingest.apply_items(parts, access, reader.conversation(body), items)
    pk = ConversationPk(applied.head.pk)
    conversation["id"] = pk
    for feedback in conversation["feedbacks"]:
        new = NewFeedback(feedback["sentiment"], feedback["source"], None, None)
        await service.add_feedback(parts, access, pk, new)
    if conversation["is_marked"]:
        await service.change_conversation(parts, access, pk, service.Change(is_marked=True))
    if conversation["is_deleted"]:
        await service.delete_conversation(parts, access, pk)


async def ask(
    parts: Parts, access: Access, query: dict[str, str], size: int
) -> tuple[int, list[int]]:
    """Return the count, and the ids of all pages one after the other."""
    filters = parse_filters(query)
    ids: list[int] = []
    while True:
        listed = await service.list_conversations(
            parts, access, filters, limit=size, offset=len(ids), full=False
        )
        ids += [row.pk for row in listed.rows]
        if len(listed.rows) < size:
            return listed.count, ids


async def check(library: Library, case: Case) -> None:
    """Store a world, part of it indexed, and compare answers with the oracle's."""
    parts, access, world = library.parts, await library.new_agent(), case.world
    for n, conversation in enumerate([*world, None]):
        if n == case.n_indexed:
            while await index_step(parts.db):
                pass
        if conversation is not None:
            await store(parts, access, conversation)
    for query, page_size in case.queries:
        expected = oracle.answer(world, query)
        count, ids = await ask(parts, access, query, page_size)
        assert (count, ids) == (len(expected), expected), query


QUIET = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip


@settings(QUIET, max_examples=40)
@given(case=cases())
async def test_filters_answer_as_the_oracle(library: Library, case: Case) -> None:
    """Ids in order, counts and pages are the oracle's, whatever is indexed already."""
    await check(library, case)


@pytest.mark.slow
@settings(QUIET, max_examples=2500)
@given(case=cases(n_queries=14))
async def test_filters_answer_as_the_oracle_at_length(library: Library, case: Case) -> None:
    """The same, with many more worlds."""
    await check(library, case)
