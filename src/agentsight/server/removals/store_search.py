"""Rewrite SQLite's search indexes, so that nothing of what was removed stays in them.

A full-text index only notes that a row is deleted; what stood in it stays in older segments until
they are merged. `merge` with a negative number puts all segments in line to become one; with a
positive one it then does so many pages of work, and a call that changes nothing says that it is
done (sqlite.org/fts5.html, "The 'merge' Command"). PostgreSQL does this in its vacuum.
"""

from __future__ import annotations

from typing import Final

from agentsight.server.db import Sql, Tx, sql

_PAGES: Final = 100
"""Of about 4 KB each: one unit takes some 15 ms."""
_TABLES: Final = ("message_search", "attachment_search", "filename_search")
_TOTAL_CHANGES = sql("SELECT 0", sqlite="SELECT total_changes()")


def _merge(table: str, pages: int) -> Sql:
    return sql("SELECT 0", sqlite=f"INSERT INTO {table} ({table}, rank) VALUES ('merge', {pages})")


_BEGIN = [_merge(table, -_PAGES) for table in _TABLES]
_GO_ON = [_merge(table, _PAGES) for table in _TABLES]


async def begin_merging(tx: Tx) -> None:
    """Put all segments in line to become one. No access: the index is everybody's."""
    for statement in _BEGIN:
        await tx.execute(statement)


async def go_on_merging(tx: Tx) -> bool:
    """Merge some pages; False when there is nothing left to merge. No access: as above."""
    for statement in _GO_ON:
        before = await tx.value(_TOTAL_CHANGES)
        await tx.execute(statement)
        if await tx.value(_TOTAL_CHANGES) - before >= 2:
            return True
    return False
