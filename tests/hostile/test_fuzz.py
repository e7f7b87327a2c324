"""No input that a machine could find gives a 500: forms, names, filters, bodies, the whole API."""

from __future__ import annotations

import contextlib
import json
import string
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from agentsight.server.attachments.filters import DESCRIPTIONS as FILE_FILTERS
from agentsight.server.conversations.filters import DESCRIPTIONS
from tests.support.http import JSON, House, People, encode_form, path_of
from tests.support.soak import only_in_soak

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

QUICK = settings(
    deadline=None, database=None, derandomize=True, max_examples=60,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
nasty = st.sampled_from(
    ["", "None", "null", "\x00", "\ud800", "%", "\\", "'", '"', "../..", "\r\n", "\u202e", "9" * 50,
     "-1", "1e999", "NaN", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "a:b", ":",
     "a.b.c:1e-999999", "k:99999999999999999999999999999999999999999999", "id,-id", "true"]
)  # fmt: skip
texts = any_text | nasty
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def shape_is_known(answer: Any) -> bool:
    """Say whether an answer is a success, or an error of the caller's in the one shape."""
    if answer.status < 400:
        return True
    return answer.status < 500 and answer.is_error(answer.status, answer.json()["code"])


@QUICK
@given(
    query=st.dictionaries(
        st.sampled_from(sorted({*DESCRIPTIONS, *FILE_FILTERS})) | texts.filter(bool),
        texts,
        max_size=4,
    )
)
async def test_filters(house: House, people: People, query: dict[str, str]) -> None:
    """A list answers every query string, in bytes that are no UTF-8 too."""
    await people.alice.conversation("c", metadata={"a": {"b": 1}}, name="n")
    text = "&".join(
        f"{quote(name.encode('utf-8', 'surrogatepass'))}="
        f"{quote(value.encode('utf-8', 'surrogatepass'))}"
        for name, value in query.items()
    )
    for url in ("/api/conversations/", "/api/conversations/lookup/", "/api/v1/attachments/"):
        answer = await people.alice.writer.send("GET", f"{url}?{text}")
        assert shape_is_known(answer), (answer.status, text)


FIELDS = (
    "conversation", "conversation_id", "timestamp", "metadata", "item_key", "content", "sender",
    "external_id", "author", "action_name", "started_at", "ended_at", "duration_ms", "tools_used",
    "response", "error_msg", "button_event", "label", "value", "message", "mode", "attachments",
    "customer_id", "customer_ip_address", "device", "source", "language", "name", "environment",
    "is_used", "sentiment", "comment", "is_marked", "items", "type", "prompt_tokens",
)  # fmt: skip
PATHS = (
    "/api/conversations/", "/api/track/", "/api/action_logs/", "/api/buttons/", "/api/attachments/",
    "/api/conversation-feedbacks/", "/api/v1/batch/",
)  # fmt: skip
GOOD = {
    "conversation_id": "c", "content": "x", "action_name": "a", "button_event": "e", "label": "l",
    "value": "v", "attachments": [{"filename": "f", "data": "eA=="}], "sentiment": "neutral",
    "items": [{"type": "message", "content": "x"}],
}  # fmt: skip


@QUICK
@given(
    path=st.sampled_from(PATHS),
    changes=st.dictionaries(st.sampled_from(FIELDS), values, max_size=4),
)
async def test_bodies(house: House, people: People, path: str, changes: dict[str, Any]) -> None:
    """A write route answers any object: stored, or refused in the one shape."""
    body = GOOD | changes
    if path.endswith("batch/"):
        item = {"type": "message", "content": "x"} | changes
        body = {"conversation": {"conversation_id": "c"} | changes, "items": [item]}
    raw = json.dumps(body, allow_nan=True).encode()
    answer = await people.alice.writer.send("POST", path, body=raw, headers=JSON)
    assert shape_is_known(answer), (answer.status, raw)
    listed = await people.alice.get("/api/conversations/")
    assert listed.status == 200


@QUICK
@given(path=st.sampled_from(PATHS), raw=st.binary(max_size=60))
async def test_bytes(house: House, people: People, path: str, raw: bytes) -> None:
    """A write route answers any bytes, as JSON, as gzip and as a form."""
    for headers in (
        JSON,
        JSON | {"content-encoding": "gzip"},
        {"content-type": "multipart/form-data; boundary=b"},
    ):
        body = b"--b" + raw if "boundary" in headers["content-type"] else raw
        answer = await people.alice.writer.send("POST", path, body=body, headers=headers)
        assert shape_is_known(answer), (answer.status, raw)


parts = st.one_of(
    st.tuples(
        st.sampled_from(["conversation", "conversation_id", "metadata", "message", "sender",
                         "timestamp", "mode", "item_key", "batch"]) | texts,
        texts,
    ),
    st.tuples(texts, texts, texts.map(lambda t: t.replace("\n", "")), st.binary(max_size=40)),
)  # fmt: skip


@QUICK
@given(
    given_parts=st.lists(parts, max_size=5),
    path=st.sampled_from(["/api/attachments/", "/api/v1/batch/"]),
    cut=st.integers(0, 400) | st.just(10**6),
    step=st.integers(1, 200),
)
async def test_forms(
    house: House, people: People, given_parts: list[Any], path: str, cut: int, step: int
) -> None:
    """Any form, cut anywhere and in any pieces, is stored or refused, and its files open."""
    body, content_type = encode_form([("conversation_id", "c"), *given_parts])
    body = body[:cut]
    answer = await people.alice.writer.send(
        "POST",
        path,
        body=[body[i : i + step] for i in range(0, len(body), step)],
        headers={"content-type": content_type},
    )
    assert shape_is_known(answer), (answer.status, body)
    if answer.status == 201:
        for file in answer.json()["attachments"]:
            opened = await house.stranger.get(path_of(file["file_url"]))
            assert (opened.status, len(opened.body)) == (200, file["size_bytes"])


@QUICK
@given(
    path=st.lists(st.text(string.printable + "ä\x00\u2028", max_size=12), max_size=5),
    method=st.sampled_from(["GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "BREW"]),
    name=st.sampled_from(["authorization", "x-request-id", "content-type", "content-length",
                          "x-forwarded-host", "range", "accept", "cookie"]),
    value=st.text(st.characters(max_codepoint=255, exclude_categories=("Cc",)), max_size=40),
)  # fmt: skip
async def test_paths_and_headers(
    house: House, people: People, path: list[str], method: str, name: str, value: str
) -> None:
    """Any path, method and header is answered."""
    url = "/" + "/".join(quote(part, safe="") for part in path)
    for caller in (house.stranger, people.alice.writer):
        for target in (url, "/api/conversations/", "/api" + url):
            answer = await caller.send(method, target, headers={name: value})
            assert answer.status < 500, (method, target, name, value)


# --- The description, and a machine that reads it -------------------------------------------------


async def test_the_description_names_every_route(house: House) -> None:
    """/openapi.json is there without a key, and describes bodies that handlers read themselves."""
    described = (await house.stranger.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.")
    for path in PATHS:
        post = described["paths"][path]["post"]
        assert post["requestBody"]["content"], path


def draw_cases(strategy: Any, n_examples: int) -> list[Any]:
    """Draw cases of one operation, the same ones each time."""
    cases: list[Any] = []

    @settings(QUICK, max_examples=n_examples)
    @given(strategy)
    def collect(case: Any) -> None:
        cases.append(case)

    with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about a route without input
        collect()
    return cases


@schemathesis.serializer("application/offset+octet-stream")
def send_as_it_is(_context: Any, value: Any) -> Any:
    """Send the bytes of an upload: what is drawn for them is a text."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


async def run_schemathesis(house: House, people: People, n_examples: int) -> int:
    """Send what Schemathesis makes of every operation; returns how many were sent."""
    described = (await house.stranger.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(described)
    sent = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (
            schemathesis.GenerationMode.POSITIVE,
            schemathesis.GenerationMode.NEGATIVE,
        ):
            strategy = operation.as_strategy(generation_mode=mode)
            for case in draw_cases(strategy, n_examples):
                await _send_case(house, people, case)
                sent += 1
    return sent


async def _send_case(house: House, people: People, case: Any) -> None:
    kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
    kwargs.pop("cookies", None)
    try:
        request = requests.Request(**kwargs).prepare()
    except (requests.RequestException, UnicodeError, ValueError):
        return  # no client could send it
    body = request.body or b""
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    headers = {
        k: v.decode("latin-1") if isinstance(v, bytes) else v for k, v in request.headers.items()
    }
    for caller in (house.stranger, people.alice.writer):
        sent = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        answer = await caller.send(request.method or "GET", request.url or "/", body=raw,
                                   headers=sent)  # fmt: skip
        assert answer.status < 500, (request.method, request.url, raw, answer.body)
        if answer.status >= 400:
            assert "request_id" in answer.json(), (request.method, request.url)


async def test_schemathesis(house: House, people: People) -> None:
    """What a machine makes of the description, right and wrong, never breaks us."""
    assert await run_schemathesis(house, people, 3) > 30


@only_in_soak
async def test_schemathesis_at_length(house: House, people: People) -> None:
    """The same with many more examples."""
    assert await run_schemathesis(house, people, 120) > 1000
