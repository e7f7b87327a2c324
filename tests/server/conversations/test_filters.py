"""Every filter means the same on both databases: what the oracle in plain Python says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agentsight.server.access import Access
from agentsight.server.conversations import service
from agentsight.server.conversations.filters import parse_filters
from agentsight.server.parts import Parts
from tests.server.conversations import oracle
from tests.server.conversations.worlds import START, TEXTS, Case, a_file, cases
from tests.server.library import Library, index_all, store
from tests.support.soak import only_in_soak

pytestmark = pytest.mark.anyio


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
            await index_all(parts)
        if conversation is not None:
            await store(parts, access, conversation)
    for query, page_size in case.queries:
        expected = oracle.answer(world, query)
        count, ids = await ask(parts, access, query, page_size)
        assert (count, ids) == (len(expected), expected), query


N_LONG = 600
"""Worlds of the long run; `make soak` takes the time for more."""
QUIET = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip


@pytest.mark.slow
@settings(QUIET, max_examples=40, derandomize=True)
@given(case=cases())
async def test_filters_answer_as_the_oracle(library: Library, case: Case) -> None:
    """Ids in order, counts and pages are the oracle's, whatever is indexed already."""
    await check(library, case)


@only_in_soak
@settings(QUIET, max_examples=N_LONG)
@given(case=cases(n_queries=14))
async def test_filters_answer_as_the_oracle_at_length(library: Library, case: Case) -> None:
    """The same, with many more worlds."""
    await check(library, case)


def plain(conversation_id: str, **fields: Any) -> dict[str, Any]:
    """Make a conversation of which only a few fields matter."""
    empty = dict.fromkeys(
        ("customer_id", "customer_ip_address", "device", "source", "language", "name", "metadata")
    )
    more = {"environment": None, "messages": [], "feedbacks": [], "timestamp": START}
    flags = {"is_marked": False, "is_deleted": False}
    return {"conversation_id": conversation_id} | empty | more | flags | fields


LEAVES = [
    None, True, False, 0, 1, -1, 7, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, 1.0, 0.1, -0.5, 1e16, 1e22,
    1e300, 5e-324, 1.5e-7, 123456789.125, "", "x", "1", "1.0", "true", "null", "Straße", "STRASSE",
    "a:b", "a,b", "%", "_", "\\", 'q"', "it's", "\x01", "日本", "😀", "\u0345", [], [1], ["x"], {},
    {"k": 1}, {"k": {"k": "x"}},
]  # fmt: skip
TEXTS_OF_NUMBERS = [
    "01", "1.", ".5", "1e0", "10e-1", "1E0", "-0", "0.00", "+1", "1e999", "1e-999",
    "9007199254740992", "9007199254740993.0", "10000000000000000", "1e+16", "9223372036854775808",
    "-9223372036854775809", "0.1000", "0.10000000000000001", "True", "None", "x ", "nan", "1_0",
    "\u0661", "0x1", "1e22",
]  # fmt: skip


async def test_every_leaf_against_every_text(library: Library) -> None:
    """Each kind of JSON leaf, alone and nested, against each way to write it and all others'."""
    parts, access = library.parts, await library.new_agent()
    world = [
        plain(f"{n}-{depth}", metadata={"k": leaf} if depth == 1 else {"o": {"k": leaf}})
        for n, leaf in enumerate(LEAVES)
        for depth in (1, 2)
    ]
    for conversation in world:
        await store(parts, access, conversation)
    texts = [leaf if isinstance(leaf, str) else json.dumps(leaf) for leaf in LEAVES]
    n_found = 0
    for text in [*texts, *TEXTS_OF_NUMBERS]:
        for path in ("k", "o.k", " o . k ", "o", "k.k", "o.k.k", "missing"):
            query = {"metadata": f"{path}:{text}"}
            expected = oracle.answer(world, query)
            count, ids = await ask(parts, access, query, 100)
            assert (count, ids) == (len(expected), expected), query
            n_found += count
    assert n_found > 3 * len(LEAVES)


@pytest.mark.slow
@pytest.mark.parametrize("is_indexed", [False, True], ids=["queued", "indexed"])
async def test_every_text_against_every_needle(library: Library, is_indexed: bool) -> None:
    """Each nasty text is found by its own pieces in any case, and by no other's."""
    parts, access = library.parts, await library.new_agent()
    world = [
        plain(
            f"c{n}",
            name=text,
            customer_id=text,
            messages=[
                {
                    "type": "message",
                    "content": text,
                    "timestamp": START,
                    "files": [a_file(filename=text), a_file(bytes=f"{n}", text=f"x {text} y")],
                },
                {"type": "action", "action_name": text, "timestamp": START},
            ],
        )
        for n, text in enumerate(TEXTS)
    ]
    for conversation in world:
        await store(parts, access, conversation)
    if is_indexed:
        await index_all(parts)
    needles = {
        piece
        for text in TEXTS
        for whole in (text, text.upper())
        for piece in (whole, whole[:2], whole[1:4])
        if piece.strip()
    }
    others = ("name", "customer_id__icontains", "action_name")  # know nothing of the index
    for needle in sorted(needles):
        for name in (() if is_indexed else others) + ("message_contains", "attachment_contains"):
            query = {name: needle}
            expected = oracle.answer(world, query)
            count, ids = await ask(parts, access, query, 100)
            assert (count, ids) == (len(expected), expected), query
