"""Bodies are counted while they arrive, given back when they are done, and read as JSON only."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.ingest import service
from agentsight.server.problems import Problem
from agentsight.server.web.bodies import (
    BodyBudget,
    convert_body,
    decode_json,
    limited_body,
    missing_field,
)
from tests.support.http import JSON, House, encode_form, open_house

pytestmark = pytest.mark.anyio


async def arriving(*pieces: bytes) -> AsyncIterator[bytes]:
    """Yield a body's pieces."""
    for piece in pieces:
        yield piece


async def read(budget: BodyBudget, *pieces: bytes, **headers: str) -> bytes:
    """Read a body whole; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with limited_body(arriving(*pieces), named, budget) as raw:
        assert budget.held_bytes == len(raw)
        return raw


async def test_pieces_are_joined_and_given_back() -> None:
    """While the body is held it is counted, and then no more."""
    budget = BodyBudget(100, 50)
    assert await read(budget, b"ab", b"", b"cd") == b"abcd"
    assert await read(budget) == b""
    assert await read(budget, b"x" * 50) == b"x" * 50
    assert budget.held_bytes == 0


@pytest.mark.parametrize(
    ("pieces", "headers", "status"),
    [
        ([b"x" * 51], {}, 413),
        ([b"x" * 25, b"x" * 26], {}, 413),
        ([], {"content_length": "51"}, 413),
        ([gzip.compress(b"0" * 5000, mtime=0)], {"content_encoding": "gzip"}, 413),
        ([b"junk"], {"content_encoding": "gzip"}, 400),
        ([b"{}"], {"content_encoding": "br"}, 415),
    ],
)
async def test_refusals_give_back_too(
    pieces: list[bytes], headers: dict[str, str], status: int
) -> None:
    """Whatever is wrong, nothing stays counted."""
    budget = BodyBudget(100, 50)
    with pytest.raises(Problem) as caught:
        await read(budget, *pieces, **headers)
    assert (caught.value.status, budget.held_bytes) == (status, 0)


async def test_a_full_process_says_come_back() -> None:
    """503 with Retry-After, while others are held."""
    budget = BodyBudget(100, 80)
    async with limited_body(arriving(b"x" * 60), {}, budget):
        with pytest.raises(Problem) as caught:
            await read(budget, b"x" * 60)
        assert (caught.value.status, caught.value.code) == (503, "busy")
        assert caught.value.retry_after_s == 1
        assert budget.held_bytes == 60
    assert budget.held_bytes == 0


@given(st.binary(max_size=300), st.integers(1, 40))
async def test_gzip_in_any_pieces(data: bytes, step: int) -> None:
    """Inflating does not depend on where the pieces were cut."""
    packed = gzip.compress(data)
    pieces = [packed[i : i + step] for i in range(0, len(packed), step)]
    budget = BodyBudget(1000, 500)
    assert await read(budget, *pieces, content_encoding="GZIP") == data


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00")),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00")), inner
    ),
)  # fmt: skip


@pytest.mark.slow
@given(json_values)
def test_json_comes_through_unchanged(value: Any) -> None:
    """What Python's encoder writes is read back equal."""
    assert decode_json(json.dumps(value).encode()) == value
    assert decode_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=80))
def test_any_bytes_are_json_or_a_400(raw: bytes) -> None:
    """There is no third way."""
    told = None
    try:
        decode_json(raw)
    except Problem as problem:
        told = (problem.status, problem.code)
    assert told in (None, (400, "malformed_json"))


class Inner(msgspec.Struct):
    """A part."""

    n: int


class Outer(msgspec.Struct):
    """A body."""

    name: str
    inner: list[Inner] = []


@pytest.mark.parametrize(
    ("value", "field", "code"),
    [
        ({}, "name", "required"),
        ({"name": 1}, "name", "invalid"),
        ({"name": "x", "inner": [{}]}, "inner", "invalid"),
        ({"name": "x", "inner": [{"n": "x"}]}, "inner", "invalid"),
        ([], "non_field_errors", "invalid"),
    ],
)
def test_a_wrong_body_names_the_field(value: Any, field: str, code: str) -> None:
    """The outermost field's name, with the place inside it in the text."""
    with pytest.raises(Problem) as caught:
        convert_body(value, Outer)
    assert (list(caught.value.fields), caught.value.code) == ([field], code)
    assert "`" not in caught.value.detail


def test_missing_fields_are_recognised() -> None:
    """Only in the words in which msgspec says so."""
    assert missing_field("Object missing required field `a_b`") == "a_b"
    assert missing_field("Expected `object`, got `array`") is None


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"1,"])
def test_a_small_body_of_countless_values_is_refused(piece: bytes) -> None:
    """Before it is decoded: 64 KB of gzip would take the whole process with them."""
    raw = b"[" + piece * 4_000_001 + b"1]"
    with pytest.raises(Problem) as caught:
        decode_json(raw)
    assert (caught.value.status, caught.value.code) == (413, "too_large")


def test_one_long_text_is_never_too_many_values() -> None:
    """Whatever it holds: a refusal would lose a message."""
    text = "[" * 1024 * 1024
    assert decode_json(json.dumps({"content": text}).encode()) == {"content": text}


# --- Through the application ----------------------------------------------------------------------


@pytest.fixture
async def narrow(anyio_backend: str, sqlite_template: Path, tmp_path: Path) -> AsyncIterator[House]:
    """Run an application that holds 4 KB of bodies, 3 KB each."""
    path = tmp_path / "agentsight.db"
    path.write_bytes(sqlite_template.read_bytes())
    async with open_house(
        f"sqlite:///{path}", tmp_path, max_json_body_bytes=3000, max_json_in_flight_bytes=4000
    ) as house:
        yield house


BATCH = {"conversation": {"conversation_id": "c"}, "items": [{"type": "message", "content": "x"}]}


async def test_a_forms_fields_count_among_the_bodies(narrow: House) -> None:
    """A batch in a form is held like one in JSON: counted while it arrives, then given back."""
    alice = (await narrow.people()).alice
    budget: BodyBudget = narrow.app.app.state.body_budget
    body, content_type = encode_form([("batch", json.dumps(BATCH)), ("pad", "y" * 2000)])
    seen: list[int] = []

    def pieces() -> Iterator[bytes]:
        for i in range(0, len(body), 100):
            seen.append(budget.held_bytes)
            yield body[i : i + 100]

    headers = {"content-type": content_type, "transfer-encoding": "chunked"}
    answer = await alice.writer.send("POST", "/api/v1/batch/", body=pieces(), headers=headers)
    assert answer.status == 200
    assert max(seen) > 1900
    assert budget.held_bytes == 0
    budget.take(2500)
    busy = await alice.writer.send("POST", "/api/v1/batch/", body=body,
                                   headers={"content-type": content_type})  # fmt: skip
    assert busy.is_error(503, "busy")
    assert busy.headers["retry-after"] == "1"
    budget.give_back(2500)
    assert budget.held_bytes == 0


async def test_a_forms_fields_have_the_limit_of_a_body(narrow: House) -> None:
    """All together, at the piece that passes it; a file is not a field."""
    alice = (await narrow.people()).alice
    fields = [("batch", json.dumps(BATCH)), ("a", "y" * 1600), ("b", "y" * 1600)]
    answer = await alice.writer.form("/api/v1/batch/", fields)
    assert answer.is_error(413, "too_large")
    assert "max_json_body_bytes" in answer.json()["detail"]
    file = ("f", "f.bin", "text/plain", b"z" * 20_000)
    assert (await alice.writer.form("/api/v1/batch/", [fields[0], file])).status == 200
    assert narrow.app.app.state.body_budget.held_bytes == 0


async def test_a_json_body_is_given_back_after_a_refusal(narrow: House) -> None:
    """Also when the client hangs up in the middle."""
    alice = (await narrow.people()).alice
    budget: BodyBudget = narrow.app.app.state.body_budget
    for pieces, is_cut in (
        ([b"{" * 2000], False),
        ([b'{"a":' * 300], True),
        ([b"x" * 3001], False),
    ):
        await alice.writer.send(
            "POST", "/api/track/", body=pieces, is_cut=is_cut,
            headers=JSON | {"transfer-encoding": "chunked"},
        )  # fmt: skip
        assert budget.held_bytes == 0


async def test_a_body_is_held_until_its_request_ends(
    narrow: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its texts are as large as its bytes were, and live until everything is stored."""
    alice = (await narrow.people()).alice
    budget: BodyBudget = narrow.app.app.state.body_budget
    seen: list[int] = []
    real = service.apply_items

    async def look(*args: Any) -> Any:
        seen.append(budget.held_bytes)
        return await real(*args)

    monkeypatch.setattr(service, "apply_items", look)
    answer = await alice.post("/api/track/", {"conversation_id": "c", "content": "x" * 2000})
    assert answer.status == 201
    assert seen[0] > 2000
    assert budget.held_bytes == 0
