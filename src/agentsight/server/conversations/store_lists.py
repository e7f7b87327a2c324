"""Lists of conversations: filters into SQL, once for both databases; counts, pages, rows.

Every value travels as a parameter. What differs between the databases is JSON and the index of
message texts; `tests/server/conversations/oracle.py` says what each filter must mean on both.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from agentsight.server.access import Access
from agentsight.server.attachments import store_search as file_search
from agentsight.server.conversations.filters import Filters
from agentsight.server.db import Tx, sql
from agentsight.server.db.conditions import Conditions
from agentsight.server.ids import ConversationPk
from agentsight.server.messages.store_search import containing_sql, needle_args
from agentsight.server.text import like_pattern

_MAX_KNOWN: Final = 500
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
_ONE = sql(f"SELECT {_COLUMNS}{_FROM} WHERE c.agent_id = $1 AND c.id = $2 AND c.erased_by IS NULL")
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


Known: TypeAlias = list[ConversationPk]
"""Conversations whose files hold what `attachment_contains` asks for: see `look_up`."""


async def look_up(tx: Tx, access: Access, filters: Filters) -> Known | None:
    """Find the conversations whose files hold what a list asks for, once for its count and page.

    Returns:
        None where it asks for nothing, or too many do: they are then found while it is made.
    """
    if filters.attachment_contains is None:
        return None
    needle = filters.attachment_contains
    found = await file_search.find_conversations(tx, access, needle, _MAX_KNOWN + 1)
    return None if len(found) > _MAX_KNOWN else list(dict.fromkeys(found))


def _where(access: Access, filters: Filters, known: Known | None) -> Conditions:
    where = Conditions(access.agent_id)
    where.add("c.agent_id = $1")
    if not filters.include_deleted:
        where.add("c.deleted_at IS NULL")
    else:
        where.add("c.erased_by IS NULL")
    _add_equals(where, filters)
    _add_contains(where, access, filters, known)
    _add_ranges(where, filters)
    _add_details(where, filters)
    for leaf in filters.metadata:
        where.add_metadata("c.metadata", leaf)
    return where


def _add_equals(where: Conditions, filters: Filters) -> None:
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


def _add_contains(where: Conditions, access: Access, filters: Filters, known: Known | None) -> None:
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
        needle = filters.message_contains
        names = [where.param(value) for value in needle_args(access.agent_id, needle)]
        postgresql, sqlite = containing_sql(needle, names)
        where.add(f"c.id IN ({postgresql})", sqlite=f"c.id IN ({sqlite})")
    if known is not None:
        where.add(f"c.id = ANY({where.param(known)}::bigint[])")
    elif filters.attachment_contains is not None:
        postgresql, sqlite = file_search.conversations_sql(
            where, access, filters.attachment_contains
        )
        where.add(f"c.id IN ({postgresql})", sqlite=f"c.id IN ({sqlite})")


def _add_ranges(where: Conditions, filters: Filters) -> None:
    if filters.started_at_after is not None:
        where.add(f"c.started_at >= {where.param(filters.started_at_after)}::bigint")
    if filters.started_at_before is not None:
        where.add(f"c.started_at <= {where.param(filters.started_at_before)}::bigint")


def _add_details(where: Conditions, filters: Filters) -> None:
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


async def count(tx: Tx, access: Access, filters: Filters, known: Known | None = None) -> int:
    """Count what a list holds on all its pages, exactly; `known` is what `look_up` returned."""
    if filters.is_plain():
        row = await tx.row(_KEPT_COUNT, access.agent_id)
        live, deleted = row or (0, 0)
        return int(live) + (int(deleted) if filters.include_deleted else 0)
    where = _where(access, filters, known)
    return await tx.value(where.statement("SELECT count(*) FROM conversations c"), *where.args)


async def page(
    tx: Tx,
    access: Access,
    filters: Filters,
    known: Known | None = None,
    *,
    limit: int,
    offset: int,
) -> list[ConversationRow]:
    """Read one page of a list, in its order; `known` is what `look_up` returned."""
    where = _where(access, filters, known)
    tail = (
        f"{_order(filters)} LIMIT {where.param(limit)}::bigint OFFSET {where.param(offset)}::bigint"
    )
    rows = await tx.rows(where.statement(f"SELECT {_COLUMNS}{_FROM}", tail), *where.args)
    return [ConversationRow(*row) for row in rows]


async def read_one(tx: Tx, access: Access, pk: ConversationPk) -> ConversationRow | None:
    """Read one conversation, deleted ones too."""
    row = await tx.row(_ONE, access.agent_id, pk)
    return None if row is None else ConversationRow(*row)
