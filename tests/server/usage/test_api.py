"""Token usage: gen A's running totals are kept as they came, ours are what was used since."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http import People, Person

pytestmark = pytest.mark.anyio

COUNTERS = ("prompt_tokens", "completion_tokens", "total_tokens", "embedding_tokens")


async def usages(person: Person, pk: int) -> list[dict[str, Any]]:
    """Read a conversation's counters."""
    return (await person.get(f"/api/conversations/{pk}/")).json()["token_usage"]


async def test_gen_a_counters_have_an_unknown_basis(people: People) -> None:
    """An action named token_usage is shown with its conversation, and is no message."""
    pk = await people.alice.conversation()
    for total in (10, 25):
        metadata = dict(zip(COUNTERS, (1, 2, total, 0), strict=True))
        body = {"conversation": pk, "action_name": "token_usage", "metadata": metadata}
        assert (await people.alice.post("/api/action_logs/", body)).status == 201
    shown = await usages(people.alice, pk)
    assert [(u["basis"], u["total_tokens"], u["model"]) for u in shown] == [
        ("unknown", 10, None),
        ("unknown", 25, None),
    ]
    row = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert (row["messages"], row["message_count"]) == ([], 0)
    for query in ({"has_messages": "true"}, {"message_contains": "token"}, {"has_action": "true"},
                  {"action_name": "token"}):  # fmt: skip
        assert (await people.alice.get("/api/conversations/", query)).json()["count"] == 0


@pytest.mark.parametrize(
    "metadata", [{}, None, {"total_tokens": "many"}, {"total_tokens": -1}, {"total_tokens": True}]
)
async def test_what_is_no_counter_is_left_out(people: People, metadata: Any) -> None:
    """Free metadata is never a reason to refuse."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "action_name": "token_usage", "metadata": metadata}
    assert (await people.alice.post("/api/action_logs/", body)).status == 201
    [shown] = await usages(people.alice, pk)
    assert [shown[name] for name in COUNTERS] == [None] * 4


async def test_ours_is_what_was_used_since_the_last_send(people: People) -> None:
    """A batch's usage has the basis `delta` and a model."""
    item = {"type": "usage", "model": "m-1", "prompt_tokens": 3, "item_key": "u"}
    body = {"conversation": {"conversation_id": "c"}, "items": [item]}
    for _ in range(2):
        answer = await people.alice.post("/api/v1/batch/", body)
    [shown] = await usages(people.alice, answer.json()["conversation"])
    assert (shown["basis"], shown["model"], shown["prompt_tokens"]) == ("delta", "m-1", 3)
    assert (shown["message"], shown["total_tokens"]) == (answer.json()["items"][0]["id"], None)


async def test_an_action_named_so_in_a_batch_is_an_action(people: People) -> None:
    """Only gen A's route projects it: our SDK has an item of its own."""
    item = {"type": "action", "action_name": "token_usage"}
    body = {"conversation": {"conversation_id": "c"}, "items": [item]}
    pk = (await people.alice.post("/api/v1/batch/", body)).json()["conversation"]
    assert [m["kind"] for m in await people.alice.transcript(pk)] == ["action"]
