"""Rename, mark, update, delete and feedback: the promised answers, by text and by number."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.published import Client, enum


@pytest.fixture(params=["text", "number"])
def reference(client: Client, request: pytest.FixtureRequest) -> Any:
    """Make a conversation, named once by its own id and once by its database id."""
    client.tracker.get_or_create_conversation("managed", customer_id="c", metadata={"a": 1})
    client.tracker.track_human_message("Hello")
    client.tracker.send_tracked_data()
    return "managed" if request.param == "text" else pk_of(client)


def pk_of(client: Client) -> int:
    return client.api.fetch_conversations(include_deleted=True)["results"][0]["id"]


def test_renaming(client: Client, reference: Any) -> None:
    """The name comes back trimmed, and is there."""
    answer = client.manager.rename_conversation(reference, "  A better name ☕ ")
    named = {"id": pk_of(client), "conversation_id": "managed", "name": "A better name ☕"}
    assert answer == named
    assert client.api.fetch_conversation("managed")["name"] == "A better name ☕"


def test_marking(client: Client, reference: Any) -> None:
    """On and off again."""
    for is_marked in (True, True, False):
        answer = client.manager.mark_conversation(reference, is_marked)
        assert answer == {
            "id": pk_of(client),
            "conversation_id": "managed",
            "is_marked": is_marked,
        }
        assert client.api.fetch_conversation("managed")["is_marked"] is is_marked


def test_updating(client: Client, reference: Any) -> None:
    """The answer has what was changed, and only that changes; metadata is replaced as a whole."""
    changes = {
        "name": "N",
        "is_marked": True,
        "customer_id": "c-2",
        "device": "tablet",
        "language": "fr",
        "metadata": {"b": {"c": [1, 2]}},
    }
    ids = {"id": pk_of(client), "conversation_id": "managed"}
    one = client.manager.update_conversation(reference, device="desktop")
    assert one == {**ids, "device": "desktop", "updated_fields": ["device"]}
    conversation = client.api.fetch_conversation("managed")
    assert (conversation["customer_id"], conversation["metadata"]) == ("c", {"a": 1})
    answer = client.manager.update_conversation(reference, **changes)
    assert answer == {**ids, **changes, "updated_fields": list(changes)}
    conversation = client.api.fetch_conversation("managed")
    assert {name: conversation[name] for name in changes} == changes


def test_an_update_overwrites_where_opening_only_fills(client: Client, reference: Any) -> None:
    """And what was updated stays when the conversation is opened again."""
    client.manager.update_conversation(reference, customer_id=7)
    client.tracker.initialize_conversation("managed", customer_id="c-3")
    assert client.api.fetch_conversation("managed")["customer_id"] == "7"


def test_deleting(client: Client, reference: Any) -> None:
    """It is gone from lists, is there by number, and cannot be deleted again."""
    pk = pk_of(client)
    answer = client.manager.delete_conversation(reference)
    deleted_at = answer.pop("deleted_at")
    assert answer == {"id": pk, "conversation_id": "managed", "is_deleted": True}
    assert deleted_at.endswith("Z")
    assert client.api.fetch_conversations()["count"] == 0
    (row,) = client.api.fetch_conversations(include_deleted=True)["results"]
    assert (row["is_deleted"], row["deleted_at"]) == (True, deleted_at)
    assert client.api.fetch_conversation(pk) == row
    with client.raises("NotFoundException", match="already deleted"):
        client.manager.delete_conversation(reference)


def test_messages_of_a_deleted_conversation_are_kept(client: Client, reference: Any) -> None:
    """A late message is stored, and does not bring the conversation back."""
    client.manager.delete_conversation(reference)
    client.tracker.track_agent_message("Too late?")
    assert client.tracker.send_tracked_data()["summary"]["answers"] == 1
    conversation = client.api.fetch_conversation(pk_of(client))
    assert [m["content"] for m in conversation["messages"]] == ["Hello", "Too late?"]
    assert conversation["is_deleted"] is True
    assert client.api.fetch_conversations()["count"] == 0


@pytest.mark.parametrize(
    ("sentiment", "word"),
    [("positive", "positive"), (enum("Sentiment.NEGATIVE"), "negative"), ("neutral", "neutral")],
)
def test_feedback(client: Client, reference: Any, sentiment: Any, word: str) -> None:
    """The answer is the row that is then read with the conversation."""
    answer = client.manager.submit_feedback(
        reference, sentiment, comment="Nicht schlecht ☕", metadata={"page": 3}
    )
    given = {
        "conversation": pk_of(client),
        "sentiment": word,
        "source": "customer",
        "comment": "Nicht schlecht ☕",
        "metadata": {"page": 3},
    }
    assert {name: answer[name] for name in given} == given
    assert answer["created_at"].endswith("Z")
    (read,) = client.api.fetch_conversation("managed")["feedbacks"]
    assert {name: read[name] for name in read} == {name: answer[name] for name in read}


def test_a_second_feedback_is_a_second_row(client: Client, reference: Any) -> None:
    """People change their minds."""
    first = client.manager.submit_feedback(reference, "positive")
    second = client.manager.submit_feedback(reference, "positive")
    assert first["id"] != second["id"]
    assert (first["comment"], first["metadata"]) == (None, {})
    read = client.api.fetch_conversation("managed")["feedbacks"]
    assert {one["id"] for one in read} == {first["id"], second["id"]}


def test_what_is_wrong_is_refused_before_it_is_sent(client: Client, reference: Any) -> None:
    """By the same errors as in 0.0.x."""
    manager = client.manager
    with client.raises("InvalidConversationDataException", match="non-empty"):
        manager.rename_conversation(reference, "")
    with client.raises("InvalidConversationDataException", match="cannot be empty"):
        manager.rename_conversation(reference, "   ")
    with client.raises("InvalidConversationDataException", match="255"):
        manager.rename_conversation(reference, "x" * 256)
    with client.raises("InvalidConversationDataException", match="sentiment"):
        manager.submit_feedback(reference, "ecstatic")
    with client.raises("InvalidConversationDataException", match="5000"):
        manager.submit_feedback(reference, "neutral", comment="x" * 5001)
    with client.raises("InvalidConversationDataException", match="dictionary"):
        manager.update_conversation(reference, metadata=["a"])
    with client.raises("ValueError", match="At least one field"):
        manager.update_conversation(reference)
    assert manager.rename_conversation(reference, "x" * 255)["name"] == "x" * 255
    assert manager.submit_feedback(reference, "neutral", "x" * 5000)["comment"] == "x" * 5000


@pytest.mark.parametrize("nothing", [None, "", 0])
def test_no_conversation_is_refused_before_it_is_asked_for(client: Client, nothing: Any) -> None:
    """Nothing names nothing."""
    for call in (
        lambda: client.manager.rename_conversation(nothing, "N"),
        lambda: client.manager.mark_conversation(nothing, True),
        lambda: client.manager.update_conversation(nothing, name="N"),
        lambda: client.manager.delete_conversation(nothing),
        lambda: client.manager.submit_feedback(nothing, "positive"),
    ):
        with client.raises("ValueError", match="conversation_id is required"):
            call()
