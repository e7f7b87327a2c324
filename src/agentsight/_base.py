"""What the clients share: settings, a transport, and the way an operation is driven."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from agentsight._flow import Flow, Operation, RetryPolicy, run, run_async, with_retries
from agentsight._process import begin_anew_after_fork
from agentsight.config import Config, check_names, load_config
from agentsight.exceptions import NoApiKeyException

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from agentsight._transport import AsyncTransport, Transport

T = TypeVar("T")


class Runtime(NamedTuple):
    """What the outside world gives a client; tests give another."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = lambda: int.from_bytes(os.urandom(2)) / 65535
    policy: RetryPolicy = RetryPolicy()
    sleep_async: Callable[[float], Awaitable[None]] | None = None
    """asyncio's where None."""


class BaseClient:
    """Settings of one client. A default instance looks for its settings when it is first used."""

    runtime = Runtime()
    """Clock, sleep, chance and patience; not for users."""

    def __init__(self, config: Config | None, settings: dict[str, Any]) -> None:
        self._begin()
        given = {name: value for name, value in settings.items() if value is not None}
        self._config = load_config(config, given)
        self._apply()

    @classmethod
    def default_instance(cls) -> Self:
        """Make an instance that needs no key until it is used."""
        client = cls.__new__(cls)
        client._begin()
        client._is_default = True
        return client

    def _begin(self) -> None:
        self._config: Config | None = None
        self._pending: dict[str, Any] = {}
        self._settings_lock = threading.RLock()
        self._is_default = False
        begin_anew_after_fork(self)

    def _begin_in_child(self) -> None:
        """After a fork: a lock may be held by a thread that is not there."""
        self._settings_lock = threading.RLock()

    def _end_with_process(self) -> None:
        """Let go of what only the end of the process can let go of."""

    @property
    def config(self) -> Config:
        """The settings in force.

        Raises:
            NoApiKeyException: on the first use of a default instance where there is no key.
            InvalidApiKeyException: as before, where the key has not the shape of a key.
        """
        config = self._config
        if config is None:
            with self._settings_lock:
                config = self._config
                if config is None:
                    config = self._config = load_config(None, self._pending)
                    self._apply()
        return config

    def _configure(self, given: dict[str, Any]) -> None:
        """Change settings; nothing changes where one of them is not valid."""
        if "api_key" in given and given["api_key"] is None:
            raise NoApiKeyException("API key cannot be None")
        given = {name: value for name, value in check_names(given).items() if value is not None}
        with self._settings_lock:
            if self._config is not None:
                self._config.configure(**given)
                if not self._config.api_key:
                    raise NoApiKeyException
            else:
                pending = self._pending | given
                try:
                    self._config = load_config(None, pending)
                except NoApiKeyException:  # a default instance may be told its key later
                    self._pending = pending
                    return
            self._apply()

    def _apply(self) -> None:
        """Take over changed settings."""
        config = self._config
        if config is not None and config.log_level_is_set:
            from agentsight.logging import configure_logging

            configure_logging(config)

    def _flow(self, operation: Operation[T]) -> Flow[T]:
        runtime = self.runtime
        return with_retries(operation, runtime.policy, clock=runtime.clock, jitter=runtime.jitter)


class SyncClient(BaseClient):
    """A client that waits. It holds connections: `close()` it, or use it in a `with`."""

    def _begin(self) -> None:
        super()._begin()
        self._transport: Transport | None = None

    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        if self._transport is not None:
            self._transport.begin_in_child()

    def _end_with_process(self) -> None:
        # A daemon thread's request under way is not waited for: it keeps its connections.
        if self._is_default:
            with contextlib.suppress(OSError):
                SyncClient.close(self)

    def close(self) -> None:
        """Close the connections. The client can be used again and then opens new ones.

        Requests that other threads have under way come to their end first.
        """
        with self._settings_lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is None or not transport.is_open or sys.is_finalizing():
            return
        if not self._is_default:
            warnings.warn(
                f"{type(self).__name__} was not closed: use it in a `with`, or call close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
        self.close()

    def run(self, operation: Operation[T]) -> T:
        """Drive an operation to its value."""
        transport = self._open_transport()
        transport.begin_use()
        try:
            return run(self._flow(operation), transport, self.runtime.sleep)
        finally:
            transport.end_use()

    def _open_transport(self) -> Transport:
        transport = self._transport
        if transport is None:
            from agentsight._transport import Transport

            config = self.config
            with self._settings_lock:
                if self._transport is None:
                    self._transport = Transport(config.endpoint, str(config.api_key))
                transport = self._transport
        return transport

    def _apply(self) -> None:
        super()._apply()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


class AsyncClient(BaseClient):
    """A client that awaits. It holds connections: `aclose()` it, or use it in an `async with`."""

    def _begin(self) -> None:
        super()._begin()
        self._transport: AsyncTransport | None = None
        self._retired: list[AsyncTransport] = []

    def _begin_in_child(self) -> None:
        super()._begin_in_child()
        for transport in (*self._retired, self._transport):
            if transport is not None:
                transport.begin_in_child()

    async def aclose(self) -> None:
        """Close the connections. The client can be used again and then opens new ones.

        Requests that other tasks have under way come to their end first.
        """
        transports = [*self._retired, self._transport]
        self._transport, self._retired = None, []
        for transport in transports:
            if transport is not None:
                await transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        transport = getattr(self, "_transport", None)
        if transport is not None and transport.is_open and not sys.is_finalizing():
            warnings.warn(
                f"{type(self).__name__} was not closed: use `async with`, or await aclose()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def run(self, operation: Operation[T]) -> T:
        import asyncio

        if self._transport is None:
            from agentsight._transport import AsyncTransport

            self._transport = AsyncTransport(self.config.endpoint, str(self.config.api_key))
        transport = self._transport
        sleep = self.runtime.sleep_async or asyncio.sleep
        transport.begin_use()
        try:
            return await run_async(self._flow(operation), transport, sleep)
        finally:
            await transport.end_use()

    def _apply(self) -> None:
        super()._apply()
        if self._transport is not None:
            self._retired.append(self._transport)
            self._transport = None
