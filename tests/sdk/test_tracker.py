"""Recording: what is sent, in which order, and what is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from agentsight import ConversationTracker
from agentsight.enums import Sender
from agentsight.exceptions import (
    NoDataToSendException,
)
from tests.sdk.conftest import World
from tests.sdk.support import CUT, KEY, Answer, ScriptServer, Seen, store_all

MakeTracker = Callable[..., ConversationTracker]


def contents(seen: Seen) -> list[str]:
    """Return the messages of a batch."""
    return [item["content"] for item in seen.json["items"] if item["type"] == "message"]


def test_everything_tracked_goes_out_in_one_request_in_order(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """One call, one request, one transaction."""
    tracker.get_or_create_conversation("conv-1", customer_id="ada", metadata={"plan": "pro"})
    tracker.track_human_message("hello", metadata={"n": 1})
    tracker.track_action("search", duration_ms=12, tools_used={"q": "x"}, error_msg="none")
    tracker.track_button("choice", "Yes", "yes")
    tracker.track_attachments([{"filename": "a.txt", "data": b"abc"}], sender=Sender.AGENT)
    tracker.track_agent_message("bye")
    tracker.track_token_usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    result = tracker.send_tracked_data()

    [seen] = server.seen
    assert (seen.method, seen.path) == ("POST", "/api/v1/batch/")
    assert seen.headers["authorization"] == f"Api-Key {KEY}"
    batch = seen.json
    assert (
        batch["conversation"].items()
        >= {
            "conversation_id": "conv-1",
            "customer_id": "ada",
            "environment": "development",
            "metadata": {"plan": "pro"},
            "is_used": True,
        }.items()
    )
    kinds = [item["type"] for item in batch["items"]]
    assert kinds == ["message", "action", "button", "attachments", "message", "usage"]
    assert batch["items"][0]["metadata"] == {"n": 1}
    assert batch["items"][1]["error_message"] == "none"
    assert batch["items"][3]["sender"] == "agent"
    assert batch["items"][5]["total_tokens"] == 7
    assert len({item["item_key"] for item in batch["items"]}) == 6
    assert [(item["index"], item["type"], item["success"]) for item in result["items"]] == [
        (0, "conversation", True),
        (1, "question", True),
        (2, "action", True),
        (3, "button", True),
        (4, "attachments", True),
        (5, "answer", True),
        (6, "action", True),
    ]
    assert result["items"][0]["response"]["id"] == 42
    assert result["summary"] == {
        "questions": 1,
        "answers": 1,
        "attachments": 1,
        "actions": 2,
        "buttons": 1,
        "errors": 0,
    }


def test_nothing_is_sent_twice(tracker: ConversationTracker, server: ScriptServer) -> None:
    """What was stored is gone from the queue."""
    tracker.get_or_create_conversation("c")
    tracker.send_tracked_data()
    with pytest.raises(NoDataToSendException):
        tracker.send_tracked_data()
    assert len(server.seen) == 1


def test_files_are_streamed_as_parts_that_their_items_name(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """The bytes arrive as they are, under the names their items give."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message(
        "see",
        attachments=[
            {"filename": 'nö "1".png', "mime_type": "image/png", "data": b"\x00\r\n--\xff"},
            {"filename": "b.txt", "mime_type": "text/plain", "data": "aGVsbG8="},
        ],
    )
    tracker.send_tracked_data()
    parts = {name: (content, kind) for name, _, content, kind in server.seen[0].parts}
    files = server.seen[0].json["items"][0]["attachments"]
    assert [file["filename"] for file in files] == ['nö "1".png', "b.txt"]
    assert [parts[file["part"]] for file in files] == [
        (b"\x00\r\n--\xff", "image/png"),
        (b"hello", "text/plain"),
    ]


def test_a_large_batch_of_text_is_compressed(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """Text shrinks to a fraction."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("word " * 10_000)
    tracker.send_tracked_data()
    assert server.seen[0].headers["content-encoding"] == "gzip"
    assert len(server.seen[0].body) < 1000
    assert contents(server.seen[0]) == ["word " * 10_000]


def test_a_retry_sends_the_same_keys(
    tracker: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """The server recognises what it has already stored."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi", attachments=[b"data"])
    server.answers = [CUT, Answer(503, {"detail": "busy", "code": "busy"}), Answer(200, short=True)]
    result = tracker.send_tracked_data()
    assert result["summary"]["errors"] == 0
    assert len(server.seen) == 4
    assert len({str(seen.json) for seen in server.seen}) == 1
    assert [seen.parts[1][2] for seen in server.seen] == [b"data"] * 4
    assert len(world.slept) == 3


def test_what_is_not_delivered_stays_in_order_and_goes_out_next_time(
    tracker: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """The published client forgot everything before it sent it."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("one")
    tracker.track_token_usage(total_tokens=5)
    server.answers = [Answer(500, {"detail": "no", "code": "internal_error"})] * 4
    failed = tracker.send_tracked_data()
    assert [item["success"] for item in failed["items"]] == [False, False, False]
    assert failed["items"][1]["error"] == "API error for question (500): no"
    assert failed["summary"]["errors"] == 3
    tracker.track_agent_message("two")
    tracker.track_token_usage(total_tokens=1)
    world.now += 5
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    items = server.seen[-1].json["items"]
    assert contents(server.seen[-1]) == ["one", "two"]
    assert [item["total_tokens"] for item in items if item["type"] == "usage"] == [5, 1]


def test_an_unreachable_server_is_told_in_the_result_and_nothing_is_lost(world: World) -> None:
    """Per-item failures never raise."""
    with ScriptServer() as server:
        url = server.url
    tracker = ConversationTracker(KEY, endpoint=url)
    tracker.runtime = world.runtime
    tracker.get_or_create_conversation("c")
    result = tracker.send_tracked_data()
    error = result["items"][0]["error"]
    assert f"ConnectError: connection refused by {url}: is the server running?" in error
    assert "AGENTSIGHT_API_ENDPOINT or endpoint=" in error
    assert tracker.n_waiting == 1
    with pytest.warns(ResourceWarning, match="1 tracked items were never delivered"):
        tracker.close()


def test_an_item_that_is_refused_for_ever_is_set_aside_once_and_loudly(
    tracker: ConversationTracker, server: ScriptServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It must never block the rest."""

    def refuse_bad(seen: Seen) -> Answer:
        bad = [
            {"index": i, "item_key": item["item_key"], "code": "invalid", "detail": "bad content"}
            for i, item in enumerate(seen.json["items"])
            if item.get("content") == "bad"
        ]
        if bad:
            return Answer(400, {"detail": "1 item", "code": "invalid", "items": bad})
        return store_all(seen)

    server.script = refuse_bad
    tracker.get_or_create_conversation("c")
    for text in ("one", "bad", "two"):
        tracker.track_human_message(text)
    with caplog.at_level(logging.ERROR, "agentsight"):
        result = tracker.send_tracked_data()
    assert [item["success"] for item in result["items"]] == [True, True, False, True]
    assert result["items"][2]["error"] == "API error for question (400): bad content"
    assert len(server.seen) == 2
    assert contents(server.seen[1]) == ["one", "two"]
    assert tracker.n_waiting == 0
    assert len([r for r in caplog.records if "set aside" in r.message]) == 1


def test_a_conversation_s_refused_details_do_not_block_its_messages(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """A refusal that names no item is first tried without what was said of the conversation."""

    def refuse_names(seen: Seen) -> Answer:
        if "name" in seen.json["conversation"]:
            return Answer(400, {"detail": "name: too long", "code": "invalid"})
        return store_all(seen)

    server.script = refuse_names
    tracker.get_or_create_conversation("c", name="x" * 300)
    tracker.track_human_message("hi")
    result = tracker.send_tracked_data()
    assert [item["success"] for item in result["items"]] == [False, True]
    assert server.seen[1].json["conversation"] == {
        "conversation_id": "c",
        "environment": "development",  # without it, the server would take production
    }


def test_a_refusal_that_names_nothing_is_narrowed_down(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """413 without names: the batch is halved until the culprit stands alone."""

    def refuse_large(seen: Seen) -> Answer:
        if "large" in contents(seen):
            return Answer(413, {"detail": "too much", "code": "too_large"})
        return store_all(seen)

    server.script = refuse_large
    tracker.get_or_create_conversation("c")
    for text in ("one", "two", "large", "three", "four"):
        tracker.track_human_message(text)
    result = tracker.send_tracked_data()
    assert [item["success"] for item in result["items"]] == [True, True, True, False, True, True]
    assert tracker.n_waiting == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, {"detail": "Invalid API key.", "code": "invalid_key"}),
        Answer(403, {"detail": "read only", "code": "permission_denied"}),
        Answer(400, b"<html>a proxy</html>"),
        Answer(404, b"<html>a proxy</html>"),
        Answer(404, {"detail": "Not found.", "code": "not_found"}),
        Answer(405, {"detail": "Method not allowed.", "code": "method_not_allowed"}),
        Answer(413, b"<html>a proxy</html>"),
        Answer(302, b"", (("Location", "/elsewhere/"),)),
        Answer(202, {}),
        Answer(200, b"<html>welcome</html>"),
        Answer(200, {"ok": True}),
        Answer(200, [1]),
    ],
)
def test_what_is_not_the_items_fault_keeps_the_items(
    tracker: ConversationTracker, server: ScriptServer, answer: Answer
) -> None:
    """A wrong key, a proxy or a wrong address can be mended; the items wait for it."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi")
    server.answers = [answer] * 2
    result = tracker.send_tracked_data()
    assert [item["success"] for item in result["items"]] == [False, False]
    assert tracker.n_waiting == 2
    server.answers = []
    assert tracker.send_tracked_data()["summary"]["errors"] == 0


@pytest.mark.parametrize("status", [404, 405])
def test_an_endpoint_with_a_path_too_many_is_named(
    server: ScriptServer, world: World, status: int
) -> None:
    """Nobody reads "Not found." and thinks of the endpoint."""
    server.script = lambda _: Answer(status, {"detail": "Not found.", "code": "not_found"})
    endpoint = server.url.replace("http://", "http://user:secret@") + "/api"
    tracker = ConversationTracker(KEY, endpoint=endpoint)
    tracker.runtime = world.runtime
    tracker.get_or_create_conversation("c")
    error = tracker.send_tracked_data()["items"][0]["error"]
    with pytest.warns(ResourceWarning, match="never delivered"):
        tracker.close()
    assert f"is the endpoint {server.url}/api right?" in error
    assert "secret" not in error


def test_an_endpoint_that_is_no_address_is_told_in_the_result(world: World) -> None:
    """Per-item failures never raise, whatever fails."""
    tracker = ConversationTracker(KEY, endpoint="http://[::1")
    tracker.runtime = world.runtime
    tracker.get_or_create_conversation("c")
    error = tracker.send_tracked_data()["items"][0]["error"]
    assert "InvalidURL" in error
    assert "http://[::1" in error
    with pytest.warns(ResourceWarning, match="never delivered"):
        tracker.close()


def too_many_environments(seen: Seen) -> Answer:
    """Answer as the server does to an agent's twenty-first environment."""
    if seen.json["conversation"].get("environment") == "feature-21":
        reason = "The agent already has 20 environments; use one of them."
        body = {"detail": reason, "code": "too_many_environments", "environment": [reason]}
        return Answer(400, body)
    return store_all(seen)


def test_a_refused_environment_costs_neither_messages_nor_other_details(
    make_tracker: MakeTracker, server: ScriptServer, caplog: pytest.LogCaptureFixture
) -> None:
    """And it never means production: development stands in for it, loudly."""
    server.script = too_many_environments
    tracker = make_tracker(environment="feature-21")
    tracker.get_or_create_conversation("c", customer_id="ada", metadata={"plan": "pro"})
    tracker.track_human_message("hi")
    with caplog.at_level(logging.ERROR, "agentsight"):
        report = tracker.send_tracked_data()
    assert [item["success"] for item in report["items"]] == [True, True]
    [field] = report["items"][0]["fields_refused"]
    assert field["field"] == "environment"
    assert "already has 20 environments" in field["error"]
    assert report["summary"]["errors"] == 1
    said = server.seen[1].json["conversation"]
    assert (said["environment"], said["customer_id"]) == ("development", "ada")
    assert said["metadata"] == {"plan": "pro"}
    assert contents(server.seen[1]) == ["hi"]
    assert "a detail of a conversation is refused" in caplog.text
    tracker.track_agent_message("again")  # nothing opens it here, only the settings say where
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert contents(server.seen[-1]) == ["again"]


def test_a_refused_detail_of_any_name_is_left_out_alone(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """The rest of what is known of the conversation is kept."""

    def refuse(seen: Seen) -> Answer:
        said = seen.json["conversation"]
        wrong = {name: ["Too long."] for name in ("name", "device") if name in said}
        if wrong:
            return Answer(400, {"detail": "no", "code": "invalid", **wrong})
        return store_all(seen)

    server.script = refuse
    tracker.get_or_create_conversation("c", name="n", device="d", source="web")
    report = tracker.send_tracked_data()
    assert [one["field"] for one in report["items"][0]["fields_refused"]] == ["device", "name"]
    assert server.seen[-1].json["conversation"]["source"] == "web"
    assert len(server.seen) == 2


def test_retry_after_holds_for_the_next_send_too(
    tracker: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """A server that asks for an hour is left alone for an hour, and the bot does not wait."""
    busy = {"detail": "busy", "code": "busy"}
    server.answers = [Answer(429, busy, (("Retry-After", "3600"),))]
    tracker.get_or_create_conversation("c")
    tracker.send_tracked_data()
    result = tracker.send_tracked_data()
    assert "asked to wait 3600 s" in result["items"][0]["error"]
    assert (len(server.seen), world.slept) == (1, [])
    world.now += 3601
    assert tracker.send_tracked_data()["summary"]["errors"] == 0


def test_nobody_is_left_alone_for_years(
    tracker: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """A Retry-After that is a slip, of a proxy perhaps, counts as an hour."""
    server.answers = [Answer(503, b"", (("Retry-After", "999999999"),))]
    tracker.get_or_create_conversation("c")
    tracker.send_tracked_data()
    world.now += 3601
    assert tracker.send_tracked_data()["summary"]["errors"] == 0


def test_more_files_than_a_request_may_have_go_out_in_several_in_order(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """Limits are kept without losing the order."""
    tracker.get_or_create_conversation("c")
    for i in range(3):
        tracker.track_human_message(f"m{i}", attachments=[b"x"] * 60)
    tracker.send_tracked_data()
    assert [contents(seen) for seen in server.seen] == [["m0"], ["m1"], ["m2"]]
