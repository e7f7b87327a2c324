"""Rewrite SQLite's search indexes, so that nothing of what was removed stays in them.

A full-text index only notes that a row is deleted; what stood in it stays in older segments until
they are merged. `merge` with a negative number puts all segments in line to become one; with a
positive one it then does so many pages of work, and a call that changes nothing says that it is
done (sqlite.org/fts5.html, "The 'merge' Command"). PostgreSQL does this in its vacuum.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentsight.server.db import Sql, Tx, sql
from agentsight.server.removals.model import Rows

_PAGES: Final = 100
"""Of about 4 KB each: one unit takes some 15 ms."""
MESSAGES: Final = "message_search"
TEXTS: Final = "attachment_search"
NAMES: Final = "filename_search"
_TABLES: Final = (MESSAGES, TEXTS, NAMES)
_TOTAL_CHANGES = sql("SELECT 0", sqlite="SELECT total_changes()")


def _merge(table: str, pages: int) -> Sql:
    return sql("SELECT 0", sqlite=f"INSERT INTO {table} ({table}, rank) VALUES ('merge', {pages})")


_BEGIN = {table: _merge(table, -_PAGES) for table in _TABLES}
_GO_ON = {table: _merge(table, _PAGES) for table in _TABLES}


def indexes_of(rows: Rows) -> list[str]:
    """Name the indexes that held what was removed: the others, which may be large, rest."""
    held = ((MESSAGES, rows.message_search), (TEXTS, rows.blob_texts), (NAMES, rows.attachments))
    return [table for table, n_rows in held if n_rows]


async def begin_merging(tx: Tx, tables: Iterable[str]) -> None:
    """Put all segments of indexes in line to become one. No access: an index is everybody's."""
    for table in tables:
        await tx.execute(_BEGIN[table])


async def go_on_merging(tx: Tx, tables: Iterable[str]) -> bool:
    """Merge some pages; False when there is nothing left to merge. No access: as above."""
    for statement in (_GO_ON[table] for table in tables):
        before = await tx.value(_TOTAL_CHANGES)
        await tx.execute(statement)
        if await tx.value(_TOTAL_CHANGES) - before >= 2:
            return True
    return False
