"""What a person can do with conversations: list, read, rename, mark, update, hide, judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.attachments import store as attachments
from agentsight.server.conversations import store, store_lists
from agentsight.server.conversations.filters import Filters
from agentsight.server.conversations.model import Head
from agentsight.server.conversations.shapes import Transcripts
from agentsight.server.conversations.store_lists import ConversationRow
from agentsight.server.db import Tx
from agentsight.server.db.errors import ConstraintViolation, UniqueViolation
from agentsight.server.feedback import store as feedback
from agentsight.server.feedback.store import FeedbackRow, NewFeedback
from agentsight.server.ids import ConversationPk
from agentsight.server.messages import store as messages
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, invalid, not_found
from agentsight.server.usage import store as usage
from agentsight.server.web.fields import parse_row_id

BY_ID = "by-id/"
"""Before a caller's own id in a path: that may look like a number or a uid."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of conversations; `transcripts` is None for lean rows."""

    count: int
    rows: list[ConversationRow]
    transcripts: Transcripts | None


def _fitting(rows: Sequence[ConversationRow], room: int | None) -> list[ConversationRow]:
    """Choose whose messages fit into one answer, from the top; None is room for all."""
    if room is None:
        return list(rows)
    fitting: list[ConversationRow] = []
    for row in rows:
        if row.n_messages <= room:
            room -= row.n_messages
            fitting.append(row)
    return fitting


async def _transcripts(
    tx: Tx, access: Access, rows: Sequence[ConversationRow], room: int | None
) -> Transcripts:
    fitting = _fitting(rows, room)
    pks = [row.pk for row in fitting]
    has_messages = [row.pk for row in fitting if row.n_messages]
    judged = [row.pk for row in rows if row.n_feedbacks]
    return Transcripts(
        await messages.read_messages(tx, access, has_messages) if has_messages else {},
        await attachments.of_conversations(tx, access, has_messages) if has_messages else {},
        await feedback.read_feedbacks(tx, access, judged) if judged else {},
        await usage.read_usages(tx, access, pks) if pks else {},
        frozenset(row.pk for row in rows) - frozenset(pks),
    )


async def list_conversations(
    parts: Parts, access: Access, filters: Filters, *, limit: int, offset: int, full: bool
) -> Listed:
    """List conversations; with `full`, transcripts as far as `max_messages_per_list` goes.

    A list by exact `conversation_id` is never cut: gen A reads one conversation that way.
    """

    max_messages = parts.settings.max_messages_per_list

    async def query(tx: Tx) -> Listed:
        known = await store_lists.look_up(tx, access, filters)
        count = await store_lists.count(tx, access, filters, known)
        rows: list[ConversationRow] = []
        if offset < count:
            rows = await store_lists.page(tx, access, filters, known, limit=limit, offset=offset)
        if not full:
            return Listed(count, rows, None)
        room = None if filters.conversation_id is not None else max_messages
        return Listed(count, rows, await _transcripts(tx, access, rows, room))

    # Counting, searching and transcripts take more than a millisecond: not on the event loop.
    listed = await parts.db.read(query, slow=True, snapshot=True)
    parts.audit.read(access, "list", "agent", access.agent_uid)
    if full:
        for row in listed.rows:
            parts.audit.read(access, "read", "conversation", row.uid)
    return listed


async def read_conversation(
    parts: Parts, access: Access, pk: ConversationPk
) -> tuple[ConversationRow, Transcripts]:
    """Read one conversation with its whole transcript, deleted ones too.

    Raises:
        Problem: 404 when there is no such conversation for this caller.
    """

    async def query(tx: Tx) -> tuple[ConversationRow, Transcripts] | None:
        row = await store_lists.read_one(tx, access, pk)
        if row is None:
            return None
        return row, await _transcripts(tx, access, [row], None)

    found = await parts.db.read(query, slow=True, snapshot=True)
    if found is None:
        raise not_found()
    parts.audit.read(access, "read", "conversation", found[0].uid)
    return found


async def look_up(parts: Parts, access: Access, conversation_id: str) -> Head:
    """Find a conversation by its caller's id, deleted ones too.

    Raises:
        Problem: 404 when there is none.
    """
    head = await parts.db.read(
        lambda tx: store.find_by_conversation_id(tx, access, conversation_id)
    )
    if head is None:
        raise not_found()
    return head


async def look_up_uid(parts: Parts, access: Access, uid: str) -> Head:
    """Find a conversation by its uid, deleted ones too.

    Raises:
        Problem: 404 when there is none.
    """
    head = await parts.db.read(lambda tx: store.find_by_uid(tx, access, uid))
    if head is None:
        raise not_found()
    return head


async def resolve_ref(parts: Parts, access: Access, ref: str) -> Head:
    """Find a conversation by what /api/v1 calls it, deleted ones too.

    Args:
        parts: The parts of this process.
        access: Who asks.
        ref: Its row id in digits, its uid, or `by-id/` and its caller's id.

    Raises:
        Problem: 404 when there is none for this caller.
    """
    if ref.startswith(BY_ID):
        return await look_up(parts, access, ref.removeprefix(BY_ID))
    if not (ref.isascii() and ref.isdigit()):
        return await look_up_uid(parts, access, ref)
    pk = ConversationPk(parse_row_id(ref))
    head = await parts.db.read(lambda tx: store.find(tx, access, pk))
    if head is None:
        raise not_found()
    return head


@dataclass(frozen=True, slots=True)
class Change:
    """What a manager sets; the names of `fields` are those given, `metadata` as JSON text."""

    name: str | None = None
    is_marked: bool | None = None
    fields: tuple[tuple[str, str | None], ...] = ()


async def change_conversation(
    parts: Parts, access: Access, pk: ConversationPk, change: Change
) -> Head:
    """Rename, mark and set fields, all or nothing; of deleted conversations too.

    Raises:
        Problem: 404 when there is no such conversation for this caller.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> Head:
        head = await store.find(tx, access, pk)
        if head is None:
            raise not_found()
        done = True
        if change.name is not None:
            done = await store.rename(tx, access, pk, change.name, now_us=now)
        if change.is_marked is not None:
            done &= await store.mark(tx, access, pk, is_marked=change.is_marked, now_us=now)
        for field, value in change.fields:
            done &= await store.set_field(tx, access, pk, field, value, now_us=now)
        if not done:
            raise not_found()
        return head

    return await parts.db.write(unit)


async def delete_conversation(parts: Parts, access: Access, pk: ConversationPk) -> tuple[Head, int]:
    """Hide a conversation from lists; returns it and the time (µs since 1970 UTC).

    Raises:
        Problem: 404 when there is no such conversation or it is deleted already.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> Head:
        head = await store.find(tx, access, pk)
        if head is None:
            raise not_found()
        if not await store.delete(tx, access, pk, now_us=now):
            text = "Conversation not found or already deleted."
            raise Problem(404, "not_found", text)
        return head

    return await parts.db.write(unit), now


async def add_feedback(
    parts: Parts, access: Access, reference: ConversationPk | str, new: NewFeedback
) -> tuple[FeedbackRow, bool]:
    """Store a word on a conversation, named by its row id or by its caller's id.

    Returns:
        The row, and whether it is new: an item key that is known gives the first row.

    Raises:
        Problem: 404 when there is no such conversation; 400 when the item key is another's.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> tuple[FeedbackRow, bool]:
        if isinstance(reference, str):
            head = await store.find_by_conversation_id(tx, access, reference)
        else:
            head = await store.find(tx, access, reference)
        if head is None:
            raise not_found()
        feedback_id = await feedback.insert(tx, access, head.pk, new, now_us=now)
        if feedback_id is None:
            known = await feedback.find_by_item_key(tx, access, new.item_key or "")
            if known is None:
                raise not_found()
            if known.conversation_pk != head.pk:
                text = f"{new.item_key!r} belongs to another item; make a new one."
                raise invalid("item_key", text)
            return known, False
        await store.count_feedback(tx, access, head.pk, now_us=now)
        row = FeedbackRow(
            head.pk, feedback_id, new.sentiment, new.source, new.comment, new.metadata, now
        )
        return row, True

    try:
        return await parts.db.write(unit)
    except UniqueViolation:
        raise
    except ConstraintViolation:
        # Between our look and our insert an erasure took the conversation: now it is not there.
        return await parts.db.write(unit)
