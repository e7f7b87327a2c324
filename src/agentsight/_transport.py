"""The only file of the SDK that imports the HTTP library, and that on first use.

A transport owns a pool of connections: close it, or use the client that owns it in a `with`. One
that is closed while requests are under way closes its connections with the end of the last. After a
fork the child starts with a pool of its own; the parent's sockets are left alone.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from agentsight._flow import Reply, Request, Unreachable
from agentsight.exceptions import ConversationNetworkException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import httpx2

_CONNECT_TIMEOUT_S: Final = 5.0
_WRITE_TIMEOUT_S: Final = 45.0
"""Longest stop while sending; only an answer may be worth waiting for longer."""
_FOR_SINKS: Final = (200, 206)
_REMEDY: Final = "Set AGENTSIGHT_API_ENDPOINT or endpoint="
_LEFT_TO_PARENT: Final[list[object]] = []
"""Pools inherited by fork: kept alive, because closing them could disturb the parent's."""


class Transport:
    """Sends requests of one key to one endpoint; safe to share between threads."""

    def __init__(self, endpoint: str, api_key: str) -> None:
        self._settings = _client_settings(endpoint, api_key)
        self._endpoint = shown_endpoint(endpoint)
        self._client: httpx2.Client | None = None
        self._lock = threading.Lock()
        self._n_uses = 0
        self._is_closed = False

    def begin_use(self) -> None:
        """Keep the connections open until `end_use`, whoever closes the transport meanwhile."""
        with self._lock:
            self._n_uses += 1

    def end_use(self) -> None:
        """Let go; close what another thread wanted closed."""
        with self._lock:
            self._n_uses -= 1
            client = self._unused_client() if self._is_closed else None
        if client is not None:
            client.close()

    def send(self, request: Request) -> Reply | Unreachable:
        """Send one request.

        Raises:
            ConversationNetworkException: the address cannot be used at all.
            LocalTrouble: a file cannot be read or written.
        """
        import httpx2

        try:
            client = self._open()
            with client.stream(**_asked(request), content=_content(request)) as response:
                if request.sink is None or response.status_code not in _FOR_SINKS:
                    return _reply(response, response.read(), self._endpoint)
                request.sink.begin(response.status_code, response.headers)
                for chunk in response.iter_bytes():
                    request.sink.write(chunk)
                return _reply(response, b"", self._endpoint)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            return _unreachable(error, self._endpoint)

    @property
    def is_open(self) -> bool:
        """Whether there are connections to close."""
        return self._client is not None

    def close(self) -> None:
        """Close the connections, or leave that to the end of the last use."""
        with self._lock:
            self._is_closed = True
            client = self._unused_client()
        if client is not None:
            client.close()

    def begin_in_child(self) -> None:
        """After a fork: what is open is the parent's, and so are the uses under way."""
        if self._client is not None:
            _LEFT_TO_PARENT.append(self._client)
        self._client, self._lock = None, threading.Lock()
        self._n_uses, self._is_closed = 0, False

    def _unused_client(self) -> httpx2.Client | None:
        if self._n_uses:
            return None
        client, self._client = self._client, None
        return client

    def _open(self) -> httpx2.Client:
        client = self._client
        if client is not None:
            return client
        import httpx2

        with self._lock:
            if self._client is None:
                self._client = httpx2.Client(**self._settings)
            return self._client


class AsyncTransport:
    """Sends requests of one key to one endpoint, from one event loop."""

    def __init__(self, endpoint: str, api_key: str) -> None:
        self._settings = _client_settings(endpoint, api_key)
        self._endpoint = shown_endpoint(endpoint)
        self._client: httpx2.AsyncClient | None = None
        self._n_uses = 0
        self._is_closed = False

    def begin_use(self) -> None:
        """Keep the connections open until `end_use`, whoever closes the transport meanwhile."""
        self._n_uses += 1

    async def end_use(self) -> None:
        """Let go; close what another task wanted closed."""
        self._n_uses -= 1
        if self._is_closed:
            await self._close_unused()

    async def send(self, request: Request) -> Reply | Unreachable:
        """Send one request; raises as `Transport.send` does."""
        import asyncio

        import httpx2

        try:
            client = self._open()
            content = _content(request)
            content = content if isinstance(content, bytes | None) else _in_threads(content)
            async with client.stream(**_asked(request), content=content) as response:
                sink = request.sink
                if sink is None or response.status_code not in _FOR_SINKS:
                    return _reply(response, await response.aread(), self._endpoint)
                await asyncio.to_thread(sink.begin, response.status_code, response.headers)
                async for chunk in response.aiter_bytes():
                    await asyncio.to_thread(sink.write, chunk)
                return _reply(response, b"", self._endpoint)
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            return _unreachable(error, self._endpoint)

    @property
    def is_open(self) -> bool:
        """Whether there are connections to close."""
        return self._client is not None

    async def aclose(self) -> None:
        """Close the connections, or leave that to the end of the last use."""
        self._is_closed = True
        await self._close_unused()

    def begin_in_child(self) -> None:
        """After a fork: what is open is the parent's, and so are the uses under way."""
        if self._client is not None:
            _LEFT_TO_PARENT.append(self._client)
        self._client, self._n_uses, self._is_closed = None, 0, False

    async def _close_unused(self) -> None:
        if self._n_uses:
            return
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx2.AsyncClient:
        import httpx2

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


def _asked(request: Request) -> dict[str, Any]:
    """Return how a request is asked for, but for its content."""
    import httpx2

    return {
        "method": request.method,
        "url": request.path,
        "params": request.params or None,
        "headers": _headers(request),
        "timeout": httpx2.Timeout(
            request.timeout_s,
            connect=_CONNECT_TIMEOUT_S,
            write=min(request.timeout_s, _WRITE_TIMEOUT_S),
        ),
        # A server may send who downloads on to its store; the key does not go along there.
        "follow_redirects": request.sink is not None,
    }


def _headers(request: Request) -> dict[str, str]:
    headers = dict(request.headers)
    if request.sink is not None:
        headers.update(request.sink.headers())
    if request.content is not None and not isinstance(request.content, bytes):
        headers["Content-Type"] = request.content.content_type
        headers["Content-Length"] = str(request.content.n_bytes())
    return headers


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    import asyncio

    while (chunk := await asyncio.to_thread(next, chunks, b"")) != b"":
        yield chunk


def shown_endpoint(endpoint: str) -> str:
    """Return an endpoint as it may be shown: without a name and password in it."""
    scheme, _, rest = endpoint.rstrip("/").partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _unreachable(error: Exception, endpoint: str) -> Unreachable:
    import httpx2

    kind = type(error).__name__
    unusable = (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
    if isinstance(error, unusable):
        raise ConversationNetworkException(
            f"Network error: {kind}: {error}: is the endpoint {endpoint} right? {_REMEDY}"
        ) from error
    never_sent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
    if not isinstance(error, never_sent):
        return Unreachable(f"{kind}: {error} ({endpoint})", may_have_arrived=True)
    if "refused" in str(error).lower():
        reason = f"connection refused by {endpoint}"
    else:
        reason = f"no connection to {endpoint} ({error})".replace(" ()", "")
    return Unreachable(
        f"{kind}: {reason}: is the server running? {_REMEDY}", may_have_arrived=False
    )


def _reply(response: httpx2.Response, content: bytes, endpoint: str) -> Reply:
    return Reply(response.status_code, dict(response.headers), content, endpoint)
