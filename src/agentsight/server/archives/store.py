"""Which files of a conversation go into its ZIP, in steps: rows, and where their bytes are."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agentsight.server.access import Access
from agentsight.server.attachments.model import AttachmentRow
from agentsight.server.attachments.store import COLUMNS
from agentsight.server.db import Tx, sql
from agentsight.server.ids import ConversationPk

_HEAD = (
    "SELECT a.sender, a.sent_at, b.object_key, b.state, b.scan, CASE WHEN EXISTS"
    " (SELECT 1 FROM quarantined_hashes q WHERE q.sha256 = a.sha256) THEN 1 ELSE 0 END,"
    f" {COLUMNS} FROM attachments a JOIN blobs b ON b.agent_id = a.agent_id AND b.id = a.blob_id"
    " WHERE a.agent_id = $1 AND a.conversation_id = $2 AND a.deleted_at IS NULL"
)
# By where the last step ended, in the order of the index: a conversation of ten thousand files is
# never held whole, and files that come or go meanwhile shift nothing.
_STEP = sql(
    f"{_HEAD} AND (a.sent_at, a.message_id, a.id) > ($3::bigint, $4::bigint, $5::bigint)"
    " ORDER BY a.sent_at, a.message_id, a.id LIMIT $6::bigint"
)
Place = tuple[int, int, int]
"""Where a row stands in its conversation: time, message, id."""
BEFORE_ALL: Final[Place] = (-(2**62), 0, 0)


class PackedRow(msgspec.Struct, frozen=True, gc=False):
    """A file to be packed. Times are µs since 1970 UTC."""

    sender: str
    sent_at: int
    object_key: str
    is_stored: bool
    scan: str
    is_quarantined: bool
    file: AttachmentRow

    @property
    def place(self) -> Place:
        """Where the row stands."""
        return self.sent_at, self.file.message_id, self.file.attachment_id


async def read_step(
    tx: Tx, access: Access, pk: ConversationPk, after: Place, limit: int
) -> list[PackedRow]:
    """Read the files that follow a place, in order of their messages."""
    rows = await tx.rows(_STEP, access.agent_id, pk, *after, limit)
    return [_packed(*row) for row in rows]


def _packed(
    sender: str, sent_at: int, key: str, state: str, scan: str, quarantined: int, *file: Any
) -> PackedRow:
    return PackedRow(
        sender, sent_at, key, state == "stored", scan, bool(quarantined), AttachmentRow(*file)
    )
