"""Ask a web address as a stranger would: once, following nothing, through no proxy of ours.

By the standard library's client, because it shows what others smooth over: which step failed, and
the answer of a proxy that stops reading in the middle of a body. Blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

GET_TIMEOUT_S = 15.0
BODY_TIMEOUT_S = 60.0
"""Of one read or write; a slow line may take longer in all."""
_CHUNK_BYTES = 256 * 1024
_MAX_ANSWER_BYTES = 64 * 1024
_TITLE = re.compile(rb"<title[^>]*>([^<]{1,200})", re.IGNORECASE)


class NoAnswer(Exception):
    """Nobody answered in HTTP; the text says which step failed, `remedy` what to look at."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; names of headers in lower case, the body cut at 64 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object; an empty one where it has none."""
        try:
            value: Any = json.loads(self.body)
        except ValueError:
            return {}
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

    def describe(self) -> str:
        """Say in a few words who answers, so that a person recognises them."""
        kind = self.headers.get("content-type", "no type").partition(";")[0]
        server = self.headers.get("server")
        said = f"{self.status} {kind}" + (f" from {server[:60]}" if server else "")
        if self.headers.get("location"):
            return f"{said}, a redirect to {self.headers['location'][:200]}"
        title = _TITLE.search(self.body)
        if title:
            text = " ".join(title[1].decode("utf-8", "replace").split())
            return f"{said}, a page titled “{text[:80]}”"
        detail = self.json().get("detail")
        return f"{said}: {detail[:120]}" if isinstance(detail, str) else said


def ask(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    n_body_bytes: int = 0,
) -> Reply:
    """Send one request, with a body of that many zeros.

    Raises:
        NoAnswer: There was no answer.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    timeout_s = BODY_TIMEOUT_S if n_body_bytes else GET_TIMEOUT_S
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    sent = {"User-Agent": "agentsight-doctor", **(headers or {})}
    if n_body_bytes:
        sent |= {"Content-Type": "application/octet-stream", "Content-Length": str(n_body_bytes)}
    connection = (
        http.client.HTTPSConnection(host, parts.port, timeout=timeout_s)
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    )
    with contextlib.closing(connection):
        try:
            connection.connect()
            # A proxy may answer and hang up before it has read the whole body; its answer counts.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                body = _zeros(n_body_bytes) if n_body_bytes else None
                connection.request(method, target or "/", body=body, headers=sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read(_MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(error, parts.scheme) from error


def _zeros(n_bytes: int) -> Iterator[bytes]:
    chunk = bytes(_CHUNK_BYTES)
    while n_bytes > 0:
        yield chunk[:n_bytes]
        n_bytes -= len(chunk)


def _no_answer(error: Exception, scheme: str) -> NoAnswer:
    match error:
        case ssl.SSLCertVerificationError():
            return NoAnswer(
                f"its certificate is not trusted ({error.verify_message})",
                "Install a certificate of a public authority with its whole chain, for this name."
                " For one of your own, point SSL_CERT_FILE at it, here and where bots run.",
            )
        case ssl.SSLError():
            return NoAnswer(
                f"no TLS is spoken there ({error.reason or error})",
                "Look at the scheme and port of the address, and at the proxy's TLS settings.",
            )
        case socket.gaierror():
            return NoAnswer("its name does not resolve", "Make the DNS record, or mend the name.")
        case ConnectionRefusedError():
            return NoAnswer("nothing listens there", "Start the server or proxy, or mend the port.")
        case TimeoutError():
            return NoAnswer("no answer came in time", "Look at firewalls, and at the proxy's log.")
        case http.client.HTTPException():
            remedy = "Is it https? " if scheme == "http" else ""
            return NoAnswer(
                f"what answers does not speak HTTP ({type(error).__name__})",
                f"{remedy}Look at the scheme and port of the address.",
            )
        case OSError():
            return NoAnswer(
                f"the connection broke ({error.strerror or type(error).__name__})",
                "Look at the proxy's log, and at firewalls.",
            )
        case _:
            return NoAnswer(f"{type(error).__name__}", "Look at the proxy's log.")
