"""What a person can do to hand in: open a conversation, apply items, add files to a message.

Everything that comes in goes through `apply_items`, inside one unit of work: whole or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agentsight import _contract as contract
from agentsight.server import metrics
from agentsight.server.access import Access
from agentsight.server.agents import store as agents
from agentsight.server.attachments import service as attaching
from agentsight.server.attachments import store as attachments
from agentsight.server.attachments.keeping import Rules
from agentsight.server.attachments.model import AttachmentRow, HandedIn
from agentsight.server.conversations import store as conversations
from agentsight.server.conversations.model import Head, NewConversation
from agentsight.server.db import Tx
from agentsight.server.db.errors import ConstraintViolation, UniqueViolation
from agentsight.server.ids import ConversationPk, MessageId, new_uid
from agentsight.server.ingest.model import Applied, Item, StoredItem, Target
from agentsight.server.instance.ledger import LedgerKey
from agentsight.server.messages import store as messages
from agentsight.server.messages.model import NewMessage
from agentsight.server.messages.store import Known
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, invalid, not_found, required
from agentsight.server.removals.service_late import erased_until, files_were_erased
from agentsight.server.usage import store as usage

REPEAT_WINDOW_US = contract.REPEAT_WINDOW_S * 1_000_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of work at a time: who writes, when, and how many environments an agent may have."""

    tx: Tx
    access: Access
    now_us: int
    max_environments: int
    rules: Rules
    ledger: LedgerKey

    async def find(self, new: NewConversation) -> Head | None:
        """Find the conversation that would be opened."""
        return await conversations.find_by_conversation_id(
            self.tx, self.access, new.conversation_id
        )

    async def erased_until(self, head: Head, customer_id: str | None = None) -> int | None:
        """Return up to which time what comes for a conversation is dropped, or None."""
        customers = {one for one in (customer_id, head.customer_id) if one is not None}
        return await erased_until(
            self.tx,
            self.access,
            self.ledger,
            head.conversation_id,
            sorted(customers),
            now_us=self.now_us,
        )

    async def open(self, new: NewConversation) -> tuple[Head, bool]:
        """Find a conversation and fill what is empty, or make it; True when it is new."""
        return await self.open_found(await self.find(new), new)

    async def open_found(self, head: Head | None, new: NewConversation) -> tuple[Head, bool]:
        """Fill what is empty in a conversation, or make one where none was found."""
        if head is None:
            environment_id = await agents.environment_id(
                self.tx,
                self.access,
                new.environment,
                self.now_us,
                max_environments=self.max_environments,
            )
            if environment_id is None:
                raise not_found()
            head = await conversations.insert(
                self.tx,
                self.access,
                new,
                uid=new_uid(self.now_us),
                environment_id=environment_id,
                now_us=self.now_us,
            )
            if head is not None:
                return head, True
            # Another writer was first: theirs is there now.
            head = await conversations.find_by_conversation_id(
                self.tx, self.access, new.conversation_id
            )
            if head is None:
                raise not_found()
        await conversations.fill(self.tx, self.access, head.pk, new, now_us=self.now_us)
        return head, False

    async def resolve(self, target: Target) -> Head:
        """Find the conversation that is meant, making it where that is allowed.

        Raises:
            Problem: 404 when it is not there, or the message is another conversation's;
                400 when nothing says which is meant.
        """
        head: Head | None = None
        if target.pk is not None:
            head = await conversations.find(self.tx, self.access, target.pk)
        elif target.conversation_id is not None:
            head = await conversations.find_by_conversation_id(
                self.tx, self.access, target.conversation_id
            )
            if head is None and target.new is not None:
                head, _ = await self.open(target.new)
        elif target.message_id is not None:
            head = await conversations.find_by_message(self.tx, self.access, target.message_id)
        else:
            raise required("conversation")
        if head is None:
            raise not_found()
        if target.message_id is not None:
            owner = await messages.conversation_of(self.tx, self.access, target.message_id)
            if owner != head.pk:
                raise not_found()
        return head

    async def store(self, head: Head, item: Item, applied: Applied) -> StoredItem:
        """Store one item with its details and files, or find that it was stored before."""
        message_id = await self._insert(head, item.message)
        if isinstance(message_id, Known):
            return await self._repeat(item.message, message_id)
        detail_id = await self._insert_detail(head, message_id, item.message)
        attached = await attaching.attach(
            self.tx,
            self.access,
            item.files,
            conversation_pk=head.pk,
            message_id=message_id,
            rules=self.rules,
            now_us=self.now_us,
        )
        applied.object_keys.extend(attached.object_keys)
        applied.deduplicated_bytes += attached.deduplicated_bytes
        return StoredItem(message_id, detail_id, False, attached.ids)

    async def _insert(self, head: Head, new: NewMessage) -> MessageId | Known:
        # Twice: a key whose window is over is given up, and then the insert must succeed.
        for _ in range(2):
            message_id = await messages.insert(
                self.tx, self.access, head.pk, new, uid=new_uid(self.now_us), now_us=self.now_us
            )
            if message_id is not None:
                return message_id
            known = None
            if new.item_key is not None:
                known = await messages.find_by_item_key(self.tx, self.access, new.item_key)
            if known is None:
                return await self._known_by_channel(head, new)
            if known.conversation_pk != head.pk:
                raise _key_taken(new.item_key)
            if new.is_repeat_lasting or self.now_us - known.created_at <= REPEAT_WINDOW_US:
                return known
            await messages.forget_item_key(self.tx, self.access, known.message_id)
        raise _try_again()

    async def _known_by_channel(self, head: Head, new: NewMessage) -> Known:
        """Find the message of a channel's own id, which is honoured for ever."""
        if new.external_id is not None:
            known = await messages.find_by_external_id(
                self.tx, self.access, head.pk, new.external_id
            )
            if known is not None:
                return known
        raise _try_again()

    async def _repeat(self, new: NewMessage, known: Known) -> StoredItem:
        detail_id: int | None = None
        if new.usage is not None:
            detail_id = await usage.find_by_message(self.tx, self.access, known.message_id)
        elif new.action is not None or new.button is not None:
            message = await messages.read_message(self.tx, self.access, known.message_id)
            if message is not None and message.actions:
                detail_id = message.actions[0].action_id
            elif message is not None and message.button is not None:
                detail_id = message.button.button_id
        rows = await attachments.of_message(self.tx, self.access, known.message_id)
        return StoredItem(known.message_id, detail_id, True, [row.attachment_id for row in rows])

    async def _insert_detail(
        self, head: Head, message_id: MessageId, new: NewMessage
    ) -> int | None:
        if new.action is not None:
            return await messages.insert_action(
                self.tx,
                self.access,
                message_id,
                new.action,
                metadata=new.metadata,
                now_us=self.now_us,
            )
        if new.button is not None:
            return await messages.insert_button(
                self.tx,
                self.access,
                message_id,
                new.button,
                metadata=new.metadata,
                now_us=self.now_us,
            )
        if new.usage is not None:
            return await usage.insert(
                self.tx,
                self.access,
                head.pk,
                message_id,
                new.usage,
                timestamp=new.timestamp,
                now_us=self.now_us,
            )
        return None

    async def touch(self, head: Head, stored: Sequence[tuple[NewMessage, StoredItem]]) -> None:
        """Count what is new in a conversation and widen its times; usage is no message."""
        new = [m for m, result in stored if not result.is_repeat and m.kind != "usage"]
        if not new:
            return
        times = [message.timestamp for message in new]
        await conversations.touch(
            self.tx,
            self.access,
            head.pk,
            n_messages=len(new),
            first_at=min(times),
            last_at=max(times),
            now_us=self.now_us,
        )


def _key_taken(item_key: str | None) -> Problem:
    """Refuse, loudly, what would otherwise count as stored and be nowhere."""
    return invalid("item_key", f"{item_key!r} belongs to another item; make a new one.")


def _try_again() -> Problem:
    return Problem(503, "database_unavailable", "The same item is being stored; try again.")


async def _write(parts: Parts, access: Access, work: Callable[[Unit], Awaitable[T]]) -> T:
    now, settings = parts.clock(), parts.settings
    rules, limit = Rules.of(settings), settings.max_environments_per_agent

    async def run(tx: Tx) -> T:
        return await work(Unit(tx, access, now, limit, rules, parts.ledger))

    try:
        return await parts.db.write(run)
    except UniqueViolation:
        raise
    except ConstraintViolation:
        # Between our look and our insert an erasure took the conversation: now it is not there.
        return await parts.db.write(run)


async def _in_unit(
    parts: Parts, access: Access, work: Callable[[Unit], Awaitable[Applied]]
) -> Applied:
    applied = await _write(parts, access, work)
    metrics.deduplicated_bytes.inc(applied.deduplicated_bytes)
    return applied


async def open_conversation(
    parts: Parts, access: Access, new: NewConversation
) -> tuple[Head, bool]:
    """Make a conversation, or fill what is empty in the one that is there; True when it is new.

    Two that do this at once make one row.

    Raises:
        Problem: 410 when it was erased after it began.
    """

    async def work(unit: Unit) -> tuple[Head, bool]:
        opened = await unit.open(new)
        erased_at = await unit.erased_until(opened[0], new.customer_id)
        if erased_at is not None and new.started_at <= erased_at:
            raise _erased()
        return opened

    return await _write(parts, access, work)


async def apply_items(
    parts: Parts, access: Access, target: Target | NewConversation, items: Sequence[Item]
) -> Applied:
    """Store items in a conversation, whole or not at all, each at most once.

    What happened before its conversation or customer was erased, and comes only now, is dropped:
    where a conversation is opened, item by item; else with a refusal. Where only such things come,
    nothing is said of the conversation either: it is not made, and not filled.

    Args:
        target: The conversation by one of its names, or one to open (and fill) first.
        items: In the order in which they are to be numbered.

    Raises:
        Problem: What is wrong; for the item at fault, with `items` naming its index.
    """

    async def work(unit: Unit) -> Applied:
        if isinstance(target, NewConversation):
            head, erased_at = await _open_for(unit, target, items)
            if head is None:
                nowhere = Head(ConversationPk(0), "", target.conversation_id)
                return Applied(nowhere, [_dropped() for _ in items], is_nowhere=True)
        else:
            head = await unit.resolve(target)
            erased_at = await unit.erased_until(head)
            if any(_is_late(item, erased_at) for item in items):
                raise _erased()
        applied = Applied(head, [])
        stored: list[tuple[NewMessage, StoredItem]] = []
        for index, item in enumerate(items):
            if _is_late(item, erased_at):
                applied.items.append(_dropped())
                continue
            try:
                result = await unit.store(head, item, applied)
            except Problem as problem:
                problem.items = [refusal(index, item.message.item_key, problem)]
                raise
            applied.items.append(result)
            stored.append((item.message, result))
        await unit.touch(head, stored)
        return applied

    try:
        return await _in_unit(parts, access, work)
    except Problem as problem:
        if problem.code == "erased" and isinstance(target, Target):
            await _write(parts, access, lambda unit: _take_back_opening(unit, target, items))
        raise


async def _open_for(
    unit: Unit, new: NewConversation, items: Sequence[Item]
) -> tuple[Head | None, int | None]:
    """Open a conversation for those of the items that do not come too late.

    Returns:
        The conversation, or None where it is better not made; and up to when items are dropped.
    """
    known = await unit.find(new)
    named = known or Head(ConversationPk(0), "", new.conversation_id)
    erased_at = await unit.erased_until(named, new.customer_id)
    times = [item.message.timestamp for item in items if not _is_late(item, erased_at)]
    n_late = len(items) - len(times)
    if erased_at is not None and (n_late or new.started_at <= erased_at):
        # What it says of the conversation is of before, too, also where it names no time and so
        # seems to begin now; what is new begins with an item.
        if not times:
            return known, erased_at
        new = NewConversation(
            new.conversation_id,
            new.environment,
            min(times),
            customer_id=new.customer_id,
            is_used=new.is_used,
        )
    head, _ = await unit.open_found(known, new)
    return head, erased_at


async def _take_back_opening(unit: Unit, target: Target, items: Sequence[Item]) -> None:
    """Forget what an opening said of a conversation in which nothing came but what is too late.

    Published clients open without a time, so a resend's opening looks like a new conversation, and
    would bring back who the customer was. The row stays: something new may still come to it.
    """
    head: Head | None = None
    if target.pk is not None:
        head = await conversations.find(unit.tx, unit.access, target.pk)
    elif target.conversation_id is not None:
        head = await conversations.find_by_conversation_id(
            unit.tx, unit.access, target.conversation_id
        )
    if head is None:
        return
    erased_at = await unit.erased_until(head)
    if any(_is_late(item, erased_at) for item in items):
        await conversations.forget_opening(unit.tx, unit.access, head.pk, now_us=unit.now_us)


def _is_late(item: Item, erased_at: int | None) -> bool:
    return erased_at is not None and item.message.timestamp <= erased_at


def _dropped() -> StoredItem:
    return StoredItem(MessageId(0), None, False, is_erased=True)


def _erased() -> Problem:
    text = "It was erased; what happened before that and comes only now is not kept."
    return Problem(410, "erased", text)


def refusal(index: int, item_key: str | None, problem: Problem) -> dict[str, Any]:
    """Say which item of a batch is refused, and why."""
    return {
        "index": index,
        "item_key": item_key,
        "code": problem.code,
        "detail": problem.detail,
    }


async def add_files(
    parts: Parts,
    access: Access,
    target: Target,
    files: Sequence[HandedIn],
    *,
    is_repeat_lasting: bool = False,
) -> Applied:
    """Add files to a message that is there already, at most once.

    Args:
        target: The message, and maybe its conversation, which then must fit.
        files: Each with an item key made of its request's and its index, or with none.
        is_repeat_lasting: Whether the keys are honoured for ever, not for the window only.

    Raises:
        Problem: 404 when the message is not there or another conversation's.
    """

    async def work(unit: Unit) -> Applied:
        head = await unit.resolve(target)
        message_id = target.message_id
        if message_id is None:
            raise required("message")
        # A resend may come while its first is still being stored: it waits, and then finds it.
        await messages.lock(unit.tx, access, message_id)
        keys = [received.item_key for received in files if received.item_key is not None]
        known = await attachments.find_by_item_keys(unit.tx, access, keys) if keys else []
        if any(owner != message_id for _, owner, _ in known):
            raise _key_taken(keys[0].rpartition(":")[0])
        if known and (is_repeat_lasting or unit.now_us - known[0][2] <= REPEAT_WINDOW_US):
            ids = [attachment_id for attachment_id, _, _ in known]
            return Applied(head, [StoredItem(message_id, None, True, ids)])
        if known:
            await attachments.forget_item_keys(unit.tx, access, keys)
        elif keys and await files_were_erased(unit.tx, access, unit.ledger, keys):
            raise _erased()
        attached = await attaching.attach(
            unit.tx,
            unit.access,
            files,
            conversation_pk=head.pk,
            message_id=message_id,
            rules=unit.rules,
            now_us=unit.now_us,
        )
        await messages.touch(unit.tx, access, message_id, now_us=unit.now_us)
        stored = StoredItem(message_id, None, False, attached.ids)
        return Applied(head, [stored], attached.object_keys, attached.deduplicated_bytes)

    return await _in_unit(parts, access, work)


async def read_files(
    parts: Parts, access: Access, items: Sequence[StoredItem]
) -> dict[int, list[AttachmentRow]]:
    """Read the files of stored items back, by message."""
    ids = [attachment_id for item in items for attachment_id in item.attachment_ids]
    if not ids:
        return {}
    by_message: dict[int, list[AttachmentRow]] = {}
    for row in await parts.db.read(lambda tx: attachments.by_ids(tx, access, ids)):
        by_message.setdefault(row.message_id, []).append(row)
    return by_message
