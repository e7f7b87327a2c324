"""What is tracked is what is read: messages, actions, clicks, counters, conversations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import StartClient
from tests.conformance.files import committed
from tests.conformance.recorder import Recorder
from tests.support.published import Client
from tests.support.server import Agent

REPORT_KEYS = {"index", "type", "timestamp", "response", "success"}


def send(client: Client) -> dict[str, Any]:
    """Send what is tracked; everything must have arrived."""
    report = client.tracker.send_tracked_data()
    assert report["summary"]["errors"] == 0, report
    return report


def contents(conversation: dict[str, Any]) -> list[str]:
    return [message["content"] for message in conversation["messages"]]


# --- Items ----------------------------------------------------------------------------------------


def test_a_conversation_is_read_as_it_was_opened(client: Client) -> None:
    """Every field of A5, by text and by number."""
    given = {
        "customer_id": "customer-1",
        "customer_ip_address": "203.0.113.9",
        "device": "desktop",
        "source": "whatsapp",
        "language": "de",
        "name": "Grüße ☕",
        "environment": "production",
        "metadata": {"plan": "gold", "nested": {"city": "Köln", "n": 1.5, "yes": True, "no": None}},
    }
    client.tracker.get_or_create_conversation("opened", **given)
    client.tracker.track_human_message("Hello")
    send(client)
    conversation = client.api.fetch_conversation("opened")
    assert {name: conversation[name] for name in given} == given
    assert conversation["is_used"] is True
    assert conversation["is_marked"] is False
    assert conversation["is_deleted"] is False
    assert conversation["deleted_at"] is None
    assert conversation["feedbacks"] == []
    assert conversation["started_at"].endswith("Z")
    assert conversation["geo_location"] is None or set(conversation["geo_location"]) == {
        "ip_address", "city", "country", "timezone_name",
    }  # fmt: skip
    assert client.api.fetch_conversation(conversation["id"]) == conversation


def test_messages_are_read_in_the_order_they_were_tracked(client: Client) -> None:
    """Senders, texts of any script, and metadata."""
    client.tracker.get_or_create_conversation("talk")
    client.tracker.track_human_message("Hello", metadata={"a": [1, {"b": "ü"}]})
    client.tracker.track_agent_message("Hi there ☕ 日本語", metadata={"model": "x"})
    client.tracker.track_human_message("line one\nline two\ttab")
    client.tracker.track_agent_message("x" * 100_000)
    send(client)
    messages = client.api.fetch_conversation("talk")["messages"]
    assert [(m["sender"], m["content"]) for m in messages] == [
        ("end_user", "Hello"),
        ("agent", "Hi there ☕ 日本語"),
        ("end_user", "line one\nline two\ttab"),
        ("agent", "x" * 100_000),
    ]
    assert [m["metadata"] for m in messages] == [{"a": [1, {"b": "ü"}]}, {"model": "x"}, {}, {}]
    for message in messages:
        assert message["timestamp"].endswith("Z")
        assert message["action_name"] is None
        assert message["attachments"] == message["action_logs"] == []
        assert message["button"] is None


def test_what_no_database_can_hold_is_mended(client: Client) -> None:
    """NUL and half a surrogate pair become U+FFFD: a refusal would lose the message."""
    client.tracker.get_or_create_conversation("mended", name="nul\0name")
    client.tracker.track_human_message("nul\0 and half \ud83d!", metadata={"k\0": "v\udc00"})
    send(client)
    conversation = client.api.fetch_conversation("mended")
    assert conversation["name"] == "nul\ufffdname"
    assert contents(conversation) == ["nul\ufffd and half \ufffd!"]
    assert conversation["messages"][0]["metadata"] == {"k\ufffd": "v\ufffd"}


def test_an_action_is_read_as_a_message_with_its_log(client: Client) -> None:
    """As A5 shows it; `error_msg` is read as `error_message`."""
    client.tracker.get_or_create_conversation("actions")
    client.tracker.track_action(
        "search",
        started_at="2026-01-31T10:00:00Z",
        ended_at="2026-01-31T10:00:01.500Z",
        duration_ms=1500,
        tools_used={"query": "latte"},
        response='{"hits": 3}',
        error_msg="slow",
        metadata={"try": 1},
    )
    client.tracker.track_action("bare")
    send(client)
    full, bare = client.api.fetch_conversation("actions")["messages"]
    assert (full["sender"], full["content"], full["action_name"]) == (
        "agent",
        "Action search performed",
        "search",
    )
    (log,) = full["action_logs"]
    expected = {
        "started_at": "2026-01-31T10:00:00Z",
        "ended_at": "2026-01-31T10:00:01.500000Z",
        "duration_ms": 1500,
        "tools_used": {"query": "latte"},
        "response": '{"hits": 3}',
        "error_message": "slow",
        "metadata": {"try": 1},
    }
    assert {name: log[name] for name in expected} == expected
    assert isinstance(log["id"], int)
    assert isinstance(log["duration_ms"], int)
    assert bare["content"] == "Action bare performed"
    assert bare["action_logs"][0]["error_message"] == ""


def test_a_click_is_read_with_its_button(client: Client) -> None:
    """Event, label, value and metadata."""
    client.tracker.get_or_create_conversation("clicks")
    client.tracker.track_button("choose", "Large", "size-l", metadata={"row": 2})
    send(client)
    (message,) = client.api.fetch_conversation("clicks")["messages"]
    button = message["button"]
    assert isinstance(button.pop("id"), int)
    assert button == {
        "button_event": "choose",
        "label": "Large",
        "value": "size-l",
        "metadata": {"row": 2},
    }


def test_token_usage_is_kept_beside_the_messages(client: Client) -> None:
    """The counters add up before a send; they are no message."""
    client.tracker.get_or_create_conversation("tokens")
    assert client.tracker.get_token_usage() == {}
    client.tracker.track_human_message("Hello")
    client.tracker.track_token_usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
    client.tracker.track_token_usage(10, 5, 15, 7)
    counters = {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "embedding_tokens": 7,
    }
    assert client.tracker.get_token_usage() == counters
    client.tracker.track_agent_message("Hi")
    report = send(client)
    assert report["summary"]["actions"] == 1
    conversation = client.api.fetch_conversation("tokens")
    assert contents(conversation) == ["Hello", "Hi"]
    (usage,) = conversation["token_usage"]
    assert {name: usage[name] for name in counters} == counters
    if client.is_ours:  # A8.8: the counters of 0.0.x are never reset and go out with every send
        assert usage["basis"] == "delta"
        assert set(client.tracker.get_token_usage().values()) == {0}
    else:
        assert usage["basis"] == "unknown"
        assert client.tracker.get_token_usage() == counters


# --- The report of a send -------------------------------------------------------------------------


def test_the_report_tells_of_every_item_in_order(client: Client) -> None:
    """index, type, timestamp, response and success; and how many of each."""
    client.tracker.get_or_create_conversation("report")
    client.tracker.track_human_message("One", committed("base64", "note.txt"))
    client.tracker.track_agent_message("Two")
    client.tracker.track_attachments(committed("base64", "note.txt"))
    client.tracker.track_action("search")
    client.tracker.track_button("e", "l", "v")
    summary = client.tracker.get_tracked_data_summary()
    kinds = ["conversation", "question", "answer", "attachments", "action", "button"]
    assert [item["type"] for item in summary["items"]] == kinds
    assert [set(item) for item in summary["items"]] == [
        {"type", "timestamp", "data", "index", "preview"}
    ] * 6
    assert summary["conversation_id"] == "report"
    assert summary["summary"] == {
        "conversation": 1,
        "questions": 1,
        "answers": 1,
        "attachments": 1,
        "actions": 1,
        "buttons": 1,
        "total": 6,
    }
    report = send(client)
    assert [item["type"] for item in report["items"]] == kinds
    assert [item["index"] for item in report["items"]] == list(range(6))
    for item in report["items"]:
        assert set(item) == REPORT_KEYS
        assert item["success"] is True
    assert all(isinstance(item["response"]["id"], int) for item in report["items"][:3])
    assert report["summary"] == {
        "questions": 1,
        "answers": 1,
        "attachments": 1,
        "actions": 1,
        "buttons": 1,
        "errors": 0,
    }


def test_nothing_tracked_is_said(client: Client) -> None:
    """Before, and after everything was sent."""
    client.tracker.get_or_create_conversation("nothing")
    client.tracker.track_human_message("One")
    send(client)
    with client.raises("NoDataToSendException"):
        client.tracker.send_tracked_data()


def test_bad_arguments_are_refused_at_the_call(client: Client) -> None:
    """As 0.0.x refuses them, by the same errors."""
    client.tracker.get_or_create_conversation("arguments")
    with client.raises("InvalidQuestionDataException"):
        client.tracker.track_human_message("")
    with client.raises("InvalidAnswerDataException"):
        client.tracker.track_agent_message("")
    with client.raises("InvalidConversationDataException"):
        client.tracker.track_action("")
    with client.raises("InvalidConversationDataException"):
        client.tracker.track_button("", "label", "value")
    with client.raises("InvalidAttachmentException"):
        client.tracker.track_attachments([])
    with client.raises("InvalidAttachmentException"):
        client.tracker.track_attachments(
            [{"filename": "a.txt", "mime_type": "text/plain", "data": "%%% no base64"}]
        )
    with client.raises("MissingConversationIdException"):
        client.tracker.initialize_conversation("")
    if client.is_ours:  # 0.0.x says so only when it sends
        with client.raises("MissingConversationIdException"):
            client.tracker.get_or_create_conversation("")
        with client.raises("InvalidConversationDataException"):
            client.tracker.track_human_message("Hello", metadata=["no", "object"])


# --- Several sends by one process -----------------------------------------------------------------


def test_the_second_send_of_a_process_finds_its_conversation(
    agent: Agent, start_client: StartClient, recorder: Recorder
) -> None:
    """0.0.x forgets the number after a send: from then on only the business id says which."""
    client = start_client(agent.write_key, recorder.url)
    client.tracker.get_or_create_conversation("long")
    for n in range(3):
        client.tracker.track_human_message(f"Question {n}", committed("base64", "note.txt"))
        client.tracker.track_agent_message(f"Answer {n}", committed("base64", "orders.csv"))
        client.tracker.track_agent_message(
            f"More {n}", committed("form_data", "policy.md"), "form_data"
        )
        client.tracker.track_action(f"action-{n}")
        client.tracker.track_button("e", f"Button {n}", "v")
        client.tracker.track_attachments(committed("base64", "sample.mp3"), "agent")
        send(client)
    conversation = client.api.fetch_conversation("long")
    assert contents(conversation) == [
        text
        for n in range(3)
        for text in (
            f"Question {n}",
            f"Answer {n}",
            f"More {n}",
            f"Action action-{n} performed",
            f"Button {n}",
            "[Attachments]",
        )
    ]
    answer = client.api.fetch_conversation_attachments("long")
    names = [[a["filename"] for a in m["attachments"]] for m in answer["messages"]]
    assert names == [["note.txt"], ["orders.csv"], ["policy.md"], ["sample.mp3"]] * 3
    assert client.api.fetch_conversations()["count"] == 1
    if not client.is_ours:  # proof that the hard case was met: A3.7, A8.6
        later = [one.json for one in recorder.posts("/api/track/")[3:]]
        assert [body["conversation"] for body in later] == [None] * 6
        bodies = [one.body for one in recorder.posts("/api/attachments/")]
        linked = [json.loads(body) for body in bodies if b'"message":' in body]
        said = [(body["conversation"], body["conversation_id"]) for body in linked[-2:]]
        assert said == [("None", "long"), ("None", "None")]


def test_standalone_form_files_of_a_second_send(client: Client) -> None:
    """0.0.x then says nothing of their conversation: refused, as it cannot be known."""
    client.tracker.get_or_create_conversation("unroutable")
    client.tracker.track_human_message("First")
    send(client)
    client.tracker.track_attachments(committed("form_data", "note.txt"), mode="form_data")
    report = client.tracker.send_tracked_data()
    if client.is_ours:  # A8.14: ours always names the conversation
        assert report["summary"]["errors"] == 0
    else:
        assert report["items"][0]["error"] == (
            "API error for attachments (400): conversation: This field is required."
        )


def test_two_conversations_of_one_process(client: Client) -> None:
    """The one opened last is the current one; the other keeps what it has."""
    client.tracker.get_or_create_conversation("one")
    client.tracker.track_human_message("In one")
    send(client)
    client.tracker.get_or_create_conversation("two")
    client.tracker.track_human_message("In two")
    send(client)
    client.tracker.configure(conversation_id="one")
    client.tracker.track_agent_message("One again")
    send(client)
    assert contents(client.api.fetch_conversation("one")) == ["In one", "One again"]
    assert contents(client.api.fetch_conversation("two")) == ["In two"]


def test_a_conversation_named_by_configuration_needs_no_opening(
    agent: Agent, start_client: StartClient
) -> None:
    """By the environment or by configure; the first item makes it."""
    client = start_client(agent.write_key, AGENTSIGHT_CONVERSATION_ID="from-environment")
    client.tracker.track_human_message("Hello")
    send(client)
    client.tracker.configure(conversation_id="from-configure")
    client.tracker.track_human_message("Hello again")
    send(client)
    first = client.api.fetch_conversation("from-environment")
    assert contents(first) == ["Hello"]
    assert first["is_used"] is True
    assert contents(client.api.fetch_conversation("from-configure")) == ["Hello again"]


# --- Visits, and opening again --------------------------------------------------------------------


def test_a_visit_becomes_an_interaction_and_stays_one(client: Client) -> None:
    """`is_used` only rises."""
    client.tracker.initialize_conversation("visit", device="mobile")
    visited = client.api.fetch_conversation("visit")
    assert (visited["is_used"], visited["device"]) == (False, "mobile")
    assert visited["messages"] == []
    client.tracker.get_or_create_conversation("visit")
    client.tracker.track_human_message("Hello")
    send(client)
    assert client.api.fetch_conversation("visit")["is_used"] is True
    client.tracker.initialize_conversation("visit")
    assert client.api.fetch_conversation("visit")["is_used"] is True


def test_opening_again_fills_and_never_overwrites(client: Client) -> None:
    """What is known stays, what was empty is learned."""
    client.tracker.initialize_conversation("again", customer_id="c-1", metadata={"a": 1})
    client.tracker.initialize_conversation(
        "again", customer_id="c-2", device="tablet", name="Named", metadata={"b": 2}
    )
    conversation = client.api.fetch_conversation("again")
    got = {name: conversation[name] for name in ("customer_id", "device", "name", "metadata")}
    assert got == {"customer_id": "c-1", "device": "tablet", "name": "Named", "metadata": {"a": 1}}


def test_an_id_may_be_a_number(client: Client) -> None:
    """0.0.x sends it as a JSON number; it is the business id all the same."""
    client.tracker.initialize_conversation(4711)
    assert client.api.fetch_conversation("4711")["conversation_id"] == "4711"


@pytest.mark.parametrize("conversation_id", ["a b/c?d&e=f#g%", "Grüße/日本語", " padded ", "0"])
def test_an_id_may_be_any_text(client: Client, conversation_id: str) -> None:
    """It travels in queries and bodies, and is never taken apart."""
    client.tracker.get_or_create_conversation(conversation_id)
    client.tracker.track_human_message("Hello", committed("base64", "note.txt"))
    send(client)
    answer = client.api.fetch_conversation_attachments(conversation_id)
    assert answer["conversation_id"] == conversation_id
    assert answer["total_attachments"] == 1
    assert client.manager.rename_conversation(conversation_id, "Found")["name"] == "Found"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("development", "development"), ("production", "production"), ("prod", "production"),
     (" Dev ", "development"), ("staging-eu", "staging-eu")],
)  # fmt: skip
def test_an_environment_is_taken_as_it_is_meant(client: Client, given: str, kept: str) -> None:
    """Unknown ones become the agent's own: a refusal would lose messages."""
    client.tracker.initialize_conversation("environment", environment=given)
    assert client.api.fetch_conversation("environment")["environment"] == kept
    assert client.api.fetch_conversations(environment=kept)["count"] == 1


def test_the_environment_variable_wins(agent: Agent, start_client: StartClient) -> None:
    """Who deploys decides, not the code."""
    client = start_client(agent.write_key, AGENTSIGHT_ENVIRONMENT="production")
    client.tracker.initialize_conversation("deployed", environment="development")
    assert client.api.fetch_conversation("deployed")["environment"] == "production"


def test_open_files_and_paths_go_in(client: Client) -> None:
    """Ours takes them; 0.0.x cannot (A8.7), so there is nothing to compare."""
    if not client.is_ours:
        return
    from tests.conformance.files import FOLDER
    from tests.support.published import opened

    client.tracker.get_or_create_conversation("paths")
    path = FOLDER / "sample.pdf"
    client.tracker.track_human_message("A path", [path])
    client.tracker.track_human_message("A file", [opened(path)])
    client.tracker.track_human_message("Bytes", [{"data": b"hello", "filename": "a.txt"}])
    send(client)
    answer = client.api.fetch_conversation_attachments("paths")
    got = [(a["filename"], a["mime_type"], a["size_bytes"]) for a in answer["attachments"]]
    pdf = ("sample.pdf", "application/pdf", path.stat().st_size)
    assert got == [pdf, pdf, ("a.txt", "text/plain", 5)]
