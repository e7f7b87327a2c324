"""`agentsight` as a program that dies, by SIGKILL, before or after the step that it is told.

A step is a write of the database, or what changes the store of bytes: they are wrapped, and then
the command runs as it is. Run as a script by `CrashingServer`; where the file of the order is not
there, nothing is counted and nothing dies.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_STORE: Final = ("create", "resume_parts", "abandon_parts", "delete")
_WRITERS: Final = ("finish", "pause")


class _Deaths:
    """Counts the steps of the order's name while there is an order, and dies at the nth."""

    def __init__(self, order_path: Path) -> None:
        self._order_path = order_path
        self._n_steps = 0

    def step(self, name: str) -> None:
        try:
            nth, _, wanted = self._order_path.read_text().partition(" ")
        except FileNotFoundError:
            self._n_steps = 0
            return
        with self._order_path.with_suffix(".steps").open("a") as steps:
            steps.write(name + "\n")
        self._n_steps += wanted in name
        if wanted in name and self._n_steps == int(nth):
            os.kill(os.getpid(), signal.SIGKILL)


def _wrap(deaths: _Deaths, cls: type, method: str) -> None:
    inner = getattr(cls, method)

    @functools.wraps(inner)
    async def wrapped(self: Any, *args: Any, **options: Any) -> Any:
        name = _named(args[0]) if method == "write" else f"{cls.__name__}.{method}"
        deaths.step(f"before {name}")
        value = await inner(self, *args, **options)
        deaths.step(f"after {name}")
        return value

    setattr(cls, method, wrapped)


def _named(unit: Callable[..., Any]) -> str:
    inner = getattr(unit, "func", unit)
    module = inner.__module__.removeprefix("agentsight.server.")
    return f"{module}.{inner.__qualname__}".replace(".<locals>", "")


def _main() -> int:
    from agentsight.cli import main
    from agentsight.server.blobs import local, local_parts, local_streams, s3, s3_parts, s3_writers
    from agentsight.server.db import postgresql, sqlite

    deaths = _Deaths(Path(os.environ["CRASH_ORDER"]))
    for database in (sqlite.SqliteDatabase, postgresql.PostgresqlDatabase):
        _wrap(deaths, database, "write")
    for store in (local.LocalBlobStore, s3.S3BlobStore):
        for method in _STORE:
            _wrap(deaths, store, method)
    for module in (local_parts, local_streams, s3_parts, s3_writers):
        for cls in list(vars(module).values()):
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                for method in _WRITERS:
                    if method in vars(cls):
                        _wrap(deaths, cls, method)
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(_main())
