"""What the audit log keeps, in words that stay. Pure values.

A record says who (the principal, and the uid of the key or user), did what (the action), to what
(a kind of thing and its uid), how often, and when. It holds no names, no text and no address of
anybody: it must not have to be erased with the people it speaks of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from agentsight.server.ids import AgentId, OrganisationId

ACTIONS: Final[dict[str, str]] = {
    "list": "read a list of an agent's conversations or files",
    "read": "read a conversation: its transcript, or the list of its files",
    "open": "was given the bytes of a file, or a part of them",
    "preview": "was given a preview or a playable copy of a file",
    "download": "was given all files of a conversation as one archive",
    "export": "was given everything that is kept of a customer",
    "share": "made a link for others",
    "delete": "hid something, for as long as the grace period lasts",
    "restore": "brought back what was hidden",
    "erase": "erased something for good",
    "retain": "changed how long an agent's conversations are kept",
    "quarantine": "blocked bytes in the whole instance",
    "release": "let blocked bytes through again",
}
"""The words of the log; one more is added here, and never changed."""

READS: Final = frozenset({"list", "read", "open", "preview", "download"})
"""What `AGENTSIGHT_AUDIT_READS=off` leaves out."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the log. `n` counts equal reads of one minute; `detail` is JSON text."""

    record_id: int
    agent_slug: str | None
    principal: str
    principal_uid: str | None
    action: str
    subject_kind: str
    subject_uid: str | None
    n: int
    detail: str | None
    created_at: int


class ReadKey(NamedTuple):
    """What makes two reads equal. `subject` is a uid, or a conversation's row id: the one call has
    no other at hand, and its uid is looked up when the record is written. `detail` is JSON text,
    of our own words only."""

    organisation_id: OrganisationId
    agent_id: AgentId
    principal: str
    principal_uid: str | None
    action: str
    subject_kind: str
    subject: str | int | None
    detail: str | None = None
