"""Checks from outside: what stands at the address that people and bots use."""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agentsight.server.doctor.api import PROBE_PATH
from agentsight.server.doctor.asking import NoAnswer, Reply, ask
from agentsight.server.doctor.model import Finding, skew_finding
from agentsight.server.doctor.probe import Probes
from agentsight.server.parts import Clock
from agentsight.server.settings import variable_of

MIB = 1024 * 1024
BODY_SIZES = (MIB + 64 * 1024, 30 * MIB)
"""Just over nginx's default limit, and what a phone's video has."""
_FORGED_HOST = "forged.invalid"
_CONFINING = ("content-security-policy", "x-content-type-options", "content-disposition")
_LIMITS = {
    "nginx": "in nginx, set: client_max_body_size 1100m; (see docs/proxies/nginx.conf)",
    "openresty": "in nginx, set: client_max_body_size 1100m; (see docs/proxies/nginx.conf)",
    "caddy": "in the Caddyfile, raise or remove request_body max_size",
    "apache": "in Apache, set: LimitRequestBody 0",
    "cloudflare": "Cloudflare's plan has a limit; send large files past it, or change the plan",
    "microsoft-iis": "in IIS, raise maxAllowedContentLength",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The address to look at.

    Args:
        url: Without a slash at its end.
        is_public: Whether it is the operator's public URL; otherwise the server on this machine.
        probes: Signs probes; None where the signing keys are not known.
        instance_uid: What the database calls itself, where it is known.
    """

    url: str
    is_public: bool
    clock: Clock
    probes: Probes | None = None
    instance_uid: str | None = None

    def probe_headers(self) -> dict[str, str]:
        """Return the header that proves who asks."""
        if self.probes is None:
            return {}
        return {"Authorization": self.probes.sign(secrets.token_hex(16), self.clock())}


async def check_address(target: Target) -> list[Finding]:
    """Ask whether AgentSight answers there at all, and whose clock it goes by."""
    name = f"{target.url}/healthz"
    before = target.clock()
    try:
        reply = await asyncio.to_thread(ask, name)
    except NoAnswer as error:
        # A server on this machine that is not running may be meant to be so.
        state = "fail" if target.is_public else "warn"
        return [Finding("address", state, f"{target.url}: {error}", error.remedy)]
    if reply.status != 200 or reply.json().get("status") != "ok":
        text = f"{name} is not answered by AgentSight, but with {reply.describe()}"
        return [Finding("address", "fail", text, _address_remedy(reply))]
    found = [Finding("address", "ok", f"{target.url} answers")]
    date = _parse_date(reply.headers.get("date", ""))
    if date is not None:
        middle_s = (before + target.clock()) / 2_000_000
        found.append(skew_finding("the address (Date)", date - middle_s))
    return found


def _address_remedy(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        return f"Name the address it leads to in {variable_of('public_url')}."
    if reply.status in (502, 503, 504):
        return "The proxy finds no server behind it: start it, or mend the proxy's upstream."
    return (
        f"Let the proxy pass this name and path to the server, or mend {variable_of('public_url')}."
    )


def _parse_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


# --- Who answers, and what it believes of itself --------------------------------------------------


async def check_identity(target: Target) -> tuple[list[Finding], dict[str, Any] | None]:
    """Ask by a probe whether it is this instance; return also what it says of itself."""
    if target.probes is None:
        text = "the signing keys are not known, so the instance cannot be recognised"
        return [Finding("same instance", "skip", text)], None
    before = target.clock()
    reply = await asyncio.to_thread(ask, target.url + PROBE_PATH, headers=target.probe_headers())
    middle_us = (before + target.clock()) / 2
    said = reply.json()
    if reply.status == 200 and said.get("instance") == target.instance_uid:
        text = f"it is this instance, version {said.get('version')}"
        skew = skew_finding("the server", (int(said["now_us"]) - middle_us) / 1_000_000)
        return [Finding("same instance", "ok", text), skew], said
    if reply.status == 200:
        text = f"another instance answers: {said.get('instance')}"
    elif reply.status == 401 and said.get("code") == "not_authenticated":
        text = "an AgentSight answers that does not know this instance's signing keys"
    else:
        text = f"the doctor's probe is answered with {reply.describe()}"
    remedy = (
        f"Compare {variable_of('public_url')}, {variable_of('database_url')} and"
        f" {variable_of('secret_key')} of the server with those here; see that the proxy passes"
        " /api/ and the Authorization header on, that both clocks are right, and that both run the"
        " same version."
    )
    return [Finding("same instance", "fail", text, remedy)], None


async def check_links(target: Target, said: Mapping[str, Any]) -> list[Finding]:
    """Compare the address that links begin with to the one they must be opened at."""
    base = str(said["base"])
    found = [_base_finding(target, said)]
    if target.is_public and await _may_forge(target, base):
        found.append(
            Finding(
                "links", "fail",
                "a client can choose what links begin with, by X-Forwarded-Host or -Proto",
                "In the proxy, set these headers rather than passing them on (docs/proxies.md), or"
                f" set {variable_of('public_url')} where the server runs.",
            )
        )  # fmt: skip
    return [*found, *_scheme_findings(target, str(said["files_base"]))]


async def _may_forge(target: Target, base: str) -> bool:
    """Say whether headers that a stranger sends change what links begin with."""
    other_scheme = "http" if base.startswith("https:") else "https"
    forged = {"X-Forwarded-Host": _FORGED_HOST, "X-Forwarded-Proto": other_scheme}
    headers = {**target.probe_headers(), **forged}
    reply = await asyncio.to_thread(ask, target.url + PROBE_PATH, headers=headers)
    found = urlsplit(str(reply.json().get("base", base)))
    return found.hostname == _FORGED_HOST or found.scheme == other_scheme


def _base_finding(target: Target, said: Mapping[str, Any]) -> Finding:
    base = str(said["base"])
    if _same(base, target.url):
        return Finding("links", "ok", f"links begin with {base}")
    text = f"links begin with {base}, and not with {target.url}"
    public = variable_of("public_url")
    if said.get("has_public_url"):
        return Finding("links", "fail", text, f"Set {public}={target.url} where the server runs.")
    if said.get("is_peer_trusted"):
        missing = "X-Forwarded-Proto, -Host and -Port"
        remedy = f"let the proxy set {missing} (docs/proxies.md)"
    else:
        trusted = variable_of("trusted_proxies")
        remedy = f"trust the proxy by {trusted}={said.get('peer')} and let it set X-Forwarded-*"
    return Finding("links", "fail", text, f"Set {public}={target.url}, or {remedy}.")


def _same(one: str, other: str) -> bool:
    def parts(url: str) -> tuple[Any, ...]:
        found = urlsplit(url)
        port = found.port or {"http": 80, "https": 443}.get(found.scheme)
        return found.scheme, found.hostname, port, found.path.rstrip("/")

    return parts(one) == parts(other)


def _scheme_findings(target: Target, files_base: str) -> list[Finding]:
    scheme, files_scheme = urlsplit(target.url).scheme, urlsplit(files_base).scheme
    if scheme == "https" and files_scheme == "http":
        text = f"file links begin with {files_base}: browsers block them in pages of https"
        remedy = f"Set {variable_of('files_url')} to an address with https."
        return [Finding("scheme", "fail", text, remedy)]
    if scheme == "https":
        return [Finding("scheme", "ok", "https, for links to files too")]
    if _is_private(urlsplit(target.url).hostname or ""):
        return [Finding("scheme", "ok", "http, on this machine or a private network")]
    text = "http: keys, messages and files travel for everybody on the way to read"
    remedy = "Put nginx or Caddy with a certificate before the server (docs/proxies.md)."
    return [Finding("scheme", "warn", text, remedy)]


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


# --- Bodies and clocks ----------------------------------------------------------------------------


async def check_bodies(target: Target, sizes: tuple[int, ...] = BODY_SIZES) -> list[Finding]:
    """Send bodies of growing size until one does not get through."""
    for size in sizes:
        finding = await _send_body(target, size)
        if finding is not None:
            return [finding]
    return [Finding("body limit", "ok", f"a body of {_shown(sizes[-1])} gets through")]


async def _send_body(target: Target, size: int) -> Finding | None:
    def fail(text: str, remedy: str) -> Finding:
        return Finding("body limit", "fail", f"a body of {_shown(size)}: {text}", remedy)

    try:
        reply = await asyncio.to_thread(
            ask, target.url + PROBE_PATH, "POST",
            headers=target.probe_headers(), n_body_bytes=size,
        )  # fmt: skip
    except NoAnswer as error:
        return fail(str(error), _limit_remedy(""))
    said = reply.json()
    if reply.status == 200 and said.get("n_bytes") == size:
        return None
    if reply.status == 401 and "code" in said and target.probes is None:
        return None  # the server has refused who asks, so nothing before it refused the body
    if reply.status == 413:
        return fail(
            f"{reply.describe()}; files of that size are lost",
            _limit_remedy(reply.headers.get("server", "")),
        )
    return fail(reply.describe(), "Look at the limits and timeouts of the proxy, and its log.")


def _limit_remedy(server: str) -> str:
    for name, remedy in _LIMITS.items():
        if server.lower().startswith(name):
            return f"Whatever stands before the server has a limit: {remedy}."
    return "Raise the limit of request bodies in the proxy before the server (docs/proxies.md)."


def _shown(n_bytes: int) -> str:
    return f"{n_bytes / MIB:.1f}".removesuffix(".0") + " MiB"


# --- Ranges ---------------------------------------------------------------------------------------


async def check_ranges(link: str, size_bytes: int) -> list[Finding]:
    """Open one file's link for its first byte, as a player does that seeks."""
    name = "{0.scheme}://{0.netloc}".format(urlsplit(link))
    try:
        reply = await asyncio.to_thread(ask, link, headers={"Range": "bytes=0-0"})
    except NoAnswer as error:
        return [Finding("ranges", "fail", f"a file's link at {name}: {error}", error.remedy)]
    is_part = reply.headers.get("content-range") == f"bytes 0-0/{size_bytes}"
    if reply.status != 206 or len(reply.body) != 1 or not is_part:
        return [Finding("ranges", "fail", *_range_fault(reply, name))]
    found = [Finding("ranges", "ok", f"a file's link at {name} gives a part of its file")]
    missing = [header for header in _CONFINING if header not in reply.headers]
    if missing:
        text = f"a file comes without {', '.join(missing)}: a hostile one could run in a browser"
        remedy = (
            "Let the proxy keep these headers; behind X-Accel-Redirect nginx must add them again"
            " (docs/proxies/nginx.conf)."
        )
        found.append(Finding("file headers", "fail", text, remedy))
    return found


def _range_fault(reply: Reply, name: str) -> tuple[str, str]:
    accel = variable_of("x_accel_redirect")
    if "x-accel-redirect" in reply.headers:
        return (
            f"a file's link at {name} has no bytes: {accel} is set, and no nginx sends them",
            f"Unset {accel}, or put nginx before the server (docs/proxies/nginx.conf).",
        )
    if reply.status == 206:
        return f"a file's link at {name} gives another part", "Look for a cache on the way."
    if reply.status == 200:
        return (
            f"a file's link at {name} ignores ranges: sound and video cannot be wound",
            "Let the proxy pass the Range header on, and turn off its compression and caching"
            " for /files/.",
        )
    if reply.json().get("code") == "link_invalid":
        return (
            f"a file's link is refused at {name}",
            f"Let {variable_of('files_url')} and the proxy lead to this instance, the path as it"
            f" stands; use one {variable_of('secret_key')} everywhere.",
        )
    return (
        f"a file's link at {name} is answered with {reply.describe()}",
        f"If {accel} is set, nginx's workers must be able to read the files (docs/proxies.md)."
        " Otherwise let the proxy pass /files/ to the server.",
    )
