"""What a proxy says itself has the shape of our errors, so that clients can read it."""

from __future__ import annotations

import pytest

from tests.proxies.house import (
    build_house,
    open_conversation,
    send_file,
    through,
)
from tests.support.proxies import Certificate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("proxies")]


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_a_server_that_is_away_is_503(kind: str, certificate: Certificate) -> None:
    """While the server is down, clients hear that they should come back."""
    with build_house(kind, certificate) as house:
        house.server.stop()
        away = through(house, "GET", "/healthz")
        assert (away.status, away.json["code"]) == (503, "busy")
        assert away.headers["retry-after"] == "5"
        assert away.headers["content-type"].startswith("application/json")


def test_nginx_answers_its_own_limit_in_our_shape(certificate: Certificate) -> None:
    """A body above client_max_body_size is a 413 with detail and code."""
    with build_house("nginx", certificate, edits=[("1100m", "2m")]) as house:
        pk = open_conversation(house, "c")
        large = send_file(house, pk, "x.bin", "application/octet-stream", bytes(3_000_000))
        assert (large.status, large.json["code"]) == (413, "too_large")
        assert "client_max_body_size" in large.json["detail"]
        assert large.headers["content-type"].startswith("application/json")
