"""Under which address the server believes to be reached, whoever asks and whatever they claim."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.web.bases import Bases

PROXY = "10.0.0.7"
STRANGER = "203.0.113.9"
FALLBACK = "http://10.0.0.1:8000"


def bases(
    *, public_url: str | None = None, allowed: tuple[str, ...] = (), trusted: tuple[str, ...] = ()
) -> Bases:
    return Bases(public_url, None, allowed, [ipaddress.ip_network(text) for text in trusted])


def scope(peer: str | None, *, server: Any = ("10.0.0.1", 8000), **headers: str) -> dict[str, Any]:
    return {
        "scheme": "http",
        "client": (peer, 50000) if peer is not None else None,
        "server": server,
        "headers": [
            (name.replace("_", "-").encode(), value.encode("latin-1"))
            for name, value in headers.items()
        ],
    }


def behind_proxy(**headers: str) -> str:
    return bases(trusted=("10.0.0.0/8",)).public_base(scope(PROXY, **headers))


def test_the_public_url_wins_over_everything() -> None:
    """Nothing that a request says changes the operator's own word."""
    found = bases(public_url="https://a.example/p", trusted=("10.0.0.0/8",))
    asked = scope(PROXY, host="evil.example", x_forwarded_host="evil.example")
    assert found.public_base(asked) == "https://a.example/p"


def test_the_host_counts_from_loopback() -> None:
    """A developer gets links to the address they asked, whatever they call it."""
    for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert bases().public_base(scope(peer, host="localhost:8000")) == "http://localhost:8000"


def test_the_host_of_a_stranger_does_not_count() -> None:
    """From outside, the address of the socket is used in place of a host anybody may choose."""
    assert bases().public_base(scope(STRANGER, host="evil.example")) == FALLBACK


def test_an_allowed_host_counts_from_anywhere() -> None:
    """The operator has listed it; case, port and a final dot make no difference."""
    found = bases(allowed=("a.example", "::1"))
    assert found.public_base(scope(STRANGER, host="A.example:8000")) == "http://a.example:8000"
    assert found.public_base(scope(STRANGER, host="[::1]:8000")) == "http://[::1]:8000"
    assert found.public_base(scope(STRANGER, host="a.example.evil.example")) == FALLBACK


@pytest.mark.parametrize(
    "trace",
    [
        {"x_forwarded_for": "198.51.100.1"},
        {"x_forwarded_host": "evil.example"},
        {"x_forwarded_proto": "https"},
        {"forwarded": "for=198.51.100.1"},
        {"x_real_ip": "198.51.100.1"},
        {"via": "1.1 proxy"},
    ],
)
def test_a_proxy_on_this_machine_is_not_mistaken_for_its_user(trace: dict[str, str]) -> None:
    """What a proxy on loopback passes on is the word of somebody outside."""
    asked = scope("127.0.0.1", server=("127.0.0.1", 8000), host="evil.example", **trace)
    assert bases().public_base(asked) == "http://127.0.0.1:8000"


def test_forwarded_headers_of_a_stranger_do_not_count() -> None:
    """Only the networks of the setting may speak for others."""
    found = bases(trusted=("10.0.0.0/8",))
    asked = scope(
        STRANGER, host="evil.example", x_forwarded_host="evil.example", x_forwarded_proto="https"
    )
    assert found.public_base(asked) == FALLBACK


def test_a_trusted_proxy_says_scheme_and_host() -> None:
    """Links begin with what the proxy was asked for."""
    found = behind_proxy(
        host="upstream", x_forwarded_host="a.example:8443", x_forwarded_proto="https"
    )
    assert found == "https://a.example:8443"


def test_a_trusted_proxy_over_a_mapped_address_is_trusted() -> None:
    """A socket that takes IPv4 and IPv6 shows IPv4 peers as ::ffff:a.b.c.d."""
    asked = scope(f"::ffff:{PROXY}", x_forwarded_host="a.example", x_forwarded_proto="https")
    assert bases(trusted=("10.0.0.0/8",)).public_base(asked) == "https://a.example"


def test_the_last_element_of_a_list_counts() -> None:
    """A proxy that appends leaves a stranger's word in front and puts its own behind it."""
    found = behind_proxy(
        x_forwarded_host="evil.example, a.example", x_forwarded_proto="gopher, https"
    )
    assert found == "https://a.example"
    asked = scope(PROXY, x_forwarded_proto="https")
    asked["headers"] += [
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-host", b"a.example"),
    ]
    assert bases(trusted=("10.0.0.0/8",)).public_base(asked) == "https://a.example"


def test_a_proxy_without_forwarded_host_is_taken_by_its_host() -> None:
    """Many proxies keep Host and tell only the scheme."""
    assert behind_proxy(host="a.example", x_forwarded_proto="https") == "https://a.example"


@pytest.mark.parametrize(
    ("proto", "host", "port", "expected"),
    [
        ("https", "a.example", "443", "https://a.example"),
        ("https", "a.example:443", "", "https://a.example"),
        ("http", "a.example:80", "", "http://a.example"),
        ("https", "a.example", "8443", "https://a.example:8443"),
        ("https", "a.example:9443", "8443", "https://a.example:9443"),
        ("https", "a.example", "80", "https://a.example"),
        ("https", "a.example", "rubbish", "https://a.example"),
        ("https", "a.example", "99999", "https://a.example"),
        ("https", "[2001:db8::1]", "8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_ports_show_where_the_scheme_does_not_imply_them(
    proto: str, host: str, port: str, expected: str
) -> None:
    """A link has the port that a browser needs, and no other."""
    headers = {"x_forwarded_proto": proto, "x_forwarded_host": host, "x_forwarded_port": port}
    assert behind_proxy(**headers) == expected


def test_a_proxy_may_not_name_a_host_beside_the_allowed_ones() -> None:
    """Where the operator lists hosts, what a proxy passes on must be one of them."""
    found = bases(allowed=("a.example",), trusted=("10.0.0.0/8",))
    good = scope(PROXY, x_forwarded_host="a.example", x_forwarded_proto="https")
    evil = scope(PROXY, x_forwarded_host="evil.example", x_forwarded_proto="https")
    assert found.public_base(good) == "https://a.example"
    assert found.public_base(evil) == "https://10.0.0.1:8000"


def test_rfc_7239_is_not_read() -> None:
    """Proxies that set X-Forwarded-* pass `Forwarded` on as the client sent it."""
    found = behind_proxy(
        host="upstream",
        forwarded="host=evil.example;proto=http",
        x_forwarded_host="a.example",
        x_forwarded_proto="https",
    )
    assert found == "https://a.example"


def test_a_unix_socket_has_no_peer_and_no_port() -> None:
    """Nobody is trusted there, and the path of a socket never gets into a link."""
    asked = scope(None, server=("/run/agentsight.sock", None), host="evil.example")
    assert bases(trusted=("10.0.0.0/8",)).public_base(asked) == "http://localhost"
    assert bases().public_base({**asked, "server": None}) == "http://localhost"


@pytest.mark.parametrize(
    "host",
    ["", "a b", "a.example/path", "a.example:80:90", "user@evil", "a\\b", "[::1", "[zz]",
     "a.example:", "a.example:0", "a.example:70000", "-", "x" * 300, "a.example#", "é.example",
     "[::1]x"],
)  # fmt: skip
def test_what_is_no_host_is_not_used(host: str) -> None:
    """Nothing that would break out of the address gets into a link."""
    asked = scope("127.0.0.1", server=("127.0.0.1", 8000), host=host)
    assert bases().public_base(asked) == "http://127.0.0.1:8000"


def test_many_hosts_do_not_fill_the_memory() -> None:
    """The kept answers are bounded, and right after they were thrown away."""
    found = bases()
    for number in range(2000):
        assert found.public_base(scope("127.0.0.1", host=f"h{number}")) == f"http://h{number}"
    assert len(found._cache) <= 256


@given(host=st.text(max_size=60), forwarded_host=st.text(max_size=60), port=st.text(max_size=8))
def test_no_header_makes_a_base_that_is_not_an_address(
    host: str, forwarded_host: str, port: str
) -> None:
    """Whatever even a trusted proxy sends, a base is scheme, host and port and nothing else."""
    asked = scope(PROXY)
    asked["headers"] = [
        (b"host", host.encode()),
        (b"x-forwarded-host", forwarded_host.encode()),
        (b"x-forwarded-port", port.encode()),
    ]
    parts = urlsplit(bases(trusted=("10.0.0.0/8",)).public_base(asked))
    assert parts.scheme == "http"
    assert parts.hostname
    assert parts.port is None or 0 < parts.port < 65536
    assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
