"""The clients of the library for object storage: imported, configured and kept here.

The library is imported and a client made with the first request, so that a server with a local
store loads neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cache
from typing import Any, Final

from agentsight.server.blobs.errors import StorageUnavailable
from agentsight.server.blobs.s3_errors import s3_errors

_CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 20
"""Between two reads of an answer, and longer than a store takes to join the parts of a file."""
_MAX_ATTEMPTS: Final = 3
"""The first included; the pauses between them (0 to 1 s, 0 to 2 s) are the library's."""
_MAX_CONNECTIONS: Final = 1000
"""Slow readers each hold one for as long as they read: in a small pool they would stop the rest."""
_DEFAULT_REGION: Final = "us-east-1"
"""What stores outside of AWS expect in a signature when nobody has given them another region."""


class S3Clients:
    """One client for each endpoint, made when it is first asked for.

    Args:
        environ: The `AWS_*` variables; the library reads those that are not asked for here itself.
        read_timeout_s: How long to wait for the next bytes of an answer, each of three times.
    """

    def __init__(self, environ: Mapping[str, str], *, read_timeout_s: float) -> None:
        self._environ = environ
        self._read_timeout_s = read_timeout_s
        self._clients: dict[str, Any] = {}
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def close(self) -> None:
        """Close all connections."""
        self._clients.clear()
        await self._stack.aclose()

    async def get(self, endpoint: str = "") -> Any:
        """Return the client for an endpoint (empty: the one of the environment)."""
        client = self._clients.get(endpoint)
        if client is None:
            async with self._lock:
                client = self._clients.get(endpoint)
                if client is None:
                    client = self._clients[endpoint] = await self._connect(endpoint)
        return client

    async def _connect(self, endpoint: str) -> Any:
        await asyncio.to_thread(_import_library)  # half a second of imports, off the event loop
        from aiobotocore.session import AioSession

        environ = self._environ
        endpoint = (
            endpoint
            or environ.get("AWS_ENDPOINT_URL_S3", "")
            or environ.get("AWS_ENDPOINT_URL", "")
        )
        session: Any = AioSession()
        session.register_component("data_loader", _shared_loader())
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        region = region or session.get_config_variable("region") or _DEFAULT_REGION
        with s3_errors("the client"):
            try:
                made: Any = session.create_client(
                    "s3",
                    region_name=region,
                    endpoint_url=endpoint or None,
                    config=_configuration(endpoint, self._read_timeout_s),
                    # Without them the library looks further: profiles, web identity, the instance.
                    aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID") or None,
                    aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY") or None,
                    aws_session_token=environ.get("AWS_SESSION_TOKEN") or None,
                )
                return await self._stack.enter_async_context(made)
            except ValueError as error:  # "Invalid endpoint: …"
                raise StorageUnavailable(
                    "The object store has no such address: mend AWS_ENDPOINT_URL."
                ) from error


def _configuration(endpoint: str, read_timeout_s: float) -> Any:
    from aiobotocore.config import AioConfig

    return AioConfig(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        max_pool_connections=_MAX_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": _MAX_ATTEMPTS},
        signature_version="s3v4",
        # Bodies are guarded by Content-MD5, which every store checks and which a thread makes;
        # signing the payload would hash it a second time, on the event loop.
        s3={
            "addressing_style": "path" if endpoint else "auto",
            "payload_signing_enabled": False,
        },
        # The newer checksums are refused by stores that do not know them.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="agentsight",
    )


@cache
def _shared_loader() -> Any:
    """Keep the library's descriptions of S3, which it would read anew for every client."""
    from botocore import loaders

    untyped: Any = loaders
    return untyped.create_loader()


def _import_library() -> None:
    try:
        import aiobotocore.session as _session
    except ImportError as error:
        raise StorageUnavailable(
            "The library for object storage is not installed:"
            " pip install 'agentsight-open[server]'."
        ) from error
    del _session
