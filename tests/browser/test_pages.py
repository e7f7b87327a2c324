"""The server's pages in a real Chromium: whole, quiet, and asking nobody else for anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from tests.support.server import LiveServer
from tests.support.soak import only_in_soak

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PAGES = ["start", "set-password", "link-gone", "docs"]
WIDTHS = [390, 1280]
LOOKS = [
    ("light", 390),
    ("dark", 1280),
    pytest.param("light", 1280, marks=only_in_soak),
    pytest.param("dark", 390, marks=only_in_soak),
]
NOT_THE_PAGES_FAULT = "status of 410 (Gone)"
"""How Chromium reports that the page itself, as it must, is a 410."""


@pytest.fixture(scope="module")
def addresses(server: LiveServer) -> dict[str, str]:
    """Return the pages' addresses; the one-time link is the first start's."""
    told = (server.data_dir / "first-start.txt").read_text()
    link = re.search(r"http\S+/app/set-password/\S+", told)
    assert link is not None
    return {
        "start": f"{server.base_url}/",
        "set-password": link[0],
        "link-gone": f"{link[0]}x",
        "docs": f"{server.base_url}/docs",
    }


@dataclass
class Watched:
    """A page, what its console said, and whom it asked."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Go there, listening."""
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url, wait_until="networkidle")


@pytest.fixture
def watched(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Give a page as wide and as bright as the test's parameters say."""
    parameters = request.node.callspec.params
    scheme: Literal["light", "dark"] = parameters.get("scheme", "light")
    width: int = parameters.get("width", 1280)
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, java_script_enabled=True
    )
    yield Watched(context.new_page())
    context.close()


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_quiet(
    watched: Watched,
    addresses: dict[str, str],
    server: LiveServer,
    name: str,
    scheme: str,
    width: int,
) -> None:
    """No error, no violated policy, no request elsewhere, no sideways scrolling, its style on."""
    watched.open(addresses[name])
    assert [text for text in watched.said if NOT_THE_PAGES_FAULT not in text] == []
    elsewhere = [url for url in watched.asked if not url.startswith((server.base_url, "data:"))]
    assert elsewhere == []
    assert any("/app/style.css?v=" in url for url in watched.asked)
    width_needed = watched.page.evaluate("document.documentElement.scrollWidth")
    assert width_needed <= width
    background = watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
    assert (brightness > 200) == (scheme == "light")
    assert watched.page.locator("h1").count() == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_password_is_set_without_script(
    browser: Browser, addresses: dict[str, str], server: LiveServer, width: int
) -> None:
    """Two that differ are told so in the page; two equal ones are taken."""
    context = browser.new_context(
        java_script_enabled=False, viewport={"width": width, "height": 800}
    )
    page = context.new_page()
    page.goto(new_link(server))
    page.get_by_label("New password").fill("correct horse battery")
    page.get_by_label("The same again").fill("something else entirely")
    page.get_by_role("button", name="Set password").click()
    assert "differ" in page.get_by_role("alert").inner_text()
    page.get_by_label("New password").fill("correct horse battery")
    page.get_by_label("The same again").fill("correct horse battery")
    page.get_by_role("button", name="Set password").click()
    assert page.locator("h1").inner_text() == "Your password is set"
    context.close()


def new_link(server: LiveServer) -> str:
    """Make a one-time link as the operator does."""
    import subprocess
    import sys
    from pathlib import Path

    program = str(Path(sys.executable).with_name("agentsight"))
    made = subprocess.run(
        [program, "users", "link", "owner@localhost", "--data", str(server.data_dir)],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    found = re.search(r"/app/set-password/\S+", made.stdout)
    assert found is not None, made
    return server.base_url + found[0]
