"""Everything here runs on the published client against both databases, and on ours.

Both send the same requests; ours meets PostgreSQL in `make soak` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conformance.recorder import Recorder
from tests.support.published import Client, Driver, Kind
from tests.support.server import Agent, LiveServer, server, servers

__all__ = ["server", "servers"]

StartClient = Callable[..., Client]


class Drivers:
    """The session's drivers, one for each package, started when first asked for."""

    def __init__(self) -> None:
        self._drivers: dict[Kind, Driver] = {}

    def get(self, kind: Kind) -> Driver:
        """Return the running driver of that package."""
        if kind not in self._drivers:
            self._drivers[kind] = Driver(kind)
        return self._drivers[kind]

    def close(self) -> None:
        """End them."""
        for driver in self._drivers.values():
            driver.close()


@pytest.fixture(scope="session")
def drivers() -> Iterator[Drivers]:
    """Keep the session's drivers."""
    made = Drivers()
    yield made
    made.close()


@pytest.fixture(params=["published", pytest.param("ours", marks=pytest.mark.sqlite_will_do)])
def driver(drivers: Drivers, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Give the driver of each package; a failed test shows what its clients wrote."""
    running = drivers.get(request.param)
    mark = running.log_mark()
    yield running
    print(running.log(mark))


@pytest.fixture
def agent(server: LiveServer) -> Agent:
    """Make an agent with its keys, for this test only."""
    return server.make_agent()


@pytest.fixture
def start_client(server: LiveServer, driver: Driver) -> Iterator[StartClient]:
    """Start processes of the client; they end with the test."""
    started: list[Client] = []

    def start(key: str | None, endpoint: str | None = None, **env: str) -> Client:
        started.append(driver.start_client(endpoint or server.base_url, key, **env))
        return started[-1]

    yield start
    for client in started:
        client.close()


@pytest.fixture
def client(agent: Agent, start_client: StartClient) -> Client:
    """Start a process of the client with the agent's write key."""
    return start_client(agent.write_key)


@pytest.fixture
def recorder(server: LiveServer) -> Iterator[Recorder]:
    """Stand between a client and the server."""
    with Recorder(server) as recorder:
        yield recorder
