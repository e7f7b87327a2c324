"""Under which address this server is reached: what links and `next` begin with.

The public URL of the settings, always, where it is set. Otherwise what a trusted proxy says in its
`X-Forwarded-*` headers. Otherwise the request's own host, but only where nobody outside can choose
it: straight from loopback, or when it is one of the allowed hosts. Otherwise the address of the
socket.

Of a list (`a, b`) the last element counts: it is what the proxy that we trust has added, and what
stands before it may be a stranger's word. RFC 7239's `Forwarded` is not read: nginx and Caddy pass
it on as the client sent it, so that beside `X-Forwarded-*` it could only mislead.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_CACHED = 256
_MAX_HOST_CHARS = 255
# A name (underscores occur in container networks) or an address; IPv6 in brackets; a port.
_HOST = re.compile(
    r"(?P<name>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PROXY_TRACES = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip"})
"""Whoever sends one of these passes on the request of somebody else."""


class _Asked(NamedTuple):
    """What a request says of the address it was sent to."""

    host: str = ""
    proto: str = ""
    forwarded_host: str = ""
    forwarded_port: str = ""
    is_passed_on: bool = False


@dataclass(slots=True)
class Bases:
    """Finds the base address of requests, with the answers of the last ones kept.

    Args:
        public_url: `AGENTSIGHT_PUBLIC_URL` without a trailing slash, or None.
        files_url: `AGENTSIGHT_FILES_URL` without a trailing slash, or None.
        allowed_hosts: Host names (without port) that a request may name itself. Where there are
            any, a trusted proxy may name no other host either: most proxies pass on any host that
            they are asked for.
        trusted_proxies: Networks whose `X-Forwarded-*` headers count.
    """

    public_url: str | None
    files_url: str | None
    allowed_hosts: Sequence[str]
    trusted_proxies: Sequence[Network]
    _cache: dict[tuple[Any, ...], str] = field(default_factory=dict[tuple[Any, ...], str])

    def public_base(self, scope: Any) -> str:
        """Return the base of API addresses, without a trailing slash."""
        if self.public_url:
            return self.public_url
        asked = _read_headers(scope)
        key = (scope["scheme"], _peer_of(scope), scope.get("server"), asked)
        base = self._cache.get(key)
        if base is None:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()  # strangers may have filled it; it costs little to begin anew
            base = self._cache[key] = self._find(scope, asked)
        return base

    def files_base(self, scope: Any) -> str:
        """Return the base of file links, without a trailing slash."""
        return self.files_url or self.public_base(scope)

    def _find(self, scope: Any, asked: _Asked) -> str:
        peer, scheme = _peer_of(scope), str(scope["scheme"])
        is_trusted = asked.is_passed_on and self.is_trusted(peer)
        if is_trusted and asked.proto in _DEFAULT_PORTS:
            scheme = asked.proto
        if is_trusted and not self.allowed_hosts:
            host = _with_port(asked.forwarded_host or asked.host, scheme, asked.forwarded_port)
        elif is_trusted:
            named = asked.forwarded_host or asked.host
            allowed = named if self._is_allowed(named) else ""
            host = _with_port(allowed, scheme, asked.forwarded_port)
        elif self._is_allowed(asked.host) or (_is_loopback(peer) and not asked.is_passed_on):
            host = _with_port(asked.host, scheme, "")
        else:
            host = ""
        return f"{scheme}://{host or _socket_host(scope, scheme)}"

    def _is_allowed(self, host: str) -> bool:
        found = _parse_host(host)
        return found is not None and found[0].strip("[]").rstrip(".") in self.allowed_hosts

    def is_trusted(self, peer: str) -> bool:
        """Say whether the peer is a proxy whose forwarded headers count."""
        address = _parse_address(peer)
        return address is not None and any(address in network for network in self.trusted_proxies)


def _peer_of(scope: Any) -> str:
    """Return the address of who has connected; empty for a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _read_headers(scope: Any) -> _Asked:
    host = proto = forwarded_host = forwarded_port = ""
    is_passed_on = False
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1").strip().lower()
        elif name == b"x-forwarded-proto":
            proto = _last_element(value)
        elif name == b"x-forwarded-host":
            forwarded_host = _last_element(value)
        elif name == b"x-forwarded-port":
            forwarded_port = _last_element(value)
        elif name in _PROXY_TRACES:
            is_passed_on = True
    is_passed_on = is_passed_on or bool(proto or forwarded_host or forwarded_port)
    return _Asked(host, proto, forwarded_host, forwarded_port, is_passed_on)


def _last_element(value: bytes) -> str:
    return value.decode("latin-1").rpartition(",")[2].strip().lower()


def _parse_host(host: str) -> tuple[str, str] | None:
    """Split a host into name (IPv6 in brackets) and port, both lower-case; None if it is none."""
    found = _HOST.fullmatch(host) if len(host) <= _MAX_HOST_CHARS else None
    if found is None:
        return None
    name, port = found["name"], found["port"] or ""
    if name.startswith("[") and _parse_address(name.strip("[]")) is None:
        return None
    return None if port and not 0 < int(port) < 65536 else (name, port)


def _with_port(host: str, scheme: str, forwarded_port: str) -> str:
    """Return the host as a link shows it, the port left out where the scheme implies it."""
    found = _parse_host(host)
    if found is None:
        return ""
    name, port = found
    # A proxy behind another one may tell its own plain port beside the scheme of the first: a port
    # that is the default of either scheme says nothing.
    if (
        not port
        and forwarded_port not in _DEFAULT_PORTS.values()
        and _parse_host(f"{name}:{forwarded_port}")
    ):
        port = forwarded_port
    return name if not port or port == _DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def _socket_host(scope: Any, scheme: str) -> str:
    address, port = scope.get("server") or ("localhost", None)
    if port is None:  # a Unix socket, whose "address" is a path
        return "localhost"
    name = f"[{address}]" if ":" in str(address) else str(address)
    return name if str(port) == _DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


def _is_loopback(peer: str) -> bool:
    address = _parse_address(peer)
    return address is not None and address.is_loopback


def _parse_address(text: str) -> _Address | None:
    """Read an address; an IPv4 one that came in over an IPv6 socket is the IPv4 one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
