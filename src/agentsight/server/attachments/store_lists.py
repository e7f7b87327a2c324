"""Lists of files across conversations: filters into SQL, once for both databases; counts, pages.

A list narrowed by a text inside files is made in one of two ways. Where at most `MAX_KNOWN` blobs
hold it, they are looked up first, and the list is that of their references. Where more do (or the
text is too short for the index), the list is walked in its order, and file after file is looked at
until the page is full: a common word fills it soon, and counting it would mean to read them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from agentsight.server.access import Access
from agentsight.server.attachments import store_search
from agentsight.server.attachments.filters import Filters
from agentsight.server.attachments.model import AttachmentRow
from agentsight.server.attachments.store import COLUMNS
from agentsight.server.db import Tx, sql
from agentsight.server.db.conditions import Conditions
from agentsight.server.ids import AttachmentId, ConversationPk
from agentsight.server.text import like_pattern, like_prefix

MAX_KNOWN: Final = 500
"""Blobs, or names, that are looked up before the list is made. With a word in as many of 100,000
texts, a page of ten is full after 2,200 on the average, and with a common word after a few."""
MAX_WALKED: Final = 100_000
"""Files whose texts are looked at for one page."""
MAX_WALKED_UNINDEXED: Final = 10_000
"""The same for a text that no index knows: nothing says that it stands anywhere at all."""
_STEP: Final = 256
_MAX_ROWS: Final = 8192
_HEAD = (
    "SELECT a.conversation_id, c.conversation_id, a.sender, a.sent_at, a.metadata, a.deleted_at,"
    f" {COLUMNS} FROM attachments a JOIN conversations c"
    " ON c.agent_id = a.agent_id AND c.id = a.conversation_id"
)
_IDS = "SELECT a.id FROM attachments a"
_ONE = sql(
    f"{_HEAD} WHERE a.agent_id = $1 AND a.uid = $2 AND a.deleted_at IS NULL AND c.erased_by IS NULL"
)
_BY_IDS = sql(f"{_HEAD} WHERE a.agent_id = $1 AND a.id = ANY($2::bigint[])")


class ListedRow(msgspec.Struct, frozen=True, gc=False):
    """A file with what a list tells of its message and conversation; `metadata` is JSON text."""

    conversation_pk: ConversationPk
    conversation_id: str
    sender: str
    sent_at: int
    metadata: str | None
    is_deleted: bool
    file: AttachmentRow


class Page(msgspec.Struct, frozen=True):
    """One page of files.

    `count` is None where it was not asked for or would have read all texts. `is_cut`: there are
    files behind those that were looked at.
    """

    rows: list[ListedRow]
    has_more: bool
    count: int | None = None
    is_cut: bool = False


async def page(tx: Tx, access: Access, filters: Filters, *, limit: int, offset: int) -> Page:
    """Read one page of a list, in its order; count all of it, where that is asked for and cheap."""
    named = await _few_named(tx, access, filters.filename_contains)
    where, is_narrow = _where(access, filters, named), named is not None
    walks: list[_Walked] = []
    if filters.text_contains is not None:
        walked = _Walked(filters.text_contains.casefold(), or_name=False)
        if not await _narrow(tx, access, where, walked):
            walks.append(walked)
    if filters.contains is not None:
        walked = _Walked(filters.contains.casefold(), or_name=True)
        if not await _narrow(tx, access, where, walked):
            walks.append(walked)
    if walks:
        order = _order(filters, is_narrow=is_narrow)
        has_order = bool(filters.ordering)
        return await _walk(
            tx, access, where, walks, order, has_order=has_order, limit=limit, offset=offset
        )
    count = None
    if filters.count:
        head = "SELECT count(*) FROM attachments a"
        count = await tx.value(where.statement(head), *where.args)
        if offset >= count:
            return Page([], False, count)
    room = f" LIMIT {where.param(limit + 1)}::bigint OFFSET {where.param(offset)}::bigint"
    if filters.text_contains is None and filters.contains is None:
        statement = where.statement(_HEAD, _order(filters, is_narrow=is_narrow) + room)
        rows = [_listed(row) for row in await tx.rows(statement, *where.args)]
    else:
        # Ids alone are sorted: the rest of hundreds of rows is not read for the ten of a page.
        statement = where.statement(_IDS, _order(filters, is_narrow=True) + room)
        rows = await _by_ids(tx, access, [row[0] for row in await tx.rows(statement, *where.args)])
    return Page(rows[:limit], len(rows) > limit, count)


async def read_one(tx: Tx, access: Access, uid: str) -> ListedRow | None:
    """Read one file by its uid; deleted files are not there, those of deleted conversations are."""
    row = await tx.row(_ONE, access.agent_id, uid)
    return None if row is None else _listed(row)


def _listed(row: Sequence[Any]) -> ListedRow:
    pk, conversation_id, sender, sent_at, metadata, deleted_at, *file = row
    return ListedRow(
        pk, conversation_id, sender, sent_at, metadata, deleted_at is not None, AttachmentRow(*file)
    )


# --- Conditions -----------------------------------------------------------------------------------


def _where(access: Access, filters: Filters, named: list[AttachmentId] | None) -> Conditions:
    where = Conditions(access.agent_id)
    # With `+`, SQLite looks files up by id where they are known, and does not walk all the agent's.
    where.add("a.agent_id = $1", sqlite=f"{'' if named is None else '+'}a.agent_id = $1")
    if named is not None:
        where.add(f"a.id = ANY({where.param(named)}::bigint[])")
    elif filters.filename_contains is not None:
        pattern = where.param(like_pattern(filters.filename_contains.casefold()))
        where.add(f"a.filename_folded LIKE {pattern}::text ESCAPE '\\'")
    if filters.include_deleted:
        # What an erasure is removing is not there any more for anybody.
        where.add(
            "a.conversation_id NOT IN (SELECT d.id FROM conversations d"
            " WHERE d.agent_id = $1 AND d.erased_by IS NOT NULL)"
        )
    else:
        where.add("a.deleted_at IS NULL")
        # By a range, since SQLite then takes the small index of deleted ones: half of the time.
        where.add(
            "a.conversation_id NOT IN (SELECT d.id FROM conversations d"
            " WHERE d.agent_id = $1 AND d.deleted_at > 0)"
        )
    for column, value in (
        ("type", filters.type),
        ("sender", filters.sender),
    ):
        if value is not None:
            where.add(f"a.{column} = {where.param(value)}::text")
    _add_ranges(where, filters)
    _add_conversation(where, filters)
    _add_blob(where, filters)
    for leaf in filters.metadata:
        where.add_metadata("a.metadata", leaf)
    return where


def _add_ranges(where: Conditions, filters: Filters) -> None:
    for condition, value in (
        ("a.size_bytes >=", filters.size_min),
        ("a.size_bytes <=", filters.size_max),
        ("a.sent_at >=", filters.sent_after),
        ("a.sent_at <=", filters.sent_before),
    ):
        if value is not None:
            where.add(f"{condition} {where.param(value)}::bigint")


def _add_conversation(where: Conditions, filters: Filters) -> None:
    if filters.conversation is not None:
        where.add(f"a.conversation_id = {where.param(filters.conversation)}::bigint")
    for column, value in (
        ("conversation_id", filters.conversation_id),
        ("customer_id", filters.customer_id),
    ):
        if value is not None:
            where.add(
                "a.conversation_id IN (SELECT w.id FROM conversations w WHERE w.agent_id = $1"
                f" AND w.{column} = {where.param(value)}::text)"
            )
    if filters.environment is not None:
        where.add(
            "a.conversation_id IN (SELECT w.id FROM conversations w JOIN environments e"
            " ON e.agent_id = w.agent_id AND e.id = w.environment_id WHERE w.agent_id = $1"
            f" AND e.slug = {where.param(filters.environment)}::text)"
        )


def _add_blob(where: Conditions, filters: Filters) -> None:
    of_blob = (
        "EXISTS (SELECT 1 FROM blobs b WHERE b.agent_id = a.agent_id AND b.id = a.blob_id AND "
    )
    if filters.sha256 is not None:
        where.add(
            "a.blob_id IN (SELECT b.id FROM blobs b WHERE b.agent_id = $1"
            f" AND b.sha256 = {where.param(filters.sha256)}::text)"
        )
    if filters.scan is not None:
        where.add(f"{of_blob}b.scan = {where.param(filters.scan)}::text)")
    mime_type = filters.detected_mime_type
    if mime_type is not None and mime_type.endswith("/"):
        pattern = where.param(like_prefix(mime_type))
        where.add(f"{of_blob}b.detected_mime_type LIKE {pattern}::text ESCAPE '\\')")
    elif mime_type is not None:
        where.add(f"{of_blob}b.detected_mime_type = {where.param(mime_type)}::text)")


def _order(filters: Filters, *, is_narrow: bool = False) -> str:
    # With `+`, the files of one conversation, customer, hash or text are sorted, and not looked for
    # in the index that has all files in order.
    plus = "+" if is_narrow or _is_narrow(filters) else ""
    parts: list[str] = []
    id_order = "a.id DESC"
    for column, is_descending in filters.ordering or (("sent_at", True),):
        direction = "DESC" if is_descending else "ASC"
        if column == "id":
            # No two ids are equal: what stands behind it orders nothing.
            id_order = f"a.id {direction}"
            break
        parts.append(f"{plus if column == 'sent_at' else ''}a.{column} {direction}")
    return f" ORDER BY {', '.join([*parts, id_order])}"


def _is_narrow(filters: Filters) -> bool:
    """Say whether the files that a list may hold are few, and found by an index of their own."""
    narrow = (
        filters.conversation,
        filters.conversation_id,
        filters.customer_id,
        filters.sha256,
    )
    return any(value is not None for value in narrow)


# --- Texts ----------------------------------------------------------------------------------------


class _Walked(msgspec.Struct, frozen=True):
    """What to look for in each file's text, folded; `or_name`: standing in the name will do."""

    folded: str
    or_name: bool


async def _narrow(tx: Tx, access: Access, where: Conditions, walked: _Walked) -> bool:
    """Narrow a list to files that hold a text, where they are few enough to be named.

    Returns:
        False where they are too many, or no index can tell: then each must be looked at.
    """
    if not store_search.is_indexed(walked.folded):
        return False
    blobs = await store_search.find_blobs(tx, access, walked.folded, MAX_KNOWN + 1)
    if len(blobs) > MAX_KNOWN:
        return False
    named: list[AttachmentId] = []
    if walked.or_name:
        named = await store_search.find_named(tx, access, walked.folded, MAX_KNOWN + 1)
        if len(named) > MAX_KNOWN:
            return False
    known = (
        "SELECT x.id FROM attachments x WHERE x.agent_id = $1"
        f" AND x.blob_id = ANY({where.param(blobs)}::bigint[])"
    )
    if walked.or_name:
        known += (
            " UNION SELECT x.id FROM attachments x WHERE x.agent_id = $1"
            f" AND x.id = ANY({where.param(named)}::bigint[])"
        )
    where.add(f"a.id IN ({known})")
    return True


async def _few_named(tx: Tx, access: Access, needle: str | None) -> list[AttachmentId] | None:
    """Find the files whose name holds a text, where they are few enough to be named."""
    if needle is None or not store_search.is_indexed(needle):
        return None
    named = await store_search.find_named(tx, access, needle, MAX_KNOWN + 1)
    return named if len(named) <= MAX_KNOWN else None


async def _walk(
    tx: Tx,
    access: Access,
    where: Conditions,
    walks: Sequence[_Walked],
    order: str,
    *,
    has_order: bool,
    limit: int,
    offset: int,
) -> Page:
    """Fill a page by looking at the texts of one file after the other."""
    tail = f"{order} LIMIT {where.param(0)}::bigint OFFSET {where.param(0)}::bigint"
    head = "SELECT a.id, a.blob_id, a.filename_folded FROM attachments a"
    statement, args = where.statement(head, tail), where.args[:-2]
    is_indexed = all(store_search.is_indexed(walk.folded) for walk in walks)
    most = MAX_WALKED if is_indexed else MAX_WALKED_UNINDEXED
    wanted = offset + limit + 1
    found: list[int] = []
    # An order that no index has is sorted anew by each statement: then many rows at once.
    start, n_rows, is_ended = 0, _MAX_ROWS if has_order else _STEP, False
    while len(found) < wanted and not is_ended and start < most:
        rows = await tx.rows(statement, *args, n_rows, start)
        is_ended = len(rows) < n_rows
        for step in range(0, len(rows), _STEP):
            holding = rows[step : step + _STEP]
            for walk in walks:
                holding = await _holding(tx, access, holding, walk)
            found += [row[0] for row in holding]
            if len(found) >= wanted:
                break
        start, n_rows = start + n_rows, min(n_rows * 2, _MAX_ROWS)
    ids = found[offset : offset + limit]
    has_more = len(found) >= wanted
    is_cut = not has_more and not is_ended
    return Page(await _by_ids(tx, access, ids), has_more, None, is_cut)


async def _holding(
    tx: Tx, access: Access, rows: Sequence[tuple[Any, ...]], walk: _Walked
) -> list[tuple[Any, ...]]:
    """Return those of some files (id, blob, folded name) that hold a text."""
    named = {row[0] for row in rows if walk.or_name and walk.folded in row[2]}
    asked = [row[1] for row in rows if row[0] not in named]
    blobs = await store_search.holding_blobs(tx, access, asked, walk.folded)
    return [row for row in rows if row[0] in named or row[1] in blobs]


async def _by_ids(tx: Tx, access: Access, ids: Sequence[int]) -> list[ListedRow]:
    """Read rows in the order of their ids given."""
    rows = [_listed(row) for row in await tx.rows(_BY_IDS, access.agent_id, list(ids))]
    by_id = {row.file.attachment_id: row for row in rows}
    return [by_id[AttachmentId(n)] for n in ids]
