"""Feedback on conversations: what is stored, and what is shown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentsight.server.db import Tx
from agentsight.server.ids import ConversationPk
from agentsight.server.removals import store as removals
from tests.support.http import House, People

pytestmark = pytest.mark.anyio

URL = "/api/conversation-feedbacks/"


async def test_feedback_by_both_names(people: People) -> None:
    """A string names by the caller's id, a number by row id; the source is the customer."""
    pk = await people.alice.conversation("c")
    for named in ({"conversation": pk}, {"conversation_id": "c"}, {"conversation": str(pk)}):
        body = {"sentiment": "positive", "comment": "great", "metadata": {"k": 1}} | named
        answer = await people.alice.post(URL, body)
        shown = answer.json()
        assert answer.status == 201
        assert set(shown) >= {
            "id", "conversation", "sentiment", "source", "comment", "metadata", "created_at",
        }  # fmt: skip
        assert (shown["conversation"], shown["source"]) == (pk, "customer")
        assert shown["created_at"].endswith("Z")
    row = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert [f["comment"] for f in row["feedbacks"]] == ["great"] * 3
    assert row["feedback_count"] == 3


async def test_two_equal_words_are_two(people: People) -> None:
    """Published clients send no time with them: nothing is de-duplicated."""
    pk = await people.alice.conversation()
    for _ in range(2):
        answer = await people.alice.post(URL, {"conversation": pk, "sentiment": "neutral"})
        assert answer.status == 201
    row = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert [(f["comment"], f["metadata"]) for f in row["feedbacks"]] == [(None, {})] * 2


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"sentiment": "angry"}, 400),
        ({"sentiment": None}, 400),
        ({"sentiment": 1}, 400),
        ({"comment": "x" * 5001}, 400),
        ({"metadata": []}, 400),
        ({"metadata": {"a": "x" * 70_000}}, 413),
        ({"conversation": None}, 400),
        ({"conversation": None, "conversation_id": "unknown"}, 404),
        ({"conversation": 2**50}, 404),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_refused(
    house: House, people: People, changes: dict[str, Any], status: int
) -> None:
    """Nothing is stored, and the counter stays."""
    pk = await people.alice.conversation()
    before = await house.counts()
    answer = await people.alice.post(URL, {"conversation": pk, "sentiment": "neutral"} | changes)
    assert answer.is_error(status, answer.json()["code"]), answer.body
    assert await house.counts() == before


async def test_sentiments_in_any_case(people: People) -> None:
    """They are kept in lower case."""
    pk = await people.alice.conversation()
    answer = await people.alice.post(URL, {"conversation": pk, "sentiment": " Positive "})
    assert answer.json()["sentiment"] == "positive"


async def test_both_filters_are_of_one_feedback(house: House, people: People) -> None:
    """A negative word of the customer's, not one of each."""
    pk = await people.alice.conversation()
    await people.alice.post(URL, {"conversation": pk, "sentiment": "negative"})
    body = {"conversation": pk, "sentiment": "positive", "item_key": "p"}
    await people.alice.post(URL, body)
    await house.run(
        "UPDATE feedbacks SET source = 'platform' WHERE conversation_id = $1 AND item_key = 'p'", pk
    )
    for sentiment, source, count in (
        ("negative", "customer", 1), ("positive", "platform", 1), ("negative", "platform", 0),
    ):  # fmt: skip
        query = {"feedback_sentiment": sentiment, "feedback_source": source}
        answer = await people.alice.get("/api/conversations/", query)
        assert answer.json()["count"] == count


@pytest.mark.parametrize("is_named_by_id", [False, True])
async def test_a_word_in_the_moment_of_an_erasure_is_a_404(
    house: House, people: People, is_named_by_id: bool
) -> None:
    """Its conversation goes between the look and the insert: then it is not there.

    PostgreSQL runs units side by side; on SQLite there is one writer, and the word comes after.
    """
    pk = ConversationPk(await people.alice.conversation("going"))
    named = {"conversation_id": "going"} if is_named_by_id else {"conversation": pk}
    is_gone, may_commit = asyncio.Event(), asyncio.Event()

    async def erase(tx: Tx) -> None:
        await removals.mark_by_pks(tx, people.alice.access, [pk], "r", now_us=1)
        await removals.remove_conversation(tx, people.alice.access, pk, now_us=1)
        if house.db.dialect == "postgresql":
            is_gone.set()
            await may_commit.wait()

    erasing = asyncio.create_task(house.db.write(erase))
    if house.db.dialect == "postgresql":
        await is_gone.wait()
    else:
        await erasing
    body = {"sentiment": "neutral"} | named
    saying = asyncio.create_task(people.alice.post(URL, body))
    waiting = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock'"
    )
    while not erasing.done() and not saying.done() and not await house.rows(waiting):
        pass
    may_commit.set()
    await erasing
    answer = await saying
    assert answer.is_error(404, "not_found"), answer.body
    assert await house.count("feedbacks", "agent_id = $1", people.alice.access.agent_id) == 0
