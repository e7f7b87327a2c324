"""Lists of conversations: filters into SQL, once for both databases; counts, pages, rows.

Every value travels as a parameter. What differs between the databases is JSON and the index of
message texts; `tests/server/conversations/oracle.py` says what each filter must mean on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from agentsight.server.access import Access
from agentsight.server.conversations.filters import Filters, MetadataFilter, number_text
from agentsight.server.db import Sql, Tx, sql
from agentsight.server.ids import ConversationPk
from agentsight.server.messages.store_search import containing_sql, needle_args
from agentsight.server.text import like_pattern

_COLUMNS = (
    "c.id, c.uid, c.conversation_id, e.slug, c.name, c.customer_id, c.customer_ip_address,"
    " c.device, c.source, c.language, c.metadata, c.geo_country, c.geo_city, c.geo_timezone,"
    " c.is_used, c.is_marked, c.n_messages, c.n_feedbacks, c.started_at, c.ended_at, c.created_at,"
    " c.updated_at, c.deleted_at"
)
_FROM = (
    " FROM conversations c JOIN environments e"
    " ON e.agent_id = c.agent_id AND e.id = c.environment_id"
)
_ONE = sql(f"SELECT {_COLUMNS}{_FROM} WHERE c.agent_id = $1 AND c.id = $2")
_KEPT_COUNT = sql(
    "SELECT coalesce(sum(n_live), 0), coalesce(sum(n_deleted), 0) FROM conversation_counts"
    " WHERE agent_id = $1"
)


class ConversationRow(msgspec.Struct, frozen=True, gc=False):
    """A conversation as it is read; times in µs since 1970 UTC, flags 0 or 1, JSON as text."""

    pk: ConversationPk
    uid: str
    conversation_id: str
    environment: str
    name: str | None
    customer_id: str | None
    customer_ip_address: str | None
    device: str | None
    source: str | None
    language: str | None
    metadata: str | None
    geo_country: str | None
    geo_city: str | None
    geo_timezone: str | None
    is_used: int
    is_marked: int
    n_messages: int
    n_feedbacks: int
    started_at: int
    ended_at: int | None
    created_at: int
    updated_at: int
    deleted_at: int | None


class _Where:
    """Collects conditions in both dialects with one list of arguments."""

    def __init__(self, *args: Any) -> None:
        self.args: list[Any] = list(args)
        self._pg: list[str] = []
        self._lite: list[str] = []

    def param(self, value: Any) -> str:
        """Add an argument and return its placeholder."""
        self.args.append(value)
        return f"${len(self.args)}"

    def add(self, condition: str, *, sqlite: str | None = None) -> None:
        """Add a condition that must hold."""
        self._pg.append(condition)
        self._lite.append(condition if sqlite is None else sqlite)

    def statement(self, head: str, tail: str = "") -> Sql:
        """Join the conditions into a statement."""
        return sql(
            f"{head} WHERE {' AND '.join(self._pg)}{tail}",
            sqlite=f"{head} WHERE {' AND '.join(self._lite)}{tail}",
        )


def _where(access: Access, filters: Filters) -> _Where:
    where = _Where(access.agent_id)
    where.add("c.agent_id = $1")
    if not filters.include_deleted:
        where.add("c.deleted_at IS NULL")
    _add_equals(where, filters)
    _add_contains(where, filters)
    _add_ranges(where, filters)
    _add_details(where, filters)
    for leaf in filters.metadata:
        _add_metadata(where, leaf)
    return where


def _add_equals(where: _Where, filters: Filters) -> None:
    for column, value in (
        ("conversation_id", filters.conversation_id),
        ("customer_id", filters.customer_id),
        ("customer_ip_address", filters.customer_ip_address),
        ("device", filters.device),
        ("language", filters.language),
        ("source", filters.source),
    ):
        if value is not None:
            where.add(f"c.{column} = {where.param(value)}::text")
    if filters.environment is not None:
        where.add(
            "c.environment_id = (SELECT e2.id FROM environments e2 WHERE e2.agent_id = $1"
            f" AND e2.slug = {where.param(filters.environment)}::text)"
        )


def _add_contains(where: _Where, filters: Filters) -> None:
    for column, value in (
        ("customer_id_folded", filters.customer_id_contains),
        ("name_folded", filters.name_contains),
    ):
        if value is not None:
            pattern = where.param(like_pattern(value.casefold()))
            where.add(f"c.{column} LIKE {pattern}::text ESCAPE '\\'")
    if filters.action_name_contains is not None:
        pattern = where.param(like_pattern(filters.action_name_contains.casefold()))
        where.add(
            "c.id IN (SELECT m.conversation_id FROM actions a JOIN messages m"
            " ON m.agent_id = a.agent_id AND m.id = a.message_id AND m.deleted_at IS NULL"
            f" WHERE a.agent_id = $1 AND a.name_folded LIKE {pattern}::text ESCAPE '\\')"
        )
    if filters.message_contains is not None:
        names = [where.param(value) for value in needle_args(access_id(where), filters)]
        postgresql, sqlite = containing_sql(filters.message_contains, names)
        where.add(f"c.id IN ({postgresql})", sqlite=f"c.id IN ({sqlite})")


def access_id(where: _Where) -> int:
    """Return the agent that the conditions are about."""
    return int(where.args[0])


def _add_ranges(where: _Where, filters: Filters) -> None:
    if filters.started_at_after is not None:
        where.add(f"c.started_at >= {where.param(filters.started_at_after)}::bigint")
    if filters.started_at_before is not None:
        where.add(f"c.started_at <= {where.param(filters.started_at_before)}::bigint")


def _add_details(where: _Where, filters: Filters) -> None:
    if filters.is_marked is not None:
        where.add(f"c.is_marked = {int(filters.is_marked)}")
    if filters.has_messages is not None:
        where.add("c.n_messages > 0" if filters.has_messages else "c.n_messages = 0")
    if filters.has_action is not None:
        where.add(
            f"{'' if filters.has_action else 'NOT '}EXISTS (SELECT 1 FROM messages m"
            " WHERE m.agent_id = c.agent_id AND m.conversation_id = c.id AND m.kind = 'action'"
            " AND m.deleted_at IS NULL)"
        )
    if filters.has_feedback is not None:
        where.add(f"{'' if filters.has_feedback else 'NOT '}EXISTS ({_FEEDBACK})")
    if filters.feedback_sentiment is not None or filters.feedback_source is not None:
        # Both of one feedback: "a negative word of a customer", not "one of each".
        narrowed = _FEEDBACK
        if filters.feedback_sentiment is not None:
            narrowed += f" AND f.sentiment = {where.param(filters.feedback_sentiment)}::text"
        if filters.feedback_source is not None:
            narrowed += f" AND f.source = {where.param(filters.feedback_source)}::text"
        where.add(f"EXISTS ({narrowed})")


_FEEDBACK = (
    "SELECT 1 FROM feedbacks f WHERE f.agent_id = c.agent_id AND f.conversation_id = c.id"
    " AND f.deleted_at IS NULL"
)


def _add_metadata(where: _Where, leaf: MetadataFilter) -> None:
    keys = [where.param(key) for key in leaf.path]
    text = where.param(leaf.text)
    number = number_text(leaf.text)
    placed = None if number is None else where.param(number)
    # Beyond 2^53 a double's shortest text and the integer it stands for differ.
    is_double = number is not None and Decimal(repr(float(number))) == Decimal(number)
    sqlite = _metadata_sqlite(keys, text, placed, is_double=is_double)
    if number is None and _is_verbatim(leaf.text):
        # A document that does not hold the text anywhere need not be parsed.
        sqlite = f"CASE WHEN instr(c.metadata, {text}) > 0 THEN {sqlite} ELSE 0 END"
    where.add(_metadata_postgresql(keys, text, placed), sqlite=sqlite)


def _metadata_postgresql(keys: Sequence[str], text: str, number: str | None) -> str:
    # `-> text` on a list is NULL, so the path goes through objects only.
    leaf = "(c.metadata" + "".join(f" -> {key}::text" for key in keys) + ")"
    cases = [
        f"WHEN 'string' THEN {leaf} #>> '{{}}' = {text}::text",
        f"WHEN 'boolean' THEN {leaf}::text = {text}::text",
        f"WHEN 'null' THEN {text}::text = 'null'",
    ]
    if number is not None:
        cases.append(f"WHEN 'number' THEN {leaf}::text::numeric = {number}::text::numeric")
    return f"CASE jsonb_typeof({leaf}) {' '.join(cases)} ELSE false END"


def _metadata_sqlite(keys: Sequence[str], text: str, number: str | None, *, is_double: bool) -> str:
    tables = ["json_each(CASE WHEN json_type(c.metadata) = 'object' THEN c.metadata END) j1"]
    conditions = [f"j1.key = {keys[0]}"]
    for n, key in enumerate(keys[1:], start=2):
        outer = f"j{n - 1}"
        tables.append(f"json_each(CASE WHEN {outer}.type = 'object' THEN {outer}.value END) j{n}")
        conditions.append(f"j{n}.key = {key}")
    leaf = f"j{len(keys)}"
    cases = [
        f"WHEN 'text' THEN {leaf}.value = {text}",
        f"WHEN 'true' THEN {text} = 'true'",
        f"WHEN 'false' THEN {text} = 'false'",
        f"WHEN 'null' THEN {text} = 'null'",
    ]
    if number is not None:
        cases.append(f"WHEN 'integer' THEN {leaf}.value = CAST({number} AS NUMERIC)")
    if is_double:
        cases.append(f"WHEN 'real' THEN {leaf}.value = CAST({number} AS REAL)")
    conditions.append(f"CASE {leaf}.type {' '.join(cases)} ELSE 0 END")
    return f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {' AND '.join(conditions)})"


def _is_verbatim(value: str) -> bool:
    """Say whether JSON holds a string as it is, with nothing escaped (RFC 8259, section 7)."""
    return bool(value) and value.isascii() and value.isprintable() and not set(value) & set('"\\/')


def _order(filters: Filters) -> str:
    if not filters.ordering:
        return " ORDER BY c.started_at DESC, c.id DESC"
    parts: list[str] = []
    id_order = "c.id DESC"
    for column, is_descending in filters.ordering:
        direction = "DESC" if is_descending else "ASC"
        if column == "id":
            # No two ids are equal: what stands behind it orders nothing.
            id_order = f"c.id {direction}"
            break
        nulls = " NULLS LAST" if column in ("ended_at", "customer_id", "language") else ""
        parts.append(f"c.{column} {direction}{nulls}")
    return f" ORDER BY {', '.join([*parts, id_order])}"


async def count(tx: Tx, access: Access, filters: Filters) -> int:
    """Count what a list holds on all its pages, exactly."""
    if filters.is_plain():
        row = await tx.row(_KEPT_COUNT, access.agent_id)
        live, deleted = row or (0, 0)
        return int(live) + (int(deleted) if filters.include_deleted else 0)
    where = _where(access, filters)
    return await tx.value(where.statement("SELECT count(*) FROM conversations c"), *where.args)


async def page(
    tx: Tx, access: Access, filters: Filters, *, limit: int, offset: int
) -> list[ConversationRow]:
    """Read one page of a list, in its order."""
    where = _where(access, filters)
    tail = (
        f"{_order(filters)} LIMIT {where.param(limit)}::bigint OFFSET {where.param(offset)}::bigint"
    )
    rows = await tx.rows(where.statement(f"SELECT {_COLUMNS}{_FROM}", tail), *where.args)
    return [ConversationRow(*row) for row in rows]


async def read_one(tx: Tx, access: Access, pk: ConversationPk) -> ConversationRow | None:
    """Read one conversation, deleted ones too."""
    row = await tx.row(_ONE, access.agent_id, pk)
    return None if row is None else ConversationRow(*row)
