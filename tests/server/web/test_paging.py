"""Pages: read leniently, clamped, and linked without losing the query."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.problems import Problem
from agentsight.server.web.paging import Envelope, Page, make_envelope, parse_page


@pytest.mark.parametrize(
    ("page", "size", "expected"),
    [
        (None, None, (1, 10)),
        ("", " ", (1, 10)),
        (" 3 ", "25", (3, 25)),
        ("1", "100", (1, 100)),
        ("1", "101", (1, 100)),
        ("1", "1000000", (1, 100)),
        ("1", "9" * 100, (1, 100)),
        ("1", "0", (1, 10)),
        ("1", "-5", (1, 10)),
        ("1", "many", (1, 10)),
        ("1", "٣", (1, 10)),
    ],
)
def test_what_is_read(page: str | None, size: str | None, expected: tuple[int, int]) -> None:
    """A size is clamped to 100, and what is none is ten."""
    read = parse_page(page, size)
    assert (read.number, read.size) == expected


@pytest.mark.parametrize("page", ["0", "-1", "x", "1.0", "٣", "1e3", "0x1", "1 2", "\x00", "--1"])
def test_what_is_no_page(page: str) -> None:
    """It is a 404, as published clients were written against."""
    with pytest.raises(Problem) as caught:
        parse_page(page, None)
    assert (caught.value.status, caught.value.code) == (404, "invalid_page")


def envelope(number: int, count: int, query: str = "", size: int = 10) -> Envelope:
    """Make an envelope."""
    return make_envelope(page=Page(number, size), count=count, url="http://h/l/", query=query)


@pytest.mark.parametrize(
    ("number", "count", "pages", "following", "preceding"),
    [
        (1, 0, 1, None, None),
        (1, 10, 1, None, None),
        (1, 11, 2, "2", None),
        (2, 11, 2, None, "1"),
        (2, 30, 3, "3", "1"),
    ],
)
def test_neighbours(
    number: int, count: int, pages: int, following: str | None, preceding: str | None
) -> None:
    """`next` is null on the last page and nowhere else."""
    made = envelope(number, count)
    assert made.total_pages == pages
    for url, expected in ((made.next, following), (made.previous, preceding)):
        assert (url is None) == (expected is None)
        assert url is None or url == f"http://h/l/?page={expected}"


def test_beyond_the_end() -> None:
    """It is a 404 that says how many pages there are; the first page of nothing is a page."""
    with pytest.raises(Problem) as caught:
        envelope(2, 10)
    assert (caught.value.status, "1 pages" in caught.value.detail) == (404, True)
    with pytest.raises(Problem):
        envelope(10**18, 10)


@given(
    st.lists(st.tuples(st.text(min_size=1).filter(lambda k: k != "page"), st.text()), max_size=4)
)
def test_links_keep_the_query(pairs: list[tuple[str, str]]) -> None:
    """Every other parameter stands in `next` as it came, and `page` once."""
    try:
        query = urlencode([*pairs, ("page", "1")])
    except UnicodeEncodeError:
        return
    made = envelope(1, 11, query)
    assert made.next is not None
    assert made.next.isascii()
    assert parse_qsl(urlsplit(made.next).query, keep_blank_values=True) == [*pairs, ("page", "2")]
