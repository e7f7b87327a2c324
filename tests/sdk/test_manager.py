"""Changing conversations: their requests, and what is refused before they go out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentsight import ConversationManager
from agentsight.enums import Sentiment
from agentsight.exceptions import (
    ConversationNetworkException,
    InvalidConversationDataException,
    NotFoundException,
)
from tests.sdk.support import CUT, Answer, ScriptServer

Call = Callable[[ConversationManager, Any], object]

CALLS: list[tuple[str, str, Any, Call]] = [
    ("PATCH", "rename/", {"name": "New"}, lambda m, c: m.rename_conversation(c, " New ")),
    ("POST", "mark/", {"is_marked": True}, lambda m, c: m.mark_conversation(c, True)),
    ("POST", "mark/", {"is_marked": False}, lambda m, c: m.mark_conversation(c, is_marked=False)),
    ("DELETE", "delete/", None, lambda m, c: m.delete_conversation(c)),
    (
        "PATCH",
        "update/",
        {"name": "N", "is_marked": False, "customer_id": "5", "metadata": {}},
        lambda m, c: m.update_conversation(
            c, name="N ", is_marked=False, customer_id=5, metadata={}
        ),
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "call"), CALLS)
def test_a_database_id_is_used_as_it_is(
    manager: ConversationManager,
    server: ScriptServer,
    method: str,
    path: str,
    body: Any,
    call: Call,
) -> None:
    """One request, and its parsed answer."""
    server.answers = [Answer(200, {"id": 7})]
    assert call(manager, 7) == {"id": 7}
    [seen] = server.seen
    assert (seen.method, seen.path) == (method, f"/api/conversations/7/{path}")
    assert (seen.json if seen.body else None) == body


@pytest.mark.parametrize(("method", "path", "body", "call"), CALLS)
def test_a_conversation_id_is_looked_up(
    manager: ConversationManager,
    server: ScriptServer,
    method: str,
    path: str,
    body: Any,
    call: Call,
) -> None:
    """Text is never a database id."""
    server.answers = [Answer(200, {"id": 9}), Answer(204)]
    assert call(manager, "7") == {}
    assert server.seen[0].params == [("conversation_id", "7")]
    assert server.seen[1].path == f"/api/conversations/9/{path}"


@pytest.mark.parametrize("call", [call for *_, call in CALLS])
def test_an_unknown_conversation_is_not_found(
    manager: ConversationManager, server: ScriptServer, call: Call
) -> None:
    """Nothing is changed."""
    server.answers = [Answer(404, {"detail": "Not found."})]
    with pytest.raises(NotFoundException, match="'nope' not found"):
        call(manager, "nope")
    assert len(server.seen) == 1


def test_feedback_names_the_conversation_by_the_kind_of_its_id(
    manager: ConversationManager, server: ScriptServer
) -> None:
    """Without a lookup; `item_key` makes a repetition harmless."""
    server.answers = [CUT, Answer(201, {"id": 1}), Answer(201, {"id": 2})]
    manager.submit_feedback("conv", Sentiment.POSITIVE, comment="good", metadata={"a": 1})
    manager.submit_feedback(7, "negative")
    bodies = [seen.json for seen in server.seen]
    assert bodies[0] == bodies[1]
    keys = [body.pop("item_key") for body in bodies]
    assert len(set(keys)) == 2
    assert bodies[1] == {
        "sentiment": "positive",
        "conversation_id": "conv",
        "comment": "good",
        "metadata": {"a": 1},
    }
    assert bodies[2] == {"sentiment": "negative", "conversation": 7}
    assert {seen.path for seen in server.seen} == {"/api/conversation-feedbacks/"}


def test_a_deletion_that_may_have_happened_is_not_repeated(
    manager: ConversationManager, server: ScriptServer
) -> None:
    """The second would say 404 of what the first has done."""
    server.answers = [CUT]
    with pytest.raises(ConversationNetworkException):
        manager.delete_conversation(7)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ValueError, lambda m: m.rename_conversation("", "n")),
        (ValueError, lambda m: m.mark_conversation(0, True)),
        (ValueError, lambda m: m.delete_conversation(None)),
        (ValueError, lambda m: m.delete_conversation(True)),
        (ValueError, lambda m: m.submit_feedback("", "positive")),
        (ValueError, lambda m: m.update_conversation(7)),
        (ValueError, lambda m: m.update_conversation("", name="x")),
        (InvalidConversationDataException, lambda m: m.rename_conversation(7, "")),
        (InvalidConversationDataException, lambda m: m.rename_conversation(7, "  ")),
        (InvalidConversationDataException, lambda m: m.rename_conversation(7, 5)),
        (InvalidConversationDataException, lambda m: m.rename_conversation(7, "x" * 256)),
        (InvalidConversationDataException, lambda m: m.update_conversation(7, name=5)),
        (InvalidConversationDataException, lambda m: m.update_conversation(7, name=" ")),
        (InvalidConversationDataException, lambda m: m.update_conversation(7, metadata=[1])),
        (InvalidConversationDataException, lambda m: m.submit_feedback(7, "great")),
        (InvalidConversationDataException, lambda m: m.submit_feedback(7, "neutral", "x" * 5001)),
        (InvalidConversationDataException, lambda m: m.submit_feedback(7, "neutral", 5)),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    manager: ConversationManager,
    server: ScriptServer,
    error: type[Exception],
    call: Callable[[Any], object],
) -> None:
    """With the exception classes of the published client."""
    with pytest.raises(error):
        call(manager)
    assert server.seen == []
