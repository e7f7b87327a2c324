"""Once: whatever is sent again is stored once, and what is tracked twice is stored twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import StartClient
from tests.conformance.files import committed
from tests.conformance.recorder import Recorder
from tests.support.published import Client
from tests.support.server import Agent, LiveServer


@pytest.fixture
def watched(agent: Agent, start_client: StartClient, recorder: Recorder) -> Client:
    """Start a client whose requests are recorded."""
    return start_client(agent.write_key, recorder.url)


def track_everything(client: Client) -> None:
    """Track one of each, in both attachment modes, on both senders, linked and alone."""
    client.tracker.get_or_create_conversation("once", customer_id="c", metadata={"a": 1})
    client.tracker.track_human_message("Question", committed("base64", "note.txt"))
    client.tracker.track_human_message("Form", committed("form_data", "note.txt"), "form_data")
    client.tracker.track_agent_message("Answer", committed("base64", "orders.csv"))
    client.tracker.track_agent_message(
        "More", committed("form_data", "policy.md", "sample.png"), "form_data"
    )
    client.tracker.track_action("search", duration_ms=5, tools_used={"q": 1})
    client.tracker.track_button("e", "Label", "v")
    client.tracker.track_attachments(committed("base64", "sample.pdf"), "agent")
    client.tracker.track_attachments(committed("form_data", "sample.mp3"), mode="form_data")
    client.tracker.track_token_usage(1, 2, 3)


LEARNED = {
    *("detected_mime_type", "width", "height", "pages", "seconds"),
    *("preview_url", "playback_url"),
}
"""What of a file the server finds out in the background, at any moment between two answers."""


def unlearn(value: Any, before: Any) -> Any:
    """Take from an answer what the one before could not know yet, and nothing that it knew."""
    if isinstance(value, dict) and isinstance(before, dict):
        return {
            name: None
            if name in LEARNED and before.get(name, "") is None
            else unlearn(one, before.get(name))
            for name, one in value.items()
        }
    if isinstance(value, list) and isinstance(before, list) and len(value) == len(before):
        return [unlearn(one, other) for one, other in zip(value, before, strict=True)]
    return value


def strip(value: Any) -> Any:
    """Leave out what may change between two answers to the same request."""
    if isinstance(value, dict):
        return {name: strip(one) for name, one in value.items() if name != "status"}
    return [strip(one) for one in value] if isinstance(value, list) else value


def test_every_request_sent_again_changes_nothing(
    watched: Client, recorder: Recorder, server: LiveServer
) -> None:
    """Byte by byte the same body, twice: 200, the first row, and not one row more."""
    track_everything(watched)
    report = watched.tracker.send_tracked_data()
    assert report["summary"]["errors"] == 0, report
    before = watched.api.fetch_conversation("once")
    files_before = watched.api.fetch_conversation_attachments("once")
    assert len(before["messages"]) == 8
    assert files_before["total_attachments"] == 7
    posts = [one for one in recorder.exchanges if one.method == "POST"]
    assert len(posts) == (1 if watched.is_ours else 14)  # A7: one request an item, against one
    for _ in range(2):
        for post in posts:
            repeated = post.again(server)
            assert repeated.status == 200, post
            first = strip(json.loads(post.answer))
            assert unlearn(strip(repeated.json), first) == first
    assert unlearn(watched.api.fetch_conversation("once"), before) == before
    files = watched.api.fetch_conversation_attachments("once")
    assert unlearn(files, files_before) == files_before
    assert watched.api.fetch_conversations()["count"] == 1


@pytest.mark.parametrize("mode", ["base64", "form_data"])
def test_an_answer_lost_on_its_way_stores_nothing_twice(
    watched: Client, recorder: Recorder, mode: str
) -> None:
    """The client hears nothing and sends again, by itself; the server knows it."""
    files = committed("form_data" if mode == "form_data" else "base64", "note.txt")
    watched.tracker.get_or_create_conversation("lost")
    watched.tracker.track_human_message("Do you hear me?", files, mode)
    route = "/api/v1/batch/" if watched.is_ours else "/api/attachments/"
    recorder.lose = [route]
    report = watched.tracker.send_tracked_data()
    assert report["summary"]["errors"] == 0
    assert recorder.lose == []
    assert len(recorder.posts(route)) == 2
    first, second = recorder.posts(route)
    assert (first.status, second.status) in {(201, 200), (200, 200)}
    (message,) = watched.api.fetch_conversation("lost")["messages"]
    assert message["content"] == "Do you hear me?"
    assert len(message["attachments"]) == 1


def test_the_same_words_said_twice_are_two_messages(client: Client) -> None:
    """Equal but for their time: two events. So with files, clicks and actions."""
    client.tracker.get_or_create_conversation("twice")
    for _ in range(2):
        client.tracker.track_human_message("Yes", committed("base64", "note.txt"))
        client.tracker.track_button("e", "Label", "v")
        client.tracker.track_action("search")
        client.tracker.track_attachments(committed("base64", "note.txt"))
    client.tracker.send_tracked_data()
    messages = client.api.fetch_conversation("twice")["messages"]
    assert [m["content"] for m in messages] == [
        "Yes",
        "Label",
        "Action search performed",
        "[Attachments]",
    ] * 2
    answer = client.api.fetch_conversation_attachments("twice")
    assert answer["total_attachments"] == 4
    assert len({file["sha256"] for file in answer["attachments"]}) == 1


def test_a_resend_by_another_agent_is_another_row(
    watched: Client, recorder: Recorder, server: LiveServer
) -> None:
    """Once holds within an agent: no agent can learn what another has stored."""
    watched.tracker.get_or_create_conversation("mine")
    watched.tracker.send_tracked_data()
    (post,) = [one for one in recorder.exchanges if one.method == "POST"]
    stranger = server.make_agent()
    headers = {**post.headers, "Authorization": f"Api-Key {stranger.write_key}"}
    answer = server.ask("POST", post.path, body=post.body, headers=headers)
    assert answer.status in (200, 201)
    theirs = server.get_json("/api/conversations/", key=stranger.write_key)["results"]
    assert [row["conversation_id"] for row in theirs] == ["mine"]
    assert theirs[0]["id"] != watched.api.fetch_conversation("mine")["id"]
