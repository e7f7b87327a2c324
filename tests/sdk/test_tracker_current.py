"""Recording: which conversation is meant, what raises, what is told of what waits."""

from __future__ import annotations

import asyncio
import math
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentsight import ConversationTracker
from agentsight.enums import Environment
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
from tests.sdk.support import CUT, KEY, Answer, ScriptServer, Seen

MakeTracker = Callable[..., ConversationTracker]


def contents(seen: Seen) -> list[str]:
    """Return the messages of a batch."""
    return [item["content"] for item in seen.json["items"] if item["type"] == "message"]


# --- Which conversation ------------------------------------------------------------------------


def test_threads_never_mix(make_tracker: MakeTracker, server: ScriptServer) -> None:
    """In the published client A's message was delivered into B's conversation."""
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
    """The published client could not clear it."""
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
    tracker: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """A visit is worth as much as a message."""
    server.answers = [CUT] * 4
    tracker.initialize_conversation("visit")
    world.now += 5
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
    """As in the published client, but an Enum works."""
    tracker = make_tracker(environment=Environment.PRODUCTION)
    tracker.get_or_create_conversation("c", environment="development")
    tracker.send_tracked_data()
    assert server.seen[0].json["conversation"]["environment"] == "production"


def test_what_is_said_first_of_a_conversation_counts(
    tracker: ConversationTracker, server: ScriptServer, world: World
) -> None:
    """As on the server: existing values are never overwritten, `is_used` only rises."""
    server.answers = [CUT] * 4
    tracker.initialize_conversation("c", name="first", metadata={})
    tracker.get_or_create_conversation("c", name="second", device="mobile", metadata={"a": 1})
    world.now += 5
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
        (ValueError, lambda: tracker.get_or_create_conversation("c" * 256)),
        (ValueError, lambda: tracker.track_token_usage(2**53)),
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


@pytest.mark.parametrize("duration_ms", [-5, "abc", True, math.inf, math.nan, 1e15, [], "-1"])
def test_a_duration_that_is_none_raises_at_the_call(
    tracker: ConversationTracker, duration_ms: Any
) -> None:
    """The server would refuse the action, when nobody looks any more."""
    tracker.get_or_create_conversation("c")
    with pytest.raises(ValueError, match=r"duration_ms must be a number of milliseconds from 0"):
        tracker.track_action("search", duration_ms=duration_ms)
    assert tracker.n_waiting == 1


def nested(depth: int) -> Any:
    """Return an object that is so many deep and ends in a number."""
    return 1 if depth == 0 else {"a": nested(depth - 1)}


LARGE = "ä" * (2**19) + "x"


@pytest.mark.parametrize(
    ("call", "limit"),
    [
        (lambda t: t.track_human_message(LARGE), "1048576"),
        (lambda t: t.track_agent_message(LARGE), "1048576"),
        (lambda t: t.track_action("a", response=LARGE), "response has over 1048576"),
        (lambda t: t.track_action("a", response=[LARGE]), "response has over 1048576"),
        (lambda t: t.track_action("a", error_msg=LARGE), "error_msg has over 1048576"),
        (lambda t: t.track_action("a" * 256), "256 characters; at most 255"),
        (lambda t: t.track_action("a", tools_used={"q": "y" * 2**16}), r"tools_used .*65536"),
        (lambda t: t.track_action("a", tools_used=nested(21)), "tools_used is nested over 20"),
        (lambda t: t.track_action("a", metadata=nested(21)), "metadata is nested over 20"),
        (lambda t: t.track_button("e" * 256, "l", "v"), "256 characters; at most 255"),
        (lambda t: t.track_button("e", LARGE, "v"), "label has over 1048576"),
        (lambda t: t.track_button("e", "l", LARGE), "value has over 1048576"),
        (lambda t: t.track_attachments([b"x"], metadata={"q": "y" * 2**16}), "65536"),
        (lambda t: t.get_or_create_conversation("d", metadata=nested(21)), "over 20 deep"),
    ],
)
def test_what_passes_a_limit_raises_at_the_call_and_names_it(
    tracker: ConversationTracker, call: Callable[[ConversationTracker], None], limit: str
) -> None:
    """A ValueError, instead of an item that the server drops."""
    tracker.get_or_create_conversation("c")
    with pytest.raises(ValueError, match=limit):
        call(tracker)
    assert tracker.n_waiting == 1


def test_what_just_keeps_a_limit_is_tracked(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """The limits are the server's, to the byte; a time is kept as it was typed."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message(LARGE[:-1], metadata=nested(20))
    tracker.track_action("a" * 255, "yesterday at noon", "later", 0, nested(20), LARGE[:-1])
    tracker.track_action("text", duration_ms="12.5")  # type: ignore[arg-type]
    tracker.send_tracked_data()
    items = server.seen[0].json["items"]
    assert (items[1]["started_at"], items[1]["ended_at"]) == ("yesterday at noon", "later")
    assert len(items) == 3


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
    """The published client sent its totals again with every send."""
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
    """In the shape of the published client; open files do not break it."""
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
