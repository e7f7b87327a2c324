"""Under which address we are reached: nobody outside chooses it."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from agentsight.server.web.bases import Bases

PROXY = ipaddress.ip_network("10.0.0.0/8")


def scope(peer: str = "127.0.0.1", **headers: str) -> dict[str, Any]:
    """Make a request's scope; `_` in a header's name stands for `-`."""
    return {
        "scheme": "http",
        "client": (peer, 1),
        "server": ("192.0.2.1", 8000),
        "headers": [
            (k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()
        ],
    }


def base(asked: dict[str, Any], **settings: Any) -> str:
    """Return the base of a request."""
    given: dict[str, Any] = {
        "public_url": None, "files_url": None, "allowed_hosts": (), "trusted_proxies": (),
    }  # fmt: skip
    return Bases(**given | settings).public_base(asked)


SOCKET = "http://192.0.2.1:8000"


def test_the_public_url_always_wins() -> None:
    """Whatever a request says."""
    asked = scope("10.0.0.1", host="evil", x_forwarded_host="evil", x_forwarded_proto="https")
    url = "https://chat.example.com/base"
    assert base(asked, public_url=url, trusted_proxies=[PROXY]) == url


@pytest.mark.parametrize(
    ("peer", "host", "expected"),
    [
        ("127.0.0.1", "localhost:8000", "http://localhost:8000"),
        ("::1", "[::1]:8000", "http://[::1]:8000"),
        ("203.0.113.9", "evil.example", SOCKET),
        ("203.0.113.9", "Good.example:81", "http://Good.example:81"),
        ("127.0.0.1", "", SOCKET),
        ("127.0.0.1", "a b", SOCKET),
        ("127.0.0.1", "evil/path", SOCKET),
        ("127.0.0.1", "user@evil", SOCKET),
        ("127.0.0.1", 'x"><script>', SOCKET),
        ("127.0.0.1", "h:port", SOCKET),
        ("127.0.0.1", "x" * 300, SOCKET),
        ("127.0.0.1", "\u00e4", SOCKET),
        ("not an address", "localhost", SOCKET),
    ],
)
def test_the_requests_host(peer: str, host: str, expected: str) -> None:
    """It counts from loopback or when it is allowed; otherwise the socket's address does."""
    assert base(scope(peer, host=host), allowed_hosts=("good.example",)) == expected


def test_forwarded_headers_count_only_from_trusted_proxies() -> None:
    """From elsewhere they make even a loopback host worthless."""
    headers = {"host": "localhost", "x_forwarded_host": "app.example", "x_forwarded_proto": "https"}
    assert base(scope("10.1.2.3", **headers), trusted_proxies=[PROXY]) == "https://app.example"
    assert base(scope("203.0.113.9", **headers), trusted_proxies=[PROXY]) == SOCKET
    assert base(scope("127.0.0.1", **headers)) == SOCKET


@pytest.mark.parametrize(
    ("host", "proto", "expected"),
    [
        ("a.example, b.example", "https, http", "https://a.example"),
        ("a.example", "gopher", "http://a.example"),
        ("", "https", "https://inner"),
        ("evil/path", "https", SOCKET.replace("http", "https")),
    ],
)
def test_what_a_proxy_may_say(host: str, proto: str, expected: str) -> None:
    """The first of a list; a scheme that is one of ours; a host that is one."""
    asked = scope("10.0.0.1", host="inner", x_forwarded_host=host, x_forwarded_proto=proto)
    assert base(asked, trusted_proxies=[PROXY]) == expected


def test_files_have_an_origin_of_their_own() -> None:
    """Where the setting says so; otherwise they share the public one."""
    bases = Bases("https://a.example", "https://files.example", (), ())
    assert bases.files_base(scope()) == "https://files.example"
    assert Bases("https://a.example", None, (), ()).files_base(scope()) == "https://a.example"


def test_the_cache_does_not_grow_without_end() -> None:
    """And answers one request never with another's base."""
    bases = Bases(None, None, (), ())
    for n in range(1000):
        assert bases.public_base(scope(host=f"h{n}")) == f"http://h{n}"
    for n in range(1000):
        assert bases.public_base(scope(host=f"h{n}")) == f"http://h{n}"
