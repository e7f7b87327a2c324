"""A Chromium, a server and another site, for the tests of one module each.

Not for the whole session: while Playwright's loop runs in a thread, no other loop can run there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.support.browser import Stage, open_browser
from tests.support.server import LiveServer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run one Chromium for the module."""
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run one server for the module."""
    with LiveServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Run another site for the module."""
    running = Stage()
    yield running
    running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Give a fresh profile."""
    context = browser.new_context(accept_downloads=True)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Give a fresh page, for what might leave something in it."""
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def shared_page(browser: Browser) -> Iterator[Page]:
    """Give one page to all tests of the module that only open addresses: a page is a process."""
    context = browser.new_context(accept_downloads=True)
    yield context.new_page()
    context.close()
