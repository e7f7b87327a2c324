"""SQLite's index of file names: what is behind it is filled in the background, in the order of ids.

A file's name is indexed once and never changes. `instance_values` says up to which attachment the
index goes; what is newer is scanned by whoever searches, so a file is found at once, and nothing is
written for it while its message is stored. PostgreSQL keeps an index on the column by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentsight.server.access import Access
from agentsight.server.db import Database, Tx, sql
from agentsight.server.db.trigrams import ROWID_SHIFT

_STRIDE: Final = 1_000
"""Names, of some 20 characters: one unit takes about 10 ms."""

INDEXED_TO: Final = (
    "coalesce((SELECT CAST(v.value AS integer) FROM instance_values v"
    " WHERE v.name = 'names_indexed_to'), 0)"
)
"""The newest attachment that the index knows, as SQL. Ids are never given out again."""

_IS_WAITING = sql(
    "SELECT 0", sqlite=f"SELECT 1 FROM attachments WHERE id > {INDEXED_TO} ORDER BY id LIMIT 1"
)
_LAST = sql(
    "SELECT $1::bigint",
    sqlite=f"SELECT max(id) FROM (SELECT id FROM attachments WHERE id > {INDEXED_TO}"
    " ORDER BY id LIMIT $1)",
)
_INDEX = sql(
    "SELECT $1::bigint",
    sqlite="INSERT INTO filename_search (rowid, content)"
    f" SELECT (agent_id << {ROWID_SHIFT}) | id, filename_folded FROM attachments"
    f" WHERE id > {INDEXED_TO} AND id <= $1 ORDER BY agent_id, id",
)
_MOVE_ON = sql(
    "INSERT INTO instance_values (name, value, created_at) VALUES ('names_indexed_to', $1, $2)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
# A contentless index finds what it is to forget by the very text that was indexed.
# With `+`, SQLite looks the few up by id, and does not walk all of the agent's that are indexed.
_UNINDEX = sql(
    "SELECT $1::bigint, $2::bigint[]",
    sqlite="INSERT INTO filename_search (filename_search, rowid, content)"
    f" SELECT 'delete', (agent_id << {ROWID_SHIFT}) | id, filename_folded FROM attachments"
    f" WHERE +agent_id = $1 AND id IN (SELECT value FROM json_each($2)) AND +id <= {INDEXED_TO}",
)


async def index_step(db: Database, now_us: int) -> int:
    """Put one stride of names into the index; returns how many."""

    async def is_waiting(tx: Tx) -> bool:
        return bool(await tx.value(_IS_WAITING))

    # Asked by reading: an idle server must not take the writer's lock again and again.
    if db.dialect != "sqlite" or not await db.read(is_waiting):
        return 0

    async def index(tx: Tx) -> int:
        last = await tx.value(_LAST, _STRIDE)
        if last is None:
            return 0
        n_indexed = await tx.execute(_INDEX, last)
        await tx.execute(_MOVE_ON, str(last), now_us)
        return n_indexed

    return await db.write(index)


async def unindex(tx: Tx, access: Access, ids: Sequence[int]) -> None:
    """Take attachments' names out of the index, in the unit that removes their rows and before."""
    await tx.execute(_UNINDEX, access.agent_id, list(ids))
