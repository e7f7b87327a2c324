"""Pages of lists: the seven-key envelope that both published generations read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from agentsight import _contract as contract
from agentsight.server.problems import Problem
from agentsight.server.queries import unknown_names


class Page(msgspec.Struct, frozen=True):
    """Which page is asked for: its number from 1, and its size."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        """How many rows lie before the page."""
        return (self.number - 1) * self.size


class Envelope(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A page of a list. `next` is null on the last page: gen B stops there and nowhere else."""

    count: int
    page_size: int
    total_pages: int
    current_page: int
    next: str | None
    previous: str | None
    truncated: bool | msgspec.UnsetType = msgspec.UNSET


class OpenEnvelope(msgspec.Struct, kw_only=True, omit_defaults=False):
    """A page of a list that need not have been counted.

    Where `count_is_exact` is false, `count` is the least there are, and `total_pages` is null;
    `next` is right in any case.
    """

    count: int
    count_is_exact: bool
    page_size: int
    total_pages: int | None
    current_page: int
    next: str | None
    previous: str | None
    truncated: bool | msgspec.UnsetType = msgspec.UNSET


def invalid_page(text: str) -> Problem:
    """Make the answer for a page that is not there."""
    return Problem(404, "invalid_page", f"Invalid page: {text}")


def parse_page(page: str | None, page_size: str | None) -> Page:
    """Read `page` and `page_size`; a size above the maximum is clamped, below 1 the default holds.

    Raises:
        Problem: 404 `invalid_page` for a page that is not a number from 1, as Django's paginator
            answers, which the published clients were written against.
    """
    number = _whole(page, 1)
    if number is None or number < 1:
        raise invalid_page(f"{(page or '')[:40]!r} is not a page number from 1.")
    size = _whole(page_size, contract.DEFAULT_PAGE_SIZE)
    if size is None or size < 1:
        size = contract.DEFAULT_PAGE_SIZE
    return Page(number, min(size, contract.MAX_PAGE_SIZE))


def _whole(text: str | None, default: int) -> int | None:
    if text is None or not text.strip():
        return default
    text = text.strip()
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return None
    # Beyond every page anyway, and a number of 5,000 digits is none that Python reads.
    return int(text) if len(text) <= 18 else 10**18


def make_envelope(
    *,
    page: Page,
    count: int,
    url: str,
    query: str,
    truncated: bool = False,
) -> Envelope:
    """Make the envelope of one page; the list's own struct adds its `results`.

    Args:
        page: The page the results are of.
        count: How many rows there are on all pages, exactly.
        url: The list's absolute address without its query.
        query: The query string of the request, from which `next` and `previous` are made.
        truncated: Whether some rows had to leave out their messages.

    Raises:
        Problem: 404 `invalid_page` beyond the last page. The first page of nothing is a page.
    """
    total_pages = max(1, -(-count // page.size))
    if page.number > total_pages:
        raise invalid_page(f"there are {total_pages} pages.")
    following = page.number + 1 if page.number < total_pages else None
    preceding = page.number - 1 if page.number > 1 else None
    return Envelope(
        count=count,
        page_size=page.size,
        total_pages=total_pages,
        current_page=page.number,
        next=_page_url(url, query, following),
        previous=_page_url(url, query, preceding),
        truncated=True if truncated else msgspec.UNSET,
    )


def make_open_envelope(
    *,
    page: Page,
    n_rows: int,
    has_more: bool,
    count: int | None,
    url: str,
    query: str,
    truncated: bool = False,
) -> OpenEnvelope:
    """Make the envelope of a page whose list need not have been counted.

    Args:
        page: The page the results are of.
        n_rows: How many results it has.
        has_more: Whether there are results behind it.
        count: How many there are on all pages, where that was counted.
        url: The list's absolute address without its query.
        query: The query string of the request, from which `next` and `previous` are made.
        truncated: Whether not all that might belong to the list was looked at.

    Raises:
        Problem: 404 `invalid_page` beyond the last page. The first page of nothing is a page.
    """
    if not n_rows and page.number > 1:
        raise invalid_page("it lies behind the last one.")
    if count is None and not has_more and not truncated:
        count = page.offset + n_rows
    return OpenEnvelope(
        count=page.offset + n_rows + has_more if count is None else count,
        count_is_exact=count is not None,
        page_size=page.size,
        total_pages=None if count is None else max(1, -(-count // page.size)),
        current_page=page.number,
        next=_page_url(url, query, page.number + 1 if has_more else None),
        previous=_page_url(url, query, page.number - 1 if page.number > 1 else None),
        truncated=True if truncated else msgspec.UNSET,
    )


def ignored_header(query: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """Make the header that tells of parameters which the list does not know."""
    ignored = ", ".join(quote(name[:60], safe="_-.") for name in unknown_names(query, names)[:20])
    return {"X-AgentSight-Ignored-Parameters": ignored} if ignored else {}


def _page_url(url: str, query: str, number: int | None) -> str | None:
    if number is None:
        return None
    pairs = [(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if k != "page"]
    return f"{url}?{urlencode([*pairs, ('page', number)])}"
