"""What an upload is, and what its requests say. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from agentsight.server.ids import AgentId, BlobId

State = Literal["pending", "stored", "expired"]
LEASE_S: Final = 10
"""How long a writer that says nothing keeps an upload from others: what a dead process costs."""
KEEP_S: Final = 1.0
"""How often a writer notes how far it has come, and looks whether somebody waits for it."""
RENEW_S: Final = 3.0
"""How often a writer that has nothing to note renews its lease: thrice in its length."""
IDLE_S: Final = 10.0
"""A writer without bytes for so long lets go: a client that lost its connection comes again long
before the old one is known to be dead."""
OFFER_S: Final = 10
"""How long an unfinished upload is kept for the client that was told to go on with it."""
KEPT_AFTER_EXPIRY_DAYS: Final = 30
"""How long a row says "expired" before it is forgotten and says "not found"."""
MAX_METADATA_CHARS: Final = 16 * 1024

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Announced:
    """What a client says of a file before its first byte."""

    filename: str
    declared_mime_type: str | None
    size_bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """One row. `offset` and `parts` say where the next visit goes on, as the store told it."""

    agent_id: AgentId
    uid: str
    blob_id: BlobId | None
    blob_uid: str
    object_key: str
    filename: str
    declared_mime_type: str | None
    detected_mime_type: str | None
    size_bytes: int
    sha256: str | None
    offset: int
    parts: str
    state: State
    leased_until: int | None
    """Until then one request writes, if it still lives."""
    created_at: int
    expires_at: int

    def state_at(self, now_us: int) -> State:
        """Tell the state; a time that has passed counts before the chore has come by."""
        return "expired" if self.expires_at <= now_us else self.state

    def is_leased_at(self, now_us: int) -> bool:
        """Say whether a request writes it; one that is over is held by who removes it at most."""
        return self.state_at(now_us) == "pending" and (self.leased_until or 0) > now_us

    @property
    def is_whole(self) -> bool:
        """Say whether all bytes are there, and only their check and the row are missing."""
        return self.state == "pending" and self.offset >= self.size_bytes


def read_sha256(text: str) -> str | None:
    """Read a hash in hex, of any case; None when it is none."""
    folded = text.strip().lower()
    return folded if _SHA256.fullmatch(folded) else None


def read_number(text: str | None) -> int | None:
    """Read a header's whole number; None when it is missing or none."""
    return int(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def read_metadata(header: str) -> dict[str, str] | None:
    """Read tus' `Upload-Metadata`: pairs of a key and base64, comma between them.

    Returns:
        Texts by key (a key alone has an empty one); None when it is not of that form.
    """
    found: dict[str, str] = {}
    if len(header) > MAX_METADATA_CHARS:
        return None
    for pair in filter(None, (piece.strip() for piece in header.split(","))):
        key, _, encoded = pair.partition(" ")
        try:
            found[key] = base64.b64decode(encoded.strip(), validate=True).decode("utf-8", "replace")
        except (binascii.Error, ValueError):
            return None
    return found


def first_of(metadata: Mapping[str, str], *names: str) -> str | None:
    """Return the first of these that says something: clients differ in what they call a thing."""
    return next((metadata[name] for name in names if metadata.get(name)), None)
