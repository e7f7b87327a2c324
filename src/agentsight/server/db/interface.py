"""What rooms see of a database: `Database`, and the `Tx` their units and queries get.

The promises here are kept by `sqlite.py` and `postgresql.py`, and one test suite asks both.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeVar

from agentsight.server.db.sql import Sql

DEFAULT_POOL_SIZE: Final = 10
"""Connections of one process. PostgreSQL allows 100 in all by default: eight workers fit."""
T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]
Row = tuple[Any, ...]
Argument = str | int | float | bytes | None | Sequence[str] | Sequence[int]
"""What a parameter takes; a list only where the text says `$n::type[]`."""


class Tx(Protocol):
    """Statements of one unit or query.

    Values in and out are equal on both databases: integers, floats, text, None; JSON columns are
    text. Two things do differ unless the SQL mends them: PostgreSQL's `sum(bigint)` is a `Decimal`
    (write `sum(x)::bigint`), and its comparisons give True and False, where SQLite gives 1 and 0
    (which Python holds equal).

    An error ends the unit: catching it and going on raises it again, on both databases. A `tx` is
    dead when its unit has returned.
    """

    async def rows(self, sql: Sql, *args: Argument) -> list[Row]:
        """Return all rows."""
        ...

    async def row(self, sql: Sql, *args: Argument) -> Row | None:
        """Return the first row, or None."""
        ...

    async def value(self, sql: Sql, *args: Argument) -> Any:
        """Return the first column of the first row, or None."""
        ...

    async def execute(self, sql: Sql, *args: Argument) -> int:
        """Return the number of rows inserted, updated or deleted."""
        ...

    async def execute_many(self, sql: Sql, rows: Sequence[Sequence[Argument]]) -> None:
        """Run the statement once for each sequence of arguments."""
        ...


Unit = Callable[[Tx], Coroutine[Any, Any, T]]
"""A unit of work or a query: it awaits calls of its `tx` and nothing else, and may run twice."""


class Database(Protocol):
    """One open database. Belongs to the event loop it was opened on; who opens it closes it."""

    @property
    def dialect(self) -> Dialect:
        """Say which database this is."""
        ...

    async def write(self, unit: Unit[T]) -> T:
        """Run `unit` whole or not at all, and answer when it is on the disk.

        A unit must not touch anything but its `tx` (no bytes, no clock, no network), since it may
        run again (after a serialization failure, a lost connection, a neighbour that filled the
        disk). A caller that is cancelled meanwhile does not know whether the unit was committed.

        Raises:
            DatabaseUnavailable: Not now (locked by others, connection lost, closing).
            DatabaseFull: No room; nothing was written.
            UniqueViolation: A row with the same key exists.
            UnitSuspended: The unit awaited something else than its `tx` (SQLite).
        """
        ...

    async def read(self, query: Unit[T], *, slow: bool = False, snapshot: bool = False) -> T:
        """Run `query`, which can change nothing.

        Args:
            query: Awaits its `tx` and nothing else.
            slow: It may take over a millisecond: on SQLite it then runs in a thread, and cancelling
                the caller interrupts it. Without it, it runs on the event loop.
            snapshot: Its statements see one state of the database, whatever is written meanwhile.

        Raises:
            DatabaseUnavailable: Not now.
            QueryError: It tried to write, or the statement is wrong.
        """
        ...

    async def scrub(self) -> bool:
        """Let what was deleted leave the write-ahead log too, which holds pages as they were.

        True when nothing is left of what was deleted before the call; False when somebody still
        reads an older state: try again later. PostgreSQL does this by itself, in its own time
        (vacuum, and the log's recycling): there the answer is True and nothing is done.

        Raises:
            DatabaseUnavailable: Not now.
        """
        ...

    async def close(self) -> None:
        """Finish what waits, close all connections. Closing twice is not an error."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
