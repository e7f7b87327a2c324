"""Under which address this server is reached: what links and `next` begin with.

The public URL of the settings, always, where it is set. Otherwise the request's own host, but only
where nobody outside can choose it: from loopback, or when it is one of the allowed hosts. Otherwise
the address of the socket. Forwarded headers count only from trusted proxies.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_MAX_CACHED = 256


@dataclass(slots=True)
class Bases:
    """Finds the base address of requests, with the answers of the last ones kept.

    Args:
        public_url: `AGENTSIGHT_PUBLIC_URL` without a trailing slash, or None.
        files_url: `AGENTSIGHT_FILES_URL` without a trailing slash, or None.
        allowed_hosts: Host names (without port) that a request may name itself.
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
        headers = _interesting_headers(scope)
        key = (scope["scheme"], scope.get("client", ("",))[0], scope.get("server"), *headers)
        base = self._cache.get(key)
        if base is None:
            base = self._find(scope, *headers)
            if len(self._cache) < _MAX_CACHED:
                self._cache[key] = base
        return base

    def files_base(self, scope: Any) -> str:
        """Return the base of file links, without a trailing slash."""
        return self.files_url or self.public_base(scope)

    def _find(self, scope: Any, host: str, proto: str, forwarded_host: str) -> str:
        peer = (scope.get("client") or ("",))[0]
        scheme = str(scope["scheme"])
        if (proto or forwarded_host) and self.is_trusted(peer):
            if proto in ("http", "https"):
                scheme = proto
            host = forwarded_host or host
            if _is_host(host):
                return f"{scheme}://{host}"
        elif _is_host(host) and (
            (_is_loopback(peer) and not proto and not forwarded_host)
            or _without_port(host) in self.allowed_hosts
        ):
            return f"{scheme}://{host}"
        address, port = scope.get("server") or ("127.0.0.1", None)
        shown = f"[{address}]" if ":" in str(address) else address
        return f"{scheme}://{shown}" + (f":{port}" if port else "")

    def is_trusted(self, peer: str) -> bool:
        """Say whether the peer is a proxy whose forwarded headers count."""
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self.trusted_proxies)


def _interesting_headers(scope: Any) -> tuple[str, str, str]:
    host = proto = forwarded_host = ""
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"x-forwarded-proto":
            proto = value.decode("latin-1").split(",")[0].strip().lower()
        elif name == b"x-forwarded-host":
            forwarded_host = value.decode("latin-1").split(",")[0].strip()
    return host, proto, forwarded_host


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_host(host: str) -> bool:
    bare = _without_port(host)
    port = host[len(bare) + (2 if host.startswith("[") else 0) :].lstrip("]:")
    named = bool(bare) and all(c.isascii() and (c.isalnum() or c in "-._:") for c in bare)
    return named and len(host) <= 255 and (not port or port.isdigit())


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
