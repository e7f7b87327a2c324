"""What code written for 0.0.x reaches below the three clients: HTTPClient, validators, handlers."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from agentsight import ConversationTracker
from agentsight.config import Config
from agentsight.enums import AttachmentMode
from agentsight.exceptions import (
    ConversationApiException,
    InvalidAttachmentException,
    InvalidConversationDataException,
    MissingConversationIdException,
    NotFoundException,
)
from agentsight.http import HTTPClient
from agentsight.token_handlers import set_llamaindex_token_handler
from agentsight.types import TokenHandler
from agentsight.validators import (
    validate_action_data,
    validate_and_process_attachments_flexible,
    validate_button_data,
    validate_content_data,
    validate_conversation_data,
    validate_conversation_id,
    validate_feedback_data,
    validate_question_and_answer_data,
)
from tests.sdk.conftest import World
from tests.sdk.support import KEY, Answer, ScriptServer


@pytest.fixture
def http(server: ScriptServer, world: World) -> Iterator[HTTPClient]:
    server.script = lambda _: Answer(201, {"id": 5})
    with HTTPClient(Config(api_key=KEY, endpoint=server.url)) as client:
        client.runtime = world.runtime
        yield client


@pytest.mark.parametrize(
    ("payload_type", "path", "data"),
    [
        ("conversation", "/api/conversations/", {}),
        ("question", "/api/track/", {"content": "q"}),
        ("answer", "/api/track/", {"content": "a"}),
        ("full", "/api/track/", {"question": "q", "answer": "a"}),
        ("action", "/api/action_logs/", {"action_name": "n"}),
        ("button", "/api/buttons/", {"button_event": "e", "label": "l", "value": "v"}),
        ("attachments", "/api/attachments/", {"attachments": []}),
        ("feedback", "/api/conversation-feedbacks/", {"sentiment": "neutral"}),
    ],
)
def test_payloads_go_to_their_routes_with_a_timestamp(
    http: HTTPClient, server: ScriptServer, payload_type: str, path: str, data: dict[str, Any]
) -> None:
    """One request each."""
    assert http.send_payload(payload_type, {"conversation_id": "c", **data}) == {"id": 5}
    [seen] = server.seen
    assert (seen.method, seen.path) == ("POST", path)
    assert seen.json.pop("timestamp")
    assert seen.json.items() >= data.items()


def test_bad_payloads_are_refused_here(http: HTTPClient, server: ScriptServer) -> None:
    """With the exceptions of the published client."""
    with pytest.raises(MissingConversationIdException):
        http.send_payload("conversation", {})
    with pytest.raises(InvalidConversationDataException, match="Invalid action data provided"):
        http.send_payload("action", {"conversation_id": "c"})
    with pytest.raises(ValueError, match="Unknown payload type"):
        http.send_payload("song", {"conversation_id": "c"})
    assert server.seen == []


def test_refusals_of_payloads_name_their_type(http: HTTPClient, server: ScriptServer) -> None:
    """And are not typed, as on the published tracker's routes."""
    server.answers = [Answer(404, {"detail": "no"})]
    with pytest.raises(ConversationApiException) as caught:
        http.send_payload("question", {"conversation_id": "c", "content": "x"})
    assert type(caught.value) is ConversationApiException
    assert str(caught.value) == "API error for question (404): no"


def test_forms_have_the_parts_of_the_published_client(
    http: HTTPClient, server: ScriptServer
) -> None:
    """The message comes last, after the files."""
    files = [{"data": io.BytesIO(b"abc"), "filename": "a.txt", "mime_type": "text/plain"}]
    http.send_form_data_payload_with_message(files, 9, 42, "agent", {"k": "v"})
    assert [(part[0], part[2]) for part in server.seen[0].parts][1:] == [
        ("conversation", b"42"),
        ("sender", b"agent"),
        ("mode", b"form_data"),
        ("metadata", b'{"k": "v"}'),
        ("attachment_0", b"abc"),
        ("message", b"9"),
    ]
    http.send_form_data_payload(files, None)
    names = [part[0] for part in server.seen[1].parts]
    assert names == ["timestamp", "sender", "mode", "metadata", "attachment_0"]


def test_plain_methods_send_what_they_are_given(http: HTTPClient, server: ScriptServer) -> None:
    """Paths, parameters and bodies; refusals are typed."""
    http.get("/a/", {"x": True})
    http.post("/b/", data={"y": 1})
    http.patch("/c/", data={"z": 2})
    http.delete("/d/")
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("GET", "/a/"),
        ("POST", "/b/"),
        ("PATCH", "/c/"),
        ("DELETE", "/d/"),
    ]
    assert server.seen[0].params == [("x", "true")]
    server.answers = [Answer(404)]
    with pytest.raises(NotFoundException):
        http.get("/none/")


def test_validators_answer_as_the_published_ones() -> None:
    """Recorded by calling them."""
    ids = {"conversation_id": "c"}
    assert validate_conversation_data({**ids, "content": "x"})
    assert not validate_conversation_data({**ids, "question": "x"})
    assert validate_question_and_answer_data({"question": "q", "answer": "a"})
    assert not validate_content_data({"content": "  "})
    assert not validate_action_data(ids)
    assert not validate_button_data({**ids, "button_event": "e", "label": "l", "value": ""})
    for missing in ({}, {"conversation_id": 0}, {"conversation_id": " "}):
        with pytest.raises(MissingConversationIdException):
            validate_conversation_id(missing)
    assert validate_feedback_data({**ids, "sentiment": "positive"})
    for bad in (
        {"sentiment": "positive"},
        ids,
        {**ids, "sentiment": "great"},
        {**ids, "sentiment": "neutral", "comment": 5},
        {**ids, "sentiment": "neutral", "comment": "x" * 5001},
    ):
        with pytest.raises(InvalidConversationDataException):
            validate_feedback_data(bad)


def test_attachment_validator_is_as_strict_as_the_published_one() -> None:
    """The tracker takes more; code that calls this gets what it knows."""
    validate = validate_and_process_attachments_flexible
    good = {"filename": "a", "mime_type": "x/y", "data": "YQ==", "more": 1}
    assert validate([good], AttachmentMode.BASE64) == [
        {"filename": "a", "mime_type": "x/y", "data": "YQ=="}
    ]
    form = {"data": b"a", "content_type": "x/y", "more": 1}
    assert validate([form], AttachmentMode.FORM_DATA) == [
        {"data": b"a", "mime_type": "x/y", "more": 1}
    ]
    bad: list[tuple[Any, Any]] = [
        ([], AttachmentMode.BASE64),
        ((good,), AttachmentMode.BASE64),
        ([b"x"], AttachmentMode.BASE64),
        ([{**good, "data": b"x"}], AttachmentMode.BASE64),
        ([{**good, "data": "?"}], AttachmentMode.BASE64),
        ([{"data": "text"}], AttachmentMode.FORM_DATA),
        ([{}], AttachmentMode.FORM_DATA),
        ([good], "base64"),
    ]
    for attachments, mode in bad:
        with pytest.raises(InvalidAttachmentException):
            validate(attachments, mode)


def test_without_llama_index_there_is_no_handler() -> None:
    """It is said in the log, and nothing breaks."""
    assert set_llamaindex_token_handler("INFO") is None


class Counting(TokenHandler):
    """LlamaIndex's handler as far as we use it: four counters and `reset_counts`."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        self.verbose = verbose

    def reset_counts(self) -> None:
        TokenHandler.__init__(self)


def test_a_library_s_token_counts_are_sent_and_reset(
    server: ScriptServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the published client this branch was never taken."""
    added: list[Any] = []
    manager = types.SimpleNamespace(add_handler=added.append)
    core = types.ModuleType("llama_index.core")
    core.Settings = types.SimpleNamespace(callback_manager=manager)  # type: ignore[attr-defined]
    counting = types.ModuleType("llama_index.core.callbacks.token_counting")
    counting.TokenCountingHandler = Counting  # type: ignore[attr-defined]
    for module in (core, counting):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for parent in ("llama_index", "llama_index.core.callbacks"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    with ConversationTracker(KEY, endpoint=server.url, token_handler="llamaindex") as tracker:
        [handler] = added
        handler.total_llm_token_count = 7
        tracker.get_or_create_conversation("c")
        assert tracker.get_token_usage()["total_tokens"] == 7
        tracker.send_tracked_data()
        assert tracker.get_token_usage()["total_tokens"] == 0
    assert server.seen[0].json["items"][0]["total_tokens"] == 7
