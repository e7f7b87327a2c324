"""Behind a path of a shared host: links carry the path where the public URL has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxies.house import (
    PREFIX,
    House,
    build_house,
    open_conversation,
    store_file,
    through,
)
from tests.support.proxies import Certificate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("proxies")]


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def house(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[House]:
    """Run the server under a path of the proxy."""
    with build_house(str(request.param), certificate, prefix=PREFIX) as built:
        yield built


def test_links_carry_the_path_and_open(house: House) -> None:
    """File links and `next` begin with the public URL, its path included, and work."""
    row = store_file(house, "under", "naïve 50%.txt", "text/plain", b"under a path")
    assert row["file_url"].startswith(f"{house.base_url}/files/")
    assert through(house, "GET", row["file_url"]).body == b"under a path"
    open_conversation(house, "second")
    listed = through(house, "GET", "/api/conversations/?page_size=1", key=house.agent.read_key)
    following = listed.json["next"]
    assert following.startswith(f"{house.base_url}{'/api/conversations/?'}")
    assert through(house, "GET", following, key=house.agent.read_key).status == 200


def test_pages_find_their_style_under_the_path(house: House) -> None:
    """Pages name what belongs to them by relative addresses."""
    page = through(house, "GET", "/").body.decode()
    style = page.partition('href="app/style.css')[2].partition('"')[0]
    assert style
    assert through(house, "GET", f"/app/style.css{style}").status == 200
    assert f'"{house.base_url}"' in page.replace("&#34;", '"')
