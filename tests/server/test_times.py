"""Times are read leniently and shown as ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.times import optional_datetime, parse_time, to_datetime, to_text

NOON = 1_788_264_000_000_000
"""2026-09-01T12:00:00Z"""


@pytest.mark.parametrize(
    "text",
    [
        "2026-09-01T12:00:00Z",
        "2026-09-01T12:00:00",
        "2026-09-01 12:00:00",
        " 2026-09-01T12:00:00.000000+00:00 ",
        "2026-09-01T14:00:00+02:00",
        "2026-09-01T14:00:00 02:00",
        "2026-09-01T04:00:00-08:00",
        "20260901T120000Z",
        "2026-W36-2T12:00",
    ],
)
def test_spellings_of_one_moment(text: str) -> None:
    """Any ISO 8601 form; without an offset it is UTC."""
    assert parse_time(text) == NOON


@pytest.mark.parametrize(
    "text",
    ["", " ", "noon", "2026-13-01", "2026-09-01T25:00", "1788264000", "0000-01-01", "+", "T",
     "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "2026-09-01T12:00:00+25:00", "\x00"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    """None, also for what UTC cannot show."""
    assert parse_time(text) is None


@given(st.text(max_size=40))
def test_any_text_is_read_or_not(text: str) -> None:
    """Reading never raises, and what was read can be shown and read again."""
    time_us = parse_time(text)
    if time_us is not None:
        assert parse_time(to_text(time_us)) == time_us


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_comes_back(time: datetime) -> None:
    """To the microsecond, the first and the last moment too."""
    time_us = parse_time(time.isoformat())
    assert time_us is not None
    assert to_datetime(time_us) == time


def test_shown_texts() -> None:
    """With Z, and with microseconds only where there are any."""
    assert to_text(NOON) == "2026-09-01T12:00:00Z"
    assert to_text(NOON + 1) == "2026-09-01T12:00:00.000001Z"
    assert to_text(-1) == "1969-12-31T23:59:59.999999Z"
    assert optional_datetime(None) is None
