"""What can go wrong with stored bytes.

Problem
 ├─ StorageUnavailable   503: the store does not answer; a repeat may succeed
 └─ StorageFull          503: there is no room now; a repeat helps once somebody has made some
LookupError
 └─ ObjectMissing        nothing is stored under a key
Exception
 ├─ ObjectExists         something already is
 ├─ ObjectBusy           another writer holds an unfinished object
 └─ StrangerStore        the store holds another instance's bytes
"""

from __future__ import annotations

from agentsight.server.problems import Problem

_RETRY_AFTER_S = 5
_RETRY_WHEN_FULL_S = 60
"""A person has to do something first."""


class StorageUnavailable(Problem):
    """The store does not answer, or not as it must; a repeat may succeed."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, "storage_unavailable", detail, retry_after_s=_RETRY_AFTER_S)


class StorageFull(Problem):
    """There is no room for the bytes; nothing of them was kept."""

    def __init__(self, detail: str) -> None:
        super().__init__(503, "storage_full", detail, retry_after_s=_RETRY_WHEN_FULL_S)


class ObjectMissing(LookupError):
    """There is no object under this key."""


class ObjectExists(Exception):
    """There already is an object under this key; objects are never overwritten."""


class ObjectBusy(Exception):
    """Another writer holds this unfinished object, whatever its lease says."""


class StrangerStore(Exception):
    """The store holds the bytes of another instance."""
