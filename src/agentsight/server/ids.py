"""The kinds of ids, and the one function that makes a `uid`.

Row ids are integers below 2^53 that are never reused; a `uid` (UUIDv7) is the only id that appears
in links, exports, shares and receipts.
"""

from __future__ import annotations

import os
import uuid
from typing import NewType

OrganisationId = NewType("OrganisationId", int)
ClientId = NewType("ClientId", int)
AgentId = NewType("AgentId", int)
EnvironmentId = NewType("EnvironmentId", int)
KeyId = NewType("KeyId", int)
UserId = NewType("UserId", int)
ConversationPk = NewType("ConversationPk", int)
"""A conversation's row id; the caller's own name for it is its `conversation_id`, a string."""
MessageId = NewType("MessageId", int)
AttachmentId = NewType("AttachmentId", int)
BlobId = NewType("BlobId", int)
FeedbackId = NewType("FeedbackId", int)


def new_uid(now_us: int) -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7) for the time `now_us` (µs since 1970 UTC), as text.

    Ids made later sort later (to the millisecond): inserts stay at the end of an index.
    """
    millis = (now_us // 1000) & ((1 << 48) - 1)
    random = int.from_bytes(os.urandom(10))
    value = (
        (millis << 80)
        | (0x7 << 76)
        | ((random >> 68) << 64)
        | (0b10 << 62)
        | (random & ((1 << 62) - 1))
    )
    return str(uuid.UUID(int=value))
