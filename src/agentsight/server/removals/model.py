"""What an erasure is: its stages, its receipt, and the hashes by which it is remembered. Pure.

A receipt is the erasure's note of itself: it is written in the unit that begins, counted up in each
unit that removes something, and complete when the last trace is gone. Whoever finds one that is not
complete goes on with it, so a crash between any two steps loses nothing. In this order:

    finding   mark what is meant (a customer's conversations, some at a time)
    rows      remove messages and files of marked conversations, some at a time
    ledger    write the hashes into the store of bytes, for a restore of an older backup
    objects   end the uploads of what was erased, some at a time, and remove the bytes that nothing
              refers to any more
    index     begin to rewrite the search index
    merging   rewrite it, some pages at a time
    scrub     empty the write-ahead log
    complete
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from agentsight.server.ids import AgentId, BlobId

Stage = Literal["finding", "ledger", "rows", "objects", "index", "merging", "scrub", "complete"]
ReceiptKind = Literal["attachment", "conversation", "customer", "grace", "retention", "replay"]
LedgerKind = Literal["attachment", "conversation", "customer"]

LEDGER_FOLDER: Final = "erasures/"
"""Objects of the store under which the ledger is kept a second time."""


class Rows(msgspec.Struct, kw_only=True, gc=False):
    """How many rows were removed, by table."""

    conversations: int = 0
    messages: int = 0
    actions: int = 0
    buttons: int = 0
    usages: int = 0
    feedbacks: int = 0
    attachments: int = 0
    uploads: int = 0
    blobs: int = 0
    derivatives: int = 0
    blob_texts: int = 0
    search_queue: int = 0
    message_search: int = 0


class Receipt(msgspec.Struct, kw_only=True):
    """What was asked, what was removed, what was kept and why, where copies may still be.

    Times are µs since 1970 UTC. `asked_for` is the uid of the conversation or attachment; None
    where whatever is found was meant.
    """

    kind: ReceiptKind
    asked_at: int
    asked_for: str | None = None
    completed_at: int | None = None
    rows: Rows = msgspec.field(default_factory=Rows)
    objects: int = 0
    """Objects removed from the store of bytes, previews and playable copies among them."""
    bytes: int = 0
    kept_blobs: int = 0
    """Contents that another attachment or a waiting upload still refers to."""
    kept_bytes: int = 0
    kept_now: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """While it goes on: the bytes of each content (`agent:blob`) that is kept so far."""
    sent_until: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    """While it goes on, of each content that is kept so far (`agent:blob`): when its last removed
    attachment was made (µs). Uploads from before it end, where no other attachment is left."""
    is_ledgered: bool = False
    """Whether late resends of it are dropped, and a restore erases it again."""


def encode_receipt(receipt: Receipt) -> str:
    """Write a receipt as JSON text."""
    return msgspec.json.encode(receipt).decode()


def decode_receipt(text: str) -> Receipt:
    """Read a receipt."""
    return msgspec.json.decode(text, type=Receipt)


def add_rows(into: Rows, more: Rows) -> None:
    """Count more rows."""
    for name in Rows.__struct_fields__:
        setattr(into, name, getattr(into, name) + getattr(more, name))


def count_kept(receipt: Receipt) -> None:
    """Sum up what is kept, now that nothing more goes."""
    receipt.kept_blobs = len(receipt.kept_now)
    receipt.kept_bytes = sum(receipt.kept_now.values())
    receipt.kept_now, receipt.sent_until = {}, {}


def content_name(agent_id: AgentId, blob_id: BlobId) -> str:
    """Name a content as a receipt that goes on does."""
    return f"{agent_id}:{blob_id}"


def read_content_name(name: str) -> tuple[AgentId, BlobId]:
    """Read the name of a content."""
    agent_id, _, blob_id = name.partition(":")
    return AgentId(int(agent_id)), BlobId(int(blob_id))


# --- The ledger -----------------------------------------------------------------------------------


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was erased, as nobody without the key can read it.

    `agent_uid` is None where a whole organisation was meant. The ids are those that the hash was
    made with; the uids prove that they still mean the same.
    """

    uid: str
    organisation_id: int
    agent_id: int | None
    agent_uid: str | None
    kind: LedgerKind
    subject_hash: str
    erased_at: int


class LedgerObject(msgspec.Struct, frozen=True, kw_only=True):
    """What one erasure leaves in the store of bytes: no personal data, only hashes."""

    receipt_uid: str
    key_id: str
    """Says which key made the hashes, without telling it."""
    organisation_uid: str
    entries: list[LedgerEntry]


def stand_in_id(receipt_uid: str, pk: int) -> str:
    """Make the text that takes the place of a conversation id which is free again at once."""
    return f"erased:{receipt_uid}:{pk}"
