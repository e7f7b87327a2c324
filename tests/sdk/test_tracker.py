"""Recording: what is sent, what is kept, which conversation is meant, and what raises."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentsight import ConversationTracker
from agentsight.enums import Environment, Sender
from agentsight.exceptions import (
    ConversationApiException,
    InvalidAnswerDataException,
    InvalidAttachmentException,
    InvalidConversationDataException,
    InvalidQuestionDataException,
    MissingConversationIdException,
    NoConversationIdException,
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
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """The published client forgot everything before it sent it (WIRE A8.4)."""
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
    assert "ConnectError" in result["items"][0]["error"]
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
    assert server.seen[1].json["conversation"] == {"conversation_id": "c"}


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


def test_more_files_than_a_request_may_have_go_out_in_several_in_order(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """Limits are kept without losing the order."""
    tracker.get_or_create_conversation("c")
    for i in range(3):
        tracker.track_human_message(f"m{i}", attachments=[b"x"] * 60)
    tracker.send_tracked_data()
    assert [contents(seen) for seen in server.seen] == [["m0"], ["m1"], ["m2"]]


# --- Which conversation ------------------------------------------------------------------------


def test_threads_never_mix(make_tracker: MakeTracker, server: ScriptServer) -> None:
    """In the published client A's message was delivered into B's conversation (WIRE A8.3)."""
    tracker = make_tracker()
    barrier = threading.Barrier(8)

    def handle(n: int) -> None:
        tracker.get_or_create_conversation(f"conv-{n}")
        barrier.wait(timeout=30)
        tracker.track_human_message(f"text-{n}")
        barrier.wait(timeout=30)
        tracker.send_tracked_data()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(handle, range(8)))
    for seen in server.seen:
        assert contents(seen) == [
            seen.json["conversation"]["conversation_id"].replace("conv", "text")
        ]
    assert len(server.seen) == 8


@pytest.mark.anyio
async def test_tasks_never_mix(make_tracker: MakeTracker, server: ScriptServer) -> None:
    """Neither with get_or_create nor with a block."""
    tracker = make_tracker()

    async def handle(n: int) -> None:
        if n % 2:
            tracker.get_or_create_conversation(f"conv-{n}")
            await asyncio.sleep(0)
            tracker.track_human_message(f"text-{n}")
        else:
            with tracker.conversation(f"conv-{n}"):
                await asyncio.sleep(0)
                tracker.track_human_message(f"text-{n}")

    await asyncio.gather(*(handle(n) for n in range(10)))
    reports = await asyncio.to_thread(tracker.flush)
    assert len(reports) == 10
    for seen in server.seen:
        assert contents(seen) == [
            seen.json["conversation"]["conversation_id"].replace("conv", "text")
        ]


def test_blocks_nest_and_end(tracker: ConversationTracker, server: ScriptServer) -> None:
    """The innermost counts, and leaving it takes back what was named in it."""
    with tracker.conversation("outer") as same:
        assert same is tracker
        tracker.track_human_message("o1")
        with tracker.conversation("inner"):
            tracker.get_or_create_conversation("named-inside")
            tracker.track_human_message("n1")
        tracker.track_human_message("o2")
    tracker.flush()
    by_id = {seen.json["conversation"]["conversation_id"]: contents(seen) for seen in server.seen}
    assert by_id == {"outer": ["o1", "o2"], "inner": [], "named-inside": ["n1"]}


def test_two_trackers_do_not_share_their_current_conversation(make_tracker: MakeTracker) -> None:
    """Each knows its own."""
    one, two = make_tracker(), make_tracker()
    one.get_or_create_conversation("c")
    with pytest.raises(NoConversationIdException):
        two.track_human_message("hi")


def test_settings_name_a_conversation_where_none_is_open(
    make_tracker: MakeTracker, server: ScriptServer
) -> None:
    """Second in the order."""
    tracker = make_tracker(conversation_id="from-settings")
    tracker.track_human_message("hi")
    tracker.send_tracked_data()
    assert server.seen[0].json["conversation"]["conversation_id"] == "from-settings"
    with tracker.conversation("block"):
        assert tracker.get_tracked_data_summary()["conversation_id"] == "block"


def test_configure_names_and_clears_the_conversation(tracker: ConversationTracker) -> None:
    """The published client could not clear it (WIRE A8.13)."""
    tracker.get_or_create_conversation("a")
    tracker.get_or_create_conversation("b")
    tracker.configure(conversation_id="c")
    assert tracker.get_tracked_data_summary()["conversation_id"] == "c"
    tracker.configure(conversation_id=None)
    with pytest.raises(NoConversationIdException):
        tracker.track_human_message("hi")


def test_the_only_conversation_opened_by_the_process_is_meant_in_other_threads(
    tracker: ConversationTracker,
) -> None:
    """A script with a worker thread works as in the published client; with two it is ambiguous."""
    tracker.get_or_create_conversation("only")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(tracker.track_human_message, "from a thread").result()
        assert tracker.get_tracked_data_summary()["summary"]["questions"] == 1
        tracker.get_or_create_conversation("second")
        with pytest.raises(NoConversationIdException):
            pool.submit(tracker.track_human_message, "whose?").result()


def test_an_item_without_a_conversation_is_kept_for_the_next_one_opened_here(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """The error names the remedies and nothing is lost; other threads' items are left alone."""
    with pytest.raises(NoConversationIdException, match=r"tracker\.conversation.*is kept"):
        tracker.track_human_message("early")
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(NoConversationIdException),
    ):
        pool.submit(tracker.track_human_message, "elsewhere").result()
    tracker.track_token_usage(total_tokens=9)
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("late")
    tracker.send_tracked_data()
    assert contents(server.seen[0]) == ["early", "late"]
    assert server.seen[0].json["items"][-1]["total_tokens"] == 9
    assert tracker.n_waiting == 1


def test_sending_without_any_conversation_says_what_is_missing(
    tracker: ConversationTracker,
) -> None:
    """Nothing at all is another error than something without an owner."""
    with pytest.raises(NoDataToSendException):
        tracker.send_tracked_data()
    with pytest.raises(NoConversationIdException):
        tracker.track_button("e", "l", "v")
    with pytest.raises(NoConversationIdException, match="flush"):
        tracker.send_tracked_data()


# --- Opening -----------------------------------------------------------------------------------


def test_initialize_sends_at_once_and_leaves_the_rest(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """A visit is not a use, and is not the current conversation."""
    tracker.get_or_create_conversation("current")
    assert tracker.initialize_conversation("visit", customer_ip_address="192.0.2.1") is None
    [seen] = server.seen
    assert (
        seen.json["conversation"].items()
        >= {
            "conversation_id": "visit",
            "is_used": False,
            "customer_ip_address": "192.0.2.1",
        }.items()
    )
    assert seen.json["items"] == []
    assert tracker.get_tracked_data_summary()["conversation_id"] == "current"
    assert tracker.n_waiting == 1


def test_initialize_keeps_what_the_network_lost(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """A visit is worth as much as a message."""
    server.answers = [CUT] * 4
    tracker.initialize_conversation("visit")
    with tracker.conversation("visit"):
        tracker.send_tracked_data()
    assert server.seen[-1].json["conversation"]["is_used"] is True


def test_initialize_raises_what_the_server_refuses(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """As in the published client."""
    server.answers = [Answer(401, {"detail": "Invalid API key.", "code": "invalid_key"})]
    with pytest.raises(ConversationApiException, match=r"401.*Invalid API key") as caught:
        tracker.initialize_conversation("visit")
    assert caught.value.status_code == 401


@pytest.mark.parametrize("conversation_id", [None, "", "  ", 0])
def test_a_conversation_needs_an_id(tracker: ConversationTracker, conversation_id: Any) -> None:
    """The published client stored under None."""
    with pytest.raises(MissingConversationIdException):
        tracker.get_or_create_conversation(conversation_id)
    with pytest.raises(MissingConversationIdException):
        tracker.initialize_conversation(conversation_id)


def test_the_deployment_s_environment_wins(make_tracker: MakeTracker, server: ScriptServer) -> None:
    """As in the published client, but an Enum works (WIRE A8.12)."""
    tracker = make_tracker(environment=Environment.PRODUCTION)
    tracker.get_or_create_conversation("c", environment="development")
    tracker.send_tracked_data()
    assert server.seen[0].json["conversation"]["environment"] == "production"


def test_what_is_said_first_of_a_conversation_counts(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """As on the server: existing values are never overwritten, `is_used` only rises."""
    server.answers = [CUT] * 4
    tracker.initialize_conversation("c", name="first", metadata={})
    tracker.get_or_create_conversation("c", name="second", device="mobile", metadata={"a": 1})
    tracker.send_tracked_data()
    said = server.seen[-1].json["conversation"]
    assert (said["name"], said["device"], said["metadata"]) == ("first", "mobile", {"a": 1})
    assert said["is_used"] is True
    assert "item_key" not in said


# --- Bad arguments -----------------------------------------------------------------------------


def test_bad_arguments_raise_at_the_call_and_leave_nothing_behind(
    tracker: ConversationTracker,
) -> None:
    """Whoever made the mistake sees it."""
    tracker.get_or_create_conversation("c")
    n_before = tracker.n_waiting
    circle: dict[str, Any] = {}
    circle["self"] = circle
    bad: list[tuple[type[Exception], Callable[[], object]]] = [
        (InvalidQuestionDataException, lambda: tracker.track_human_message("")),
        (InvalidQuestionDataException, lambda: tracker.track_human_message(None)),  # type: ignore[arg-type]
        (InvalidQuestionDataException, lambda: tracker.track_human_message("x" * (2**20 + 1))),
        (InvalidAnswerDataException, lambda: tracker.track_agent_message("  \n")),
        (InvalidAnswerDataException, lambda: tracker.track_agent_message({"a": 1})),  # type: ignore[arg-type]
        (InvalidConversationDataException, lambda: tracker.track_action(" ")),
        (InvalidConversationDataException, lambda: tracker.track_action("a", tools_used=["q"])),  # type: ignore[arg-type]
        (InvalidConversationDataException, lambda: tracker.track_action("a", duration_ms=math.nan)),  # type: ignore[arg-type]
        (InvalidConversationDataException, lambda: tracker.track_button("e", "l", "")),
        (InvalidConversationDataException, lambda: tracker.track_human_message("m", metadata=[1])),  # type: ignore[arg-type]
        (
            InvalidConversationDataException,
            lambda: tracker.track_human_message("m", metadata={"x": math.nan}),
        ),
        (
            InvalidConversationDataException,
            lambda: tracker.track_human_message("m", metadata={"x": object()}),
        ),
        (
            InvalidConversationDataException,
            lambda: tracker.track_human_message("m", metadata={"x": "y" * 70_000}),
        ),
        (
            InvalidConversationDataException,
            lambda: tracker.track_human_message("m", metadata=circle),
        ),
        (ValueError, lambda: tracker.track_human_message("m", [b"x"], attachment_mode="zip")),
        (ValueError, lambda: tracker.track_attachments([b"x"], sender="robot")),
        (InvalidAttachmentException, lambda: tracker.track_attachments([])),
        (ValueError, lambda: tracker.track_token_usage(-1)),
        (ValueError, lambda: tracker.track_token_usage("5")),  # type: ignore[arg-type]
    ]
    for error, call in bad:
        with pytest.raises(error):
            call()
    assert tracker.n_waiting == n_before
    assert tracker.get_token_usage() == {}


def test_half_a_character_is_mended(tracker: ConversationTracker, server: ScriptServer) -> None:
    """A refusal would lose the message; UTF-8 has no form for half a pair."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("a\ud83d b\ud83d\ude00 c\ude00")
    tracker.send_tracked_data()
    assert contents(server.seen[0]) == ["a\ufffd b😀 c\ufffd"]


def test_metadata_is_recorded_as_it_was_at_the_call(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """Changing the object afterwards changes nothing."""
    tracker.get_or_create_conversation("c")
    metadata = {"n": 1}
    tracker.track_human_message("hi", metadata=metadata)
    metadata["n"] = 2
    tracker.send_tracked_data()
    assert server.seen[0].json["items"][0]["metadata"] == {"n": 1}


# --- Tokens, summary, flush, close -------------------------------------------------------------


def test_token_usage_is_sent_once_and_starts_from_zero(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """The published client sent its totals again with every send (WIRE A8.8)."""
    assert tracker.get_token_usage() == {}
    tracker.get_or_create_conversation("c")
    tracker.track_token_usage(1, 2, 3, 4)
    tracker.track_token_usage(10, None, 30)
    counted = {
        "prompt_tokens": 11,
        "completion_tokens": 2,
        "total_tokens": 33,
        "embedding_tokens": 4,
    }
    assert tracker.get_token_usage() == counted
    tracker.send_tracked_data()
    assert server.seen[0].json["items"][0].items() >= counted.items()
    assert tracker.get_token_usage() == dict.fromkeys(counted, 0)
    tracker.track_human_message("again")
    tracker.send_tracked_data()
    assert [item["type"] for item in server.seen[1].json["items"]] == ["message"]


def test_summary_shows_what_waits_without_sending(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """In the shape of the published client; open files do not break it (WIRE A8.7)."""
    tracker.get_or_create_conversation("c", name="N")
    tracker.track_human_message("q" * 200)
    with open(__file__, "rb") as file:
        tracker.track_agent_message("a", attachments=[file])
    tracker.track_attachments([b"1", b"2", b"3", b"4"])
    tracker.track_action("act", response="r")
    tracker.track_button("e", "l", "v")
    summary = tracker.get_tracked_data_summary()
    assert summary["conversation_id"] == "c"
    assert summary["summary"] == {
        "conversation": 1,
        "questions": 1,
        "answers": 1,
        "attachments": 1,
        "actions": 1,
        "buttons": 1,
        "total": 6,
    }
    previews = [item["preview"] for item in summary["items"]]
    assert previews[0]["name"] == "N"
    assert previews[1] == {
        "content_preview": "q" * 100 + "...",
        "sender": "end_user",
        "has_metadata": False,
    }
    assert previews[3]["files"][3] == "... and 1 more"
    assert previews[4]["has_response"] is True
    assert previews[5] == {"label": "l", "value": "v", "event": "e"}
    assert set(summary["items"][0]) == {"type", "timestamp", "data", "index", "preview"}
    assert server.seen == []


def test_flush_sends_every_conversation(tracker: ConversationTracker, server: ScriptServer) -> None:
    """Also from a thread that has none of its own."""
    for name in ("a", "b", "c"):
        with tracker.conversation(name):
            tracker.track_human_message(name)
    assert list(tracker.flush()) == ["a", "b", "c"]
    assert tracker.flush() == {}
    assert len(server.seen) == 3


def test_flush_stops_at_a_server_that_does_not_answer(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """Waiting once is enough."""
    for name in ("a", "b", "c"):
        tracker.get_or_create_conversation(name)
    server.answers = [CUT] * 4
    assert list(tracker.flush()) == ["a"]
    assert tracker.n_waiting == 3


def test_leaving_a_with_sends_what_waits(server: ScriptServer) -> None:
    """`with ConversationTracker(…)` loses nothing."""
    with ConversationTracker(KEY, endpoint=server.url) as tracker:
        tracker.get_or_create_conversation("c")
        tracker.track_human_message("hi")
    assert contents(server.seen[0]) == ["hi"]


def test_a_forgotten_tracker_warns_of_what_it_loses() -> None:
    """Losing is never silent."""
    tracker = ConversationTracker(KEY)
    tracker.get_or_create_conversation("c")
    with pytest.warns(ResourceWarning, match="never delivered"):
        del tracker
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConversationTracker(KEY)


def test_a_key_can_be_changed_between_sends(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """Rotation does not need a restart."""
    tracker.get_or_create_conversation("c")
    tracker.send_tracked_data()
    other = KEY.replace("0123", "aaaa")
    tracker.configure(api_key=other)
    tracker.track_human_message("hi")
    tracker.send_tracked_data()
    assert server.seen[1].headers["authorization"] == f"Api-Key {other}"


def test_concurrent_sends_of_one_conversation_send_each_item_once(
    make_tracker: MakeTracker, server: ScriptServer
) -> None:
    """Whoever comes second finds the rest, or nothing."""
    tracker = make_tracker(conversation_id="c")
    n_items = 400

    def work(n: int) -> None:
        tracker.track_human_message(str(n))
        if n % 5 == 0:
            tracker.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(n_items)))
    tracker.flush()
    sent = [int(text) for seen in server.seen for text in contents(seen)]
    assert sorted(sent) == list(range(n_items))
    assert tracker.n_waiting == 0
