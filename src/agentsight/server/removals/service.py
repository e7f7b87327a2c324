"""What a person can do to remove things: hide, bring back, erase, read what an erasure did."""

from __future__ import annotations

from typing import Final

from agentsight.server.access import Access
from agentsight.server.audits import store as audits
from agentsight.server.conversations import store as conversations
from agentsight.server.conversations.model import Head
from agentsight.server.db import Tx
from agentsight.server.ids import new_uid
from agentsight.server.messages import store as messages
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, not_found
from agentsight.server.removals import store, store_customers, store_hidden, store_receipts
from agentsight.server.removals.model import Receipt, ReceiptKind, add_rows
from agentsight.server.removals.service_work import (
    find_some,
    finish,
    remember_conversations,
    remove_files,
    remove_rows,
)
from agentsight.server.removals.store import GoingFile
from agentsight.server.removals.store_receipts import Work

STEPS_WHILE_ASKED: Final = 400
"""So far an erasure goes while somebody waits for it: some 200,000 messages."""
STEPS_OF_OPERATOR: Final = 1_000_000
_MAX_LISTED: Final = 1_000

# --- Attachments ----------------------------------------------------------------------------------


async def hide_attachment(parts: Parts, access: Access, uid: str) -> int:
    """Hide an attachment; its links are dead at once. Returns when (µs since 1970 UTC).

    Raises:
        Problem: 404 when there is none for this caller, or it is hidden already.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        found = await store_hidden.find_attachment(tx, access, uid)
        if found is None or not await store_hidden.set_hidden(
            tx, access, found.file.attachment_id, deleted_at=now, now_us=now
        ):
            raise not_found()
        await messages.touch(tx, access, found.message_id, now_us=now)
        await audits.add(tx, access, "delete", "attachment", uid, now_us=now)

    await parts.db.write(unit)
    return now


async def restore_attachment(parts: Parts, access: Access, uid: str) -> None:
    """Show a hidden attachment again; one that is not hidden stays as it is.

    Raises:
        Problem: 404 when there is none for this caller, or no more.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        found = await store_hidden.find_attachment(tx, access, uid)
        if found is None or not await store_hidden.lock_attachment(
            tx, access, found.file.attachment_id
        ):
            raise not_found()
        if await store_hidden.set_hidden(
            tx, access, found.file.attachment_id, deleted_at=None, now_us=now
        ):
            await messages.touch(tx, access, found.message_id, now_us=now)
            await audits.add(tx, access, "restore", "attachment", uid, now_us=now)

    await parts.db.write(unit)


async def erase_attachment(parts: Parts, access: Access, uid: str) -> Work:
    """Erase an attachment, hidden or not, with its bytes where nothing else refers to them.

    Raises:
        Problem: 404 when there is none for this caller.
    """
    now = parts.clock()
    receipt_uid = new_uid(now)

    async def unit(tx: Tx) -> None:
        found = await store_hidden.find_attachment(tx, access, uid)
        if found is None or not await store_hidden.lock_attachment(
            tx, access, found.file.attachment_id
        ):
            raise not_found()
        receipt = Receipt(kind="attachment", asked_at=now, asked_for=uid)
        work = await store_receipts.insert(tx, access, receipt_uid, receipt, "ledger", now_us=now)
        await messages.touch(tx, access, found.message_id, now_us=now)
        await forget_files(tx, parts, access, work, [found.file], now_us=now)
        await audits.add(tx, access, "erase", "attachment", uid, now_us=now)
        await store_receipts.put(tx, work, now_us=now)

    await parts.db.write(unit)
    return await finish(parts, receipt_uid, max_steps=STEPS_WHILE_ASKED)


async def forget_files(
    tx: Tx, parts: Parts, access: Access, work: Work, files: list[GoingFile], *, now_us: int
) -> None:
    """Remove attachments for themselves, and remember it, so that a resend does not bring them."""
    for file in files:
        hashes = [parts.ledger.of_attachment(access.agent_id, file.uid)]
        if file.item_key is not None:
            hashes.append(parts.ledger.of_attachment_item(access.agent_id, file.item_key))
        for subject_hash in hashes:
            await store_receipts.add_entry(
                tx,
                access,
                uid=new_uid(now_us),
                agent_id=access.agent_id,
                kind="attachment",
                subject_hash=subject_hash,
                erased_at=work.receipt.asked_at,
                receipt_uid=work.uid,
            )
    work.receipt.is_ledgered = True
    await remove_files(tx, access, work, files, now_us=now_us)


# --- Conversations --------------------------------------------------------------------------------


async def hide_conversation(parts: Parts, access: Access, head: Head) -> int:
    """Hide a conversation from lists; returns when (µs since 1970 UTC).

    Raises:
        Problem: 404 when it is gone, or hidden already.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        if not await conversations.delete(tx, access, head.pk, now_us=now):
            raise Problem(404, "not_found", "Conversation not found or already deleted.")
        await audits.add(tx, access, "delete", "conversation", head.uid, now_us=now)

    await parts.db.write(unit)
    return now


async def restore_conversation(parts: Parts, access: Access, head: Head) -> None:
    """Show a hidden conversation again; one that is not hidden stays as it is.

    Raises:
        Problem: 404 when it is gone.
    """
    now = parts.clock()

    async def unit(tx: Tx) -> None:
        if not await store_hidden.conversation_is_there(tx, access, head.pk):
            raise not_found()
        if await store_hidden.restore_conversation(tx, access, head.pk, now_us=now):
            await audits.add(tx, access, "restore", "conversation", head.uid, now_us=now)

    await parts.db.write(unit)


async def erase_conversation(parts: Parts, access: Access, head: Head) -> Work:
    """Erase a conversation with all that is in it.

    The first unit takes it from everybody's eyes, remembers it and removes what fits; the rest
    follows in further ones.

    Raises:
        Problem: 404 when it is gone.
    """
    now, is_sqlite = parts.clock(), parts.db.dialect == "sqlite"
    receipt_uid = new_uid(now)

    async def unit(tx: Tx) -> None:
        receipt = Receipt(kind="conversation", asked_at=now, asked_for=head.uid)
        work = await store_receipts.insert(tx, access, receipt_uid, receipt, "rows", now_us=now)
        marked = await store.mark_by_pks(tx, access, [head.pk], receipt_uid, now_us=now)
        if not marked:
            raise not_found()
        await remember_conversations(tx, parts, access, work, marked)
        await audits.add(tx, access, "erase", "conversation", head.uid, now_us=now)
        await remove_rows(tx, work, is_sqlite=is_sqlite, now_us=now)
        await store_receipts.put(tx, work, now_us=now)

    await parts.db.write(unit)
    return await finish(parts, receipt_uid, max_steps=STEPS_WHILE_ASKED)


# --- Customers ------------------------------------------------------------------------------------


async def would_erase_customer(parts: Parts, access: Access, customer_id: str) -> Receipt:
    """Say what erasing a customer would do, in the form of its receipt, and do nothing."""
    now = parts.clock()

    async def query(tx: Tx) -> Receipt:
        receipt = Receipt(kind="customer", asked_at=now, is_ledgered=True)
        for agent_id in await store_customers.agents_of(tx, access):
            agent = access.within(agent_id)
            would = await store_customers.would_remove(tx, agent, customer_id, now_us=now)
            add_rows(receipt.rows, would.rows)
            receipt.objects += would.objects
            receipt.bytes += would.n_bytes
            receipt.kept_blobs += would.kept_blobs
            receipt.kept_bytes += would.kept_bytes
        return receipt

    return await parts.db.read(query, slow=True, snapshot=True)


async def erase_customer(parts: Parts, access: Access, customer_id: str) -> Work:
    """Erase a customer in all agents of the organisation.

    Remembered even where nothing is found: something may be on its way.
    """
    now = parts.clock()
    receipt_uid = new_uid(now)

    async def unit(tx: Tx) -> None:
        receipt = Receipt(kind="customer", asked_at=now, is_ledgered=True)
        work = await store_receipts.insert(
            tx, access, receipt_uid, receipt, "finding", subject=customer_id, now_us=now
        )
        await store_receipts.add_entry(
            tx,
            access,
            uid=new_uid(now),
            agent_id=None,
            kind="customer",
            subject_hash=parts.ledger.of_customer(access.organisation_id, customer_id),
            erased_at=now,
            receipt_uid=receipt_uid,
        )
        await audits.add(tx, access, "erase", "customer", None, now_us=now)
        await find_some(tx, parts, work, now_us=now)
        await store_receipts.put(tx, work, now_us=now)

    await parts.db.write(unit)
    return await finish(parts, receipt_uid, max_steps=STEPS_OF_OPERATOR)


# --- Receipts -------------------------------------------------------------------------------------


async def read_receipt(parts: Parts, access: Access, uid: str) -> Work:
    """Read what an erasure did.

    Raises:
        Problem: 404 when there is none for this caller.
    """
    work = await parts.db.read(lambda tx: store_receipts.read(tx, access, uid))
    if work is None:
        raise not_found()
    return work


async def list_receipts(parts: Parts, access: Access) -> list[Work]:
    """Return the organisation's latest receipts."""
    return await parts.db.read(lambda tx: store_receipts.latest(tx, access, _MAX_LISTED))


async def finish_all(parts: Parts) -> list[Work]:
    """Carry on all erasures that are not complete, as far as they go now."""
    now = parts.clock()
    uids = await parts.db.read(lambda tx: store_receipts.unfinished(tx, now, _MAX_LISTED))
    return [await finish(parts, uid, max_steps=STEPS_OF_OPERATOR) for uid in uids]


async def begin_for_many(
    tx: Tx, access: Access, kind: ReceiptKind, receipt_uid: str, *, now_us: int
) -> Work:
    """Begin an erasure of what a chore has found, inside its unit."""
    receipt = Receipt(kind=kind, asked_at=now_us)
    return await store_receipts.insert(tx, access, receipt_uid, receipt, "rows", now_us=now_us)
