"""Single fields: what published clients send loosely is made strict once, here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.problems import Problem
from agentsight.server.web.fields import (
    is_deeper,
    json_text,
    long_text,
    optional_text,
    parse_row_id,
    reference_id,
    reference_text,
    required_text,
    scalar_text,
    time_field,
    typed_time,
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300)


def status(call: Any, *args: Any) -> tuple[int, str]:
    """Return the status and code with which a call is refused."""
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), ("a", "a"), (True, "true"), (False, "false"), (7, "7"), (1.5, "1.5")],
)
def test_scalars_have_a_text(value: Any, text: str | None) -> None:
    """As their sender would write them."""
    assert scalar_text(value) == text


def test_short_texts() -> None:
    """Blank is none, 255 characters fit, and inner space stays."""
    assert [optional_text(v, "f") for v in (None, "", " \n")] == [None] * 3
    assert optional_text(" a ", "f") == " a "
    assert optional_text("x" * 255, "f") == "x" * 255
    assert status(optional_text, "x" * 256, "f") == (400, "invalid")
    assert status(required_text, " ", "f") == (400, "required")
    assert required_text(0, "f") == "0"


def test_long_texts_are_measured_in_bytes() -> None:
    """In UTF-8; blank is kept."""
    assert long_text("ä" * 5, "f", 10) == "ä" * 5
    assert status(long_text, "ä" * 5 + "x", "f", 10) == (413, "too_large")
    assert (long_text("", "f", 10), long_text(None, "f", 10)) == ("", None)


def nested(depth: int) -> Any:
    """Make an object so many levels deep."""
    value: Any = 1
    for n in range(depth):
        value = {"a": value} if n % 2 else [value]
    return {"top": value} if depth % 2 else {"top": [value]}


def test_depth_is_counted_in_containers() -> None:
    """One object is one level; lists count too."""
    assert not is_deeper({"a": 1}, 1)
    assert is_deeper({"a": {}}, 1)
    assert is_deeper({"a": [[]]}, 2)
    assert not is_deeper({"a": [[]]}, 3)
    assert not is_deeper(1, 0)


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        ([1], (400, "invalid")),
        ("{}", (400, "invalid")),
        (nested(30), (400, "invalid")),
        ({"a": "x" * 100}, (413, "too_large")),
    ],
)
def test_objects_have_limits(value: Any, refused: tuple[int, str]) -> None:
    """Of kind, depth and size."""
    assert status(json_text, value, "f", 100, 20) == refused


def test_objects_become_json() -> None:
    """None stays none."""
    assert json_text({"ä": [1, None]}, "f", 100, 20) == '{"ä":[1,null]}'
    assert json_text(None, "f", 100, 20) is None


def test_times() -> None:
    """Missing is the default; what somebody typed by hand is kept as text."""
    assert time_field(None, "f", 5) == time_field("", "f", 5) == 5
    assert time_field("1970-01-01T00:00:01Z", "f", 5) == 1_000_000
    for wrong in ("noon", 5, True, 1.5):
        assert status(time_field, wrong, "f", 5) == (400, "invalid")
    assert typed_time("1970-01-01T00:00:01Z") == (1_000_000, None)
    assert typed_time("around noon") == (None, "around noon")
    assert typed_time(" ") == typed_time(None) == (None, None)
    assert typed_time(5) == (None, "5")


@pytest.mark.parametrize("text", ["0", "1", str(2**53 - 1), "007"])
def test_row_ids(text: str) -> None:
    """Digits up to 2^53."""
    assert parse_row_id(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "abc", str(2**53), "9" * 5000, "٣", "²", "1 "]
)
def test_what_is_no_row_id(text: str) -> None:
    """It names nothing: 404."""
    assert status(parse_row_id, text) == (404, "not_found")


@pytest.mark.parametrize("value", [None, "", "None"])
def test_what_gen_a_sends_for_unknown(value: Any) -> None:
    """None, blank and the text "None"."""
    assert reference_id(value) is None
    assert reference_text(value) is None


@given(scalars)
def test_references_are_read_or_refused(value: Any) -> None:
    """A row id, nothing, or a Problem; never another error."""
    for read in (reference_id, reference_text):
        told = 0
        try:
            result = read(value)
        except Problem as problem:
            told, result = problem.status, None
        assert told in (0, 400, 404)
        assert result is None or isinstance(result, int | str)
