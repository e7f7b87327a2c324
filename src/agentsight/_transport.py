"""The only file of the SDK that imports the HTTP library, and that on first use.

A transport owns a pool of connections: close it, or use the client that owns it in a `with`. After
a fork the child starts with a pool of its own; the parent's sockets are left alone.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

from agentsight._flow import Reply, Request, Unreachable
from agentsight.exceptions import ConversationNetworkException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx2

_CONNECT_TIMEOUT_S: Final = 5.0
_LEFT_TO_PARENT: Final[list[object]] = []
"""Pools inherited by fork: kept alive, because closing them could disturb the parent's."""


class Transport:
    """Sends requests of one key to one endpoint; safe to share between threads."""

    def __init__(self, endpoint: str, api_key: str) -> None:
        self._settings = _client_settings(endpoint, api_key)
        self._client: httpx2.Client | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def send(self, request: Request) -> Reply | Unreachable:
        """Send one request.

        Raises:
            ConversationNetworkException: the address cannot be used at all.
            FileUnreadable: a file of the request cannot be read.
        """
        import httpx2

        client = self._open()
        try:
            response = client.request(
                request.method,
                request.path,
                params=request.params or None,
                content=_content(request),
                headers=_headers(request),
                timeout=httpx2.Timeout(request.timeout_s, connect=_CONNECT_TIMEOUT_S),
            )
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            return _unreachable(error)
        return _reply(response)

    @property
    def is_open(self) -> bool:
        """Whether this process has connections to close."""
        return self._client is not None and self._pid == os.getpid()

    def close(self) -> None:
        """Close the connections; the transport can be used again and then opens new ones."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _open(self) -> httpx2.Client:
        client = self._client
        if client is not None and self._pid == os.getpid():
            return client
        import httpx2

        if self._pid != os.getpid():
            _LEFT_TO_PARENT.append(self._client)
            self._client, self._pid, self._lock = None, os.getpid(), threading.Lock()
        with self._lock:
            if self._client is None:
                self._client = httpx2.Client(**self._settings)
            return self._client


class AsyncTransport:
    """Sends requests of one key to one endpoint, from one event loop."""

    def __init__(self, endpoint: str, api_key: str) -> None:
        self._settings = _client_settings(endpoint, api_key)
        self._client: httpx2.AsyncClient | None = None
        self._pid = os.getpid()

    async def send(self, request: Request) -> Reply | Unreachable:
        """Send one request; raises as `Transport.send` does."""
        import httpx2

        client = self._open()
        content = _content(request)
        try:
            response = await client.request(
                request.method,
                request.path,
                params=request.params or None,
                content=content if isinstance(content, bytes | None) else _in_threads(content),
                headers=_headers(request),
                timeout=httpx2.Timeout(request.timeout_s, connect=_CONNECT_TIMEOUT_S),
            )
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            return _unreachable(error)
        return _reply(response)

    @property
    def is_open(self) -> bool:
        """Whether this process has connections to close."""
        return self._client is not None and self._pid == os.getpid()

    async def aclose(self) -> None:
        """Close the connections; the transport can be used again and then opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            await client.aclose()

    def _open(self) -> httpx2.AsyncClient:
        import httpx2

        if self._pid != os.getpid():
            _LEFT_TO_PARENT.append(self._client)
            self._client, self._pid = None, os.getpid()
        if self._client is None:
            self._client = httpx2.AsyncClient(**self._settings)
        return self._client


def _client_settings(endpoint: str, api_key: str) -> dict[str, Any]:
    from agentsight import __version__

    settings: dict[str, Any] = {
        "base_url": endpoint.rstrip("/"),
        "headers": {
            "Authorization": f"Api-Key {api_key}",
            "Accept": "application/json",
            "User-Agent": f"agentsight-open/{__version__}",
        },
    }
    if endpoint.lower().startswith("http://"):
        import ssl

        # No TLS here, and loading the authorities costs 85 ms. An empty context refuses everything,
        # so that nothing is ever left unverified should TLS be met after all.
        settings["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return settings


def _content(request: Request) -> bytes | Iterator[bytes] | None:
    if request.content is None or isinstance(request.content, bytes):
        return request.content
    return request.content.chunks()


def _headers(request: Request) -> dict[str, str]:
    headers = dict(request.headers)
    if request.content is not None and not isinstance(request.content, bytes):
        headers["Content-Type"] = request.content.content_type
        headers["Content-Length"] = str(request.content.n_bytes())
    return headers


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    import asyncio

    while (chunk := await asyncio.to_thread(next, chunks, b"")) != b"":
        yield chunk


def _unreachable(error: Exception) -> Unreachable:
    import httpx2

    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    unusable = (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
    if isinstance(error, unusable):
        raise ConversationNetworkException(f"Network error: {reason}") from error
    never_sent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    return Unreachable(reason, may_have_arrived=not isinstance(error, never_sent))


def _reply(response: httpx2.Response) -> Reply:
    return Reply(response.status_code, dict(response.headers), response.content)
