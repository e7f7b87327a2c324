"""What comes late: items of something that was erased, sent again, or for the first time."""

from __future__ import annotations

from collections.abc import Sequence

from agentsight.server.access import Access
from agentsight.server.db import Tx
from agentsight.server.ids import new_uid
from agentsight.server.instance.ledger import LedgerKey
from agentsight.server.removals import store_receipts


async def erased_until(
    tx: Tx,
    access: Access,
    ledger: LedgerKey,
    conversation_id: str,
    customer_ids: Sequence[str],
    *,
    now_us: int,
) -> int | None:
    """Return up to which time items of a conversation are dropped, or None.

    Asked inside the unit that stores them, after the conversation was looked for: of an erasure and
    a write at once, one then sees the other. A conversation of an erased customer is remembered by
    its own id from now on, as later items of it may not say whose they are.
    """
    of_conversation = ledger.of_conversation(access.agent_id, conversation_id)
    of_customers = [ledger.of_customer(access.organisation_id, one) for one in customer_ids]
    found = await store_receipts.find_entries(tx, access, [of_conversation, *of_customers])
    if not found:
        return None
    last = max(found, key=lambda entry: entry.erased_at)
    if all(entry.erased_at < last.erased_at for entry in found if entry.hash == of_conversation):
        await store_receipts.add_entry(
            tx,
            access,
            uid=new_uid(now_us),
            agent_id=access.agent_id,
            kind="conversation",
            subject_hash=of_conversation,
            erased_at=last.erased_at,
            receipt_uid=last.receipt_uid,
        )
    return last.erased_at


async def files_were_erased(
    tx: Tx, access: Access, ledger: LedgerKey, item_keys: Sequence[str]
) -> bool:
    """Say whether an attachment that was sent under one of these keys has been erased."""
    hashes = [ledger.of_attachment_item(access.agent_id, key) for key in item_keys]
    return bool(await store_receipts.find_entries(tx, access, hashes))
