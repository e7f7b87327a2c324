"""What is refused, and what the client's user sees of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import StartClient
from tests.conformance.files import committed
from tests.support.published import Client
from tests.support.server import Agent, LiveServer

UNKNOWN_KEY = "ags_" + "0123456789abcdef" * 2 + "_000000"
ROLE = "This key's role does not allow it: a key of the role 'write' is needed."
INVALID = "This API key is not valid here: check for a slip, or ask for a new one."


def every_call_by(client: Client, reference: Any) -> dict[str, Callable[[], Any]]:
    """Name every call that takes a conversation."""
    return {
        "fetch": lambda: client.api.fetch_conversation(reference),
        "attachments": lambda: client.api.fetch_conversation_attachments(reference),
        "rename": lambda: client.manager.rename_conversation(reference, "N"),
        "mark": lambda: client.manager.mark_conversation(reference, True),
        "update": lambda: client.manager.update_conversation(reference, name="N"),
        "delete": lambda: client.manager.delete_conversation(reference),
        "feedback": lambda: client.manager.submit_feedback(reference, "positive"),
    }


def record(client: Client, conversation_id: str = "there") -> int:
    """Record a conversation with a file; return its database id."""
    client.tracker.get_or_create_conversation(conversation_id)
    client.tracker.track_human_message("Hello", committed("base64", "note.txt"))
    client.tracker.send_tracked_data()
    return client.api.fetch_conversation(conversation_id)["id"]


# --- No such conversation -------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["no-such-id", 999_999_999, 2**70, -1])
def test_what_is_not_there_is_not_found(client: Client, reference: Any) -> None:
    """Every call, by text and by number, however large."""
    record(client)
    for name, call in every_call_by(client, reference).items():
        with client.raises("NotFoundException") as caught:
            call()
        assert caught.value.status_code == 404, name


@pytest.mark.parametrize("by", ["text", "number"])
@pytest.mark.parametrize("whose", ["same client", "other organisation"])
def test_what_is_another_agents_is_not_found(
    client: Client, server: LiveServer, start_client: StartClient, by: str, whose: str
) -> None:
    """In the same words as what is nobody's; and nothing of it is changed."""
    pk = record(client, "secret")
    before = client.api.fetch_conversation(pk)
    carol = server.make_agent() if whose == "same client" else server.make_stranger()
    stranger = start_client(carol.write_key)
    reference = "secret" if by == "text" else pk
    nobodys = "secrex" if by == "text" else 999_999_999
    missing = every_call_by(stranger, nobodys)
    for name, call in every_call_by(stranger, reference).items():
        with stranger.raises("NotFoundException") as refused:
            call()
        with stranger.raises("NotFoundException") as absent:
            missing[name]()
        said = refused.value.message.replace(str(reference), str(nobodys))
        assert said == absent.value.message
    assert stranger.api.fetch_conversations(include_deleted=True)["count"] == 0
    assert client.api.fetch_conversation(pk) == before


def test_the_same_id_of_two_agents_is_two_conversations(
    client: Client, server: LiveServer, start_client: StartClient
) -> None:
    """A business id belongs to its agent."""
    pk = record(client, "shared-name")
    stranger = start_client(server.make_stranger().write_key)
    other_pk = record(stranger, "shared-name")
    assert pk != other_pk
    stranger.manager.delete_conversation("shared-name")
    assert client.api.fetch_conversation("shared-name")["is_deleted"] is False


def test_true_is_no_conversation(client: Client) -> None:
    """`True` is an integer to Python; 0.0.x asks for /True/, ours refuses before it asks."""
    record(client)
    refusal = "ValueError" if client.is_ours else "NotFoundException"
    for name, call in every_call_by(client, True).items():
        if name == "feedback" and not client.is_ours:
            continue  # 0.0.x sends JSON `true`: see test_a_reference_of_a_wrong_kind
        with client.raises(refusal):
            call()


def test_a_reference_of_a_wrong_kind(server: LiveServer, agent: Agent) -> None:
    """`"conversation": true` in a body is nothing that could be found."""
    for value in (True, [1], {"id": 1}, 1.5, "abc", -1, 2**70):
        for path, body in (
            ("/api/conversation-feedbacks/", {"sentiment": "positive"}),
            ("/api/track/", {"content": "x", "sender": "agent"}),
            ("/api/buttons/", {"button_event": "e", "label": "l", "value": "v"}),
            ("/api/action_logs/", {"action_name": "a"}),
        ):
            answer = server.post_json(path, {**body, "conversation": value}, key=agent.write_key)
            assert answer.status in (400, 404), (value, path, answer)
            assert isinstance(answer.json["detail"], str)


# --- Keys -----------------------------------------------------------------------------------------


def test_a_read_key_does_not_write(client: Client, agent: Agent, start_client: StartClient) -> None:
    """403, as the client tells it: typed by the manager, in the report by the tracker."""
    pk = record(client)
    before = client.api.fetch_conversation(pk)
    reader = start_client(agent.read_key)
    calls = every_call_by(reader, pk)
    for name in ("rename", "mark", "update", "delete", "feedback"):
        with reader.raises("ForbiddenException") as caught:
            calls[name]()
        assert (caught.value.status_code, caught.value.message) == (403, ROLE)
    with reader.raises("ConversationApiException") as caught:
        reader.tracker.initialize_conversation("new")
    assert caught.value.status_code == 403
    assert caught.value.message == f"API error for conversation (403): {ROLE}"
    assert caught.value.response_data["code"] == "permission_denied"
    reader.tracker.get_or_create_conversation("there")
    reader.tracker.track_human_message("May I?")
    reader.tracker.track_attachments(committed("form_data", "note.txt"), mode="form_data")
    report = reader.tracker.send_tracked_data()
    assert report["summary"]["errors"] == 3
    for item in report["items"]:
        assert item["success"] is False
        assert item["error"] == f"API error for {item['type']} (403): {ROLE}"
    assert client.api.fetch_conversation(pk) == before
    assert client.api.fetch_conversations()["count"] == 1


def test_an_unknown_key_opens_nothing(client: Client, start_client: StartClient) -> None:
    """401, for every call."""
    pk = record(client)
    nobody = start_client(UNKNOWN_KEY)
    for call in (*every_call_by(nobody, pk).values(), *every_call_by(nobody, "there").values()):
        with nobody.raises("UnauthorizedException") as caught:
            call()
        assert (caught.value.status_code, caught.value.message) == (401, INVALID)
    with nobody.raises("UnauthorizedException"):
        nobody.api.fetch_conversations()
    nobody.tracker.get_or_create_conversation("new")
    nobody.tracker.track_human_message("Hello?")
    report = nobody.tracker.send_tracked_data()
    told = f"API error for question (401): {INVALID}"
    assert [item["error"] for item in report["items"] if item["type"] == "question"] == [told]
    if client.is_ours:  # A8.4: 0.0.x throws away what it could not deliver
        assert nobody.tracker.get_tracked_data_summary()["summary"]["questions"] == 1


def test_a_key_is_not_bound_to_its_case(
    client: Client, agent: Agent, start_client: StartClient
) -> None:
    """Hex is hex."""
    record(client)
    shouted = start_client("ags_" + agent.write_key[4:].upper())
    assert shouted.api.fetch_conversations()["count"] == 1


def test_no_key_and_a_malformed_key_are_said_at_once(start_client: StartClient) -> None:
    """Before anything is asked; 0.0.x says so at import."""
    nameless = start_client(None)
    with nameless.raises("NoApiKeyException"):
        nameless.api.fetch_conversations()
    malformed = start_client("ags_no-key-at-all")
    with malformed.raises("InvalidApiKeyException") as caught:
        malformed.api.fetch_conversations()
    if malformed.is_ours:  # A8.1: 0.0.x prints the key
        assert "no-key-at-all" not in caught.value.message


# --- Bad data -------------------------------------------------------------------------------------


def test_bad_metadata_is_refused_and_the_rest_is_stored(client: Client) -> None:
    """0.0.x sends anything and reports the refusal; ours refuses at the call."""
    client.tracker.get_or_create_conversation("metadata")
    client.tracker.track_human_message("Good")
    if client.is_ours:
        with client.raises("InvalidConversationDataException", match="dictionary"):
            client.tracker.track_human_message("Bad", metadata=["a"])
        assert client.tracker.send_tracked_data()["summary"]["errors"] == 0
    else:
        client.tracker.track_human_message("Bad", metadata=["a"])
        report = client.tracker.send_tracked_data()
        assert report["summary"]["errors"] == 1
        assert report["items"][2]["error"].startswith("API error for question (400): metadata: ")
    messages = client.api.fetch_conversation("metadata")["messages"]
    assert [m["content"] for m in messages] == ["Good"]


def test_one_bad_item_does_not_cost_the_others(client: Client) -> None:
    """A negative duration: 0.0.x sends it and reports the refusal; ours refuses at the call."""
    client.tracker.get_or_create_conversation("mixed")
    client.tracker.track_human_message("Before")
    if client.is_ours:
        with client.raises("InvalidConversationDataException", match="duration_ms"):
            client.tracker.track_action("impossible", duration_ms=-5)
    else:
        client.tracker.track_action("impossible", duration_ms=-5)
    client.tracker.track_agent_message("After")
    report = client.tracker.send_tracked_data()
    refused = [item for item in report["items"] if not item["success"]]
    assert report["summary"]["errors"] == len(refused) == (0 if client.is_ours else 1)
    for item in refused:
        assert item["type"] == "action"
        assert item["error"].startswith("API error for action (400): duration_ms: ")
    messages = client.api.fetch_conversation("mixed")["messages"]
    assert [m["content"] for m in messages] == ["Before", "After"]
    with client.raises("NoDataToSendException"):  # it is not tried for ever
        client.tracker.send_tracked_data()


def test_metadata_past_its_limit_is_refused(client: Client) -> None:
    """413, naming the limit."""
    pk = record(client)
    with client.raises("ConversationApiException", match="max_metadata_bytes") as caught:
        client.manager.update_conversation(pk, metadata={"a": "x" * 70_000})
    assert caught.value.status_code == 413
    assert caught.value.response_data["code"] == "too_large"
    assert client.api.fetch_conversation(pk)["metadata"] == {}


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        ({"started_at_after": "yesterday"}, "started_at_after"),
        ({"metadata": "no pairs"}, "metadata"),
        ({"is_marked": "perhaps"}, "is_marked"),
        ({"full": "half"}, "full"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(
    client: Client, filters: dict[str, Any], field: str
) -> None:
    """400, naming it; a filter that were ignored would answer with too much."""
    with client.raises("ConversationApiException") as caught:
        client.api.fetch_conversations(**filters)
    assert caught.value.status_code == 400
    assert set(caught.value.response_data) >= {"code", "detail", field}
    assert caught.value.message.startswith(f"API error (400): {field}: ")


@pytest.mark.parametrize("name", ["feedback_sentiment", "feedback_source"])
def test_a_choice_that_is_none_is_refused_before_it_is_asked(client: Client, name: str) -> None:
    """ValueError, as in 0.0.x."""
    with client.raises("ValueError", match=name):
        client.api.fetch_conversations(**{name: "whatever"})


@pytest.mark.parametrize("page", [0, 2, 10**9])
def test_a_page_that_is_not_there_is_not_found(client: Client, page: int) -> None:
    """404, so that a loop over pages ends."""
    record(client)
    with client.raises("NotFoundException"):
        client.api.fetch_conversations(page=page)
