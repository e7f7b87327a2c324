"""What removals look like outside: what is hidden and until when, and receipts."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from agentsight.server.attachments.serving import MAX_CACHED_S
from agentsight.server.db import Dialect
from agentsight.server.removals.model import Receipt, ReceiptKind, Rows
from agentsight.server.removals.store_receipts import Work
from agentsight.server.times import optional_datetime, to_datetime

BACKUPS = (
    "as long as you keep them; a server started on a restored one erases it again if the store has"
    " the latest erasures/ objects, else not"
)
_SECOND_US = 1_000_000


class HiddenAttachmentShape(msgspec.Struct):
    """A file that is hidden, or was brought back; `erased_after` is when it goes for good."""

    uid: str
    is_deleted: bool
    deleted_at: datetime | None
    erased_after: datetime | None


class HiddenConversationShape(msgspec.Struct):
    """A conversation that is hidden, or was brought back; `erased_after` is when it is erased."""

    id: int
    conversation_id: str
    uid: str
    is_deleted: bool
    deleted_at: datetime | None
    erased_after: datetime | None


class RemovedShape(msgspec.Struct):
    """What was removed: rows by table, objects of the store (previews too) and their bytes."""

    rows: dict[str, int]
    objects: int
    bytes: int


class KeptShape(msgspec.Struct):
    """Contents that stay, because another file or a waiting upload refers to the same bytes."""

    contents: int
    bytes: int


class CopiesShape(msgspec.Struct):
    """Until when copies may live where this server does not reach."""

    caches_until: datetime
    backups: str
    database: str
    """`cleaned`, `being cleaned`, or `until vacuum` on PostgreSQL."""


class ReceiptShape(msgspec.Struct):
    """What an erasure did. `state` is `running` until the last trace is gone."""

    uid: str | None
    kind: ReceiptKind
    state: Literal["running", "complete", "dry_run"]
    dry_run: bool
    asked_for: str | None
    asked_at: datetime
    completed_at: datetime | None
    removed: RemovedShape
    kept: KeptShape
    copies: CopiesShape
    resends_are_dropped: bool


def shape_receipt(work: Work, dialect: Dialect) -> ReceiptShape:
    """Show an erasure, done or under way."""
    is_complete = work.stage == "complete"
    if dialect == "postgresql":
        database = "until vacuum"
    else:
        database = "cleaned" if is_complete else "being cleaned"
    return _shape(work.uid, work.receipt, "complete" if is_complete else "running", database)


def shape_dry_run(receipt: Receipt, dialect: Dialect) -> ReceiptShape:
    """Show what an erasure would do."""
    return _shape(
        None, receipt, "dry_run", "until vacuum" if dialect == "postgresql" else "cleaned"
    )


def _shape(
    uid: str | None,
    receipt: Receipt,
    state: Literal["running", "complete", "dry_run"],
    database: str,
) -> ReceiptShape:
    # While it goes on, what is kept so far.
    kept = receipt.kept_now
    since = receipt.completed_at or receipt.asked_at
    return ReceiptShape(
        uid,
        receipt.kind,
        state,
        state == "dry_run",
        receipt.asked_for,
        to_datetime(receipt.asked_at),
        optional_datetime(receipt.completed_at),
        RemovedShape(_named(receipt.rows), receipt.objects, receipt.bytes),
        KeptShape(receipt.kept_blobs + len(kept), receipt.kept_bytes + sum(kept.values())),
        CopiesShape(to_datetime(since + MAX_CACHED_S * _SECOND_US), BACKUPS, database),
        receipt.is_ledgered,
    )


def _named(rows: Rows) -> dict[str, int]:
    return {name: getattr(rows, name) for name in Rows.__struct_fields__}
