"""Tests of conditional and range requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.web.ranges import (
    RangeNotSatisfiable,
    http_date,
    is_match_refused,
    is_not_modified,
    is_range_wanted,
    parse_range,
)

ETAG = '"abc"'
AT_US = 1_700_000_000_999_999
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=99-", (99, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes = 1 - 2", (1, 3)),
        ("bytes=000-0009", (0, 10)),
        (f"bytes=5-{'9' * 5000}", (5, 100)),
        (f"bytes=-{'9' * 5000}", (0, 100)),
        ("bytes=20-10", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes", None),
        ("", None),
        ("bytes=a-b", None),
        ("bytes=1", None),
        ("bytes=--5", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=1_0-20", None),
        ("bytes=٣-٥", None),
        ("items=0-5", None),
        ("bytes=0-1,5-6", None),
    ],
)
def test_a_range_header_is_read(header: str, expected: tuple[int, int] | None) -> None:
    """One range of bytes is read; several, malformed and foreign ones mean the whole."""
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize(
    "header", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={'9' * 99}-"]
)
def test_a_range_outside_is_refused(header: str) -> None:
    """A range of which no byte exists cannot be answered."""
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-5", "bytes=7-9", "x"])
def test_nothing_has_no_ranges(header: str) -> None:
    """An empty file is answered whole: there is no Content-Range for no bytes."""
    assert parse_range(header, 0) is None


@given(
    first=st.integers(0, 300), last=st.none() | st.integers(0, 300), size_bytes=st.integers(1, 200)
)
def test_ranges_are_slices(first: int, last: int | None, size_bytes: int) -> None:
    """What is answered is exactly the bytes that the header names and that exist."""
    data = bytes(range(256))[:size_bytes]
    header = f"bytes={first}-{'' if last is None else last}"
    wanted = data[first:] if last is None else data[first : last + 1]
    try:
        found = parse_range(header, size_bytes)
    except RangeNotSatisfiable:
        assert first >= size_bytes
    else:
        if found is None:
            assert last is not None
            assert last < first
        else:
            assert data[slice(*found)] == wanted
            assert wanted


@given(header=st.text() | st.from_regex(r"bytes=[0-9, -]{0,20}"), size_bytes=st.integers(0, 2**50))
def test_any_header_is_answered(header: str, size_bytes: int) -> None:
    """No header breaks the parser, and no answer is outside of the file."""
    try:
        found = parse_range(header, size_bytes)
    except RangeNotSatisfiable:
        return
    if found is not None:
        start, end = found
        assert 0 <= start < end <= size_bytes


def test_dates_are_http_dates() -> None:
    """Microseconds are cut, the form is RFC 9110's."""
    assert http_date(AT_US) == DATE


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (None, True),
        (ETAG, True),
        (f"  {ETAG} ", True),
        (DATE, True),
        ('W/"abc"', False),
        ('"other"', False),
        ("abc", False),
        ("Tue, 14 Nov 2023 22:13:21 GMT", False),
        ("Tue, 14 Nov 2023 22:13:19 GMT", False),
        ("", False),
        ("Tue, 99 Nov 99999999999 22:13:19 GMT", False),
    ],
)
def test_a_range_counts_for_the_same_bytes_only(if_range: str | None, expected: bool) -> None:
    """If-Range compares strongly: a resumed download never mixes two files."""
    assert is_range_wanted(if_range, ETAG, AT_US) is expected


@pytest.mark.parametrize(
    ("if_none_match", "if_modified_since", "expected"),
    [
        (None, None, False),
        (ETAG, None, True),
        ('W/"abc"', None, True),
        ('"x", "abc"', None, True),
        ("*", None, True),
        ('"x"', None, False),
        ('"x"', DATE, False),
        ("", DATE, False),
        (None, DATE, True),
        (None, "Tue, 14 Nov 2023 22:13:19 GMT", False),
        (None, "Wed, 15 Nov 2023 22:13:19 GMT", True),
        (None, "yesterday", False),
        (None, "Mon, 01 Jan 0001 00:00:00 +2400", False),
    ],
)
def test_what_the_caller_has_is_not_sent_again(
    if_none_match: str | None, if_modified_since: str | None, expected: bool
) -> None:
    """Tags compare weakly and go before dates."""
    assert is_not_modified(if_none_match, if_modified_since, ETAG, AT_US) is expected


@given(text=st.text())
def test_any_condition_is_answered(text: str) -> None:
    """No header text breaks a condition."""
    is_range_wanted(text, ETAG, AT_US)
    is_not_modified(text, None, ETAG, AT_US)
    is_not_modified(None, text, ETAG, AT_US)
    is_match_refused(text, ETAG)


@pytest.mark.parametrize(
    ("if_match", "expected"),
    [
        (None, False),
        (ETAG, False),
        ("*", False),
        ('"x", "abc"', False),
        ('"x"', True),
        ('W/"abc"', True),
    ],
)
def test_if_match_compares_strongly(if_match: str | None, expected: bool) -> None:
    """Whoever asks for other bytes is told that they are not there."""
    assert is_match_refused(if_match, ETAG) is expected
