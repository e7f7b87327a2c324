"""Find files by their names and the text inside them, without case: by an index of each.

The background puts a blob's text into `blob_texts` and the index at once (`store_texts.py`), so
there is nothing newer to scan; of names, SQLite scans those that its index does not know yet
(`store_names.py`). SQLite's indexes find candidates that are checked against text or name;
PostgreSQL rechecks its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentsight.server.access import Access
from agentsight.server.attachments.store_names import INDEXED_TO
from agentsight.server.db import Tx, sql
from agentsight.server.db.conditions import Conditions
from agentsight.server.db.trigrams import MIN_INDEXED_CHARS, ROW_MASK, fts_query, index_range
from agentsight.server.ids import AttachmentId, BlobId, ConversationPk
from agentsight.server.text import like_pattern

# `strpos`, which no index serves: with LIKE, PostgreSQL might read the whole index for a few texts.
_HOLDING = sql(
    "SELECT s.blob_id FROM attachment_search s WHERE s.agent_id = $1"
    " AND s.blob_id = ANY($2::bigint[]) AND strpos(s.content_folded, $3::text) > 0",
    sqlite="SELECT t.blob_id FROM blob_texts t WHERE t.agent_id = $1"
    " AND t.blob_id IN (SELECT value FROM json_each($2)) AND holds(t.content, $3)",
)


def is_indexed(needle: str) -> bool:
    """Say whether the index helps to find this text: three characters at least, folded."""
    return len(needle.casefold()) >= MIN_INDEXED_CHARS


def _holding_sql(where: Conditions, access: Access, needle: str) -> tuple[str, str]:
    """Return the sub-selects of the blobs whose text holds the needle, for both databases."""
    folded = needle.casefold()
    pattern, found = where.param(like_pattern(folded)), where.param(folded)
    first, last = (where.param(row) for row in index_range(access.agent_id))
    query = where.param(fts_query(folded))
    unused = (
        f" AND {query}::text IS NOT NULL AND {found}::text IS NOT NULL"
        f" AND {first}::bigint <= {last}::bigint"
    )
    postgresql = (
        "SELECT s.blob_id FROM attachment_search s WHERE s.agent_id = $1"
        f" AND s.content_folded LIKE {pattern}::text ESCAPE '\\'{unused}"
    )
    if not is_indexed(needle):
        sqlite = (
            "SELECT t.blob_id FROM blob_texts t WHERE t.agent_id = $1"
            f" AND holds(t.content, {found})"
        )
    else:
        sqlite = (
            # CROSS JOIN keeps the planner from walking all texts first.
            "SELECT t.blob_id FROM attachment_search s CROSS JOIN blob_texts t"
            f" ON t.agent_id = $1 AND t.blob_id = (s.rowid & {ROW_MASK})"
            f" WHERE s.attachment_search MATCH {query} AND s.rowid BETWEEN {first} AND {last}"
            f" AND holds(t.content, {found})"
        )
    return postgresql, sqlite


async def find_blobs(tx: Tx, access: Access, needle: str, limit: int) -> list[BlobId]:
    """Find blobs whose text holds the needle, in no promised order, at most `limit`."""
    where = Conditions(access.agent_id)
    postgresql, sqlite = _holding_sql(where, access, needle)
    # Written out: with a parameter, PostgreSQL soon takes one plan for all words (it expects a
    # tenth of the rows), and walks the index for a word that the first few texts hold.
    room = f" LIMIT {int(limit)}"
    rows = await tx.rows(sql(f"{postgresql}{room}", sqlite=f"{sqlite}{room}"), *where.args)
    return [BlobId(row[0]) for row in rows]


async def find_named(tx: Tx, access: Access, needle: str, limit: int) -> list[AttachmentId]:
    """Find files whose name holds the needle, deleted ones too, in no promised order."""
    where = Conditions(access.agent_id)
    postgresql, sqlite = _named_sql(where, access, needle, "SELECT a.id")
    room = f" LIMIT {int(limit)}"  # see `find_blobs`
    rows = await tx.rows(sql(f"{postgresql}{room}", sqlite=f"{sqlite}{room}"), *where.args)
    return [AttachmentId(row[0]) for row in rows]


def _named_sql(
    where: Conditions, access: Access, needle: str, head: str, condition: str = ""
) -> tuple[str, str]:
    """Return the selections of the files whose name holds the needle, for both databases."""
    folded = needle.casefold()
    pattern = where.param(like_pattern(folded))
    files = " FROM attachments a WHERE a.agent_id = $1"
    named = f"{condition} AND a.filename_folded LIKE {pattern}::text ESCAPE '\\'"
    scan = f"{head}{files}{named}"
    if not is_indexed(needle):
        return scan, scan
    first, last = (where.param(row) for row in index_range(access.agent_id))
    query = where.param(fts_query(folded))
    unused = f" AND {query}::text IS NOT NULL AND {first}::bigint <= {last}::bigint"
    sqlite = (
        # CROSS JOIN keeps the planner from walking all files first.
        f"{head} FROM filename_search s CROSS JOIN attachments a"
        f" ON a.agent_id = $1 AND a.id = (s.rowid & {ROW_MASK})"
        f" WHERE s.filename_search MATCH {query} AND s.rowid BETWEEN {first} AND {last}{named}"
        f" UNION ALL {head}{files} AND a.id > {INDEXED_TO}{named}"
    )
    return f"{scan}{unused}", sqlite


async def holding_blobs(
    tx: Tx, access: Access, blobs: Sequence[int], folded: str
) -> frozenset[BlobId]:
    """Return those of some blobs whose text holds a folded needle: texts are read, no index."""
    if not blobs:
        return frozenset()
    rows = await tx.rows(_HOLDING, access.agent_id, list(blobs), folded)
    return frozenset(BlobId(row[0]) for row in rows)


async def find_conversations(
    tx: Tx, access: Access, needle: str, limit: int
) -> list[ConversationPk]:
    """Find conversations that have a file whose name or text holds it.

    They stand in no promised order, and twice where two files hold it; at most `limit`.
    """
    where = Conditions(access.agent_id)
    postgresql, sqlite = _conversations_sql(where, access, needle, "UNION ALL")
    room = f" LIMIT {int(limit)}"  # see `find_blobs`
    rows = await tx.rows(sql(f"{postgresql}{room}", sqlite=f"{sqlite}{room}"), *where.args)
    return [ConversationPk(row[0]) for row in rows]


def conversations_sql(where: Conditions, access: Access, needle: str) -> tuple[str, str]:
    """Return the sub-selects of conversations that have a file whose name or text holds it.

    Args:
        where: Takes the arguments; `$1` is the agent.
        access: Whose files.
        needle: What to find.
    """
    return _conversations_sql(where, access, needle, "UNION")


def _conversations_sql(
    where: Conditions, access: Access, needle: str, union: str
) -> tuple[str, str]:
    head, is_live = "SELECT a.conversation_id", " AND a.deleted_at IS NULL"
    with_text = f"{head} FROM attachments a WHERE a.agent_id = $1{is_live} AND a.blob_id IN "
    texts = _holding_sql(where, access, needle)
    names = _named_sql(where, access, needle, head, is_live)
    # Texts first: with a common word and a limit, no name is looked at.
    postgresql, sqlite = (
        f"{with_text}({text}) {union} {name}" for text, name in zip(texts, names, strict=True)
    )
    return postgresql, sqlite
