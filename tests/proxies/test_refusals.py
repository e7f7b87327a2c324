"""What a proxy says itself has the shape of our errors, so that clients can read it."""

from __future__ import annotations

import pytest

from tests.proxies.conftest import build_house
from tests.proxies.house import open_conversation, send_file, through
from tests.support.proxies import Certificate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("proxies")]

SMALL = {"nginx": [("1100m", "2m")], "caddy": [("1100MB", "2MB")]}


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_the_proxys_own_refusals_are_json(kind: str, certificate: Certificate) -> None:
    """A body above the proxy's limit is 413, a server that is away 503, each with detail and code."""
    with build_house(kind, certificate, edits=SMALL[kind]) as house:
        pk = open_conversation(house, "c")
        large = send_file(house, pk, "x.bin", "application/octet-stream", bytes(3_000_000))
        assert (large.status, large.json["code"]) == (413, "too_large")
        assert large.headers["content-type"].startswith("application/json")
        house.server.stop()
        away = through(house, "GET", "/healthz")
        assert (away.status, away.json["code"]) == (503, "busy")
        assert away.headers["retry-after"] == "5"
