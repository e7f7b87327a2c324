"""A listing of the whole store of bytes, kept in a file of its own while it is compared.

Millions of keys do not fit into memory for the sake of a check; a temporary SQLite file holds them.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agentsight.server.blobs import ListedObject

_MAKE = (
    "CREATE TABLE listed (key text PRIMARY KEY, size_bytes integer, modified_at integer)"
    " WITHOUT ROWID"
)
_ADD = "INSERT OR REPLACE INTO listed VALUES (?, ?, ?)"
_FIND = "SELECT key, size_bytes FROM listed WHERE key IN ({})"
_PAGE = "SELECT key, size_bytes FROM listed WHERE key > ? AND modified_at <= ? ORDER BY key LIMIT ?"


class Listing:
    """Keys, sizes and times of objects. A context manager: leaving it removes the file."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentsight-fsck-")
        path = Path(self._folder.name) / "listed.db"
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute(_MAKE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()
        self._folder.cleanup()

    def add(self, objects: Sequence[ListedObject]) -> None:
        """Take objects."""
        self._connection.execute("BEGIN")
        rows = [(item.key, item.size_bytes, item.modified_at_us) for item in objects]
        self._connection.executemany(_ADD, rows)
        self._connection.execute("COMMIT")

    def sizes(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the sizes of those keys that were listed; give it 500 keys at most."""
        marks = ",".join("?" * len(keys))
        return dict(self._connection.execute(_FIND.format(marks), list(keys)))

    def pages(self, limit: int, *, not_after_us: int) -> Iterator[list[tuple[str, int]]]:
        """Yield keys with sizes, in order, of objects that were not changed since a time."""
        after = ""
        while rows := self._connection.execute(_PAGE, (after, not_after_us, limit)).fetchall():
            yield rows
            after = rows[-1][0]
