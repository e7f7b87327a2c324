"""What can be wrong between rows and objects, and what is done about it. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

FaultKind: TypeAlias = Literal[
    "missing_object",
    "wrong_size",
    "wrong_hash",
    "orphan_object",
    "missing_copy",
    "unfinished_removal",
    "wrong_count",
    "stale_facts",
    "leftover",
]

TEXTS: Final[dict[FaultKind, tuple[str, str]]] = {
    "missing_object": (
        "file whose bytes are not there: its links open nothing",
        "files whose bytes are not there: their links open nothing",
    ),
    "wrong_size": (
        "file whose object has another size than it should",
        "files whose object has another size than it should",
    ),
    "wrong_hash": (
        "file whose bytes are not those that were stored",
        "files whose bytes are not those that were stored",
    ),
    "orphan_object": ("object that no row names", "objects that no row names"),
    "missing_copy": (
        "thumbnail or copy whose object is gone",
        "thumbnails and copies whose object is gone",
    ),
    "unfinished_removal": ("removal that was broken off", "removals that were broken off"),
    "wrong_count": (
        "count that does not agree with its rows",
        "counts that do not agree with their rows",
    ),
    "stale_facts": (
        "attachment that does not show what is known of its file",
        "attachments that do not show what is known of their file",
    ),
    "leftover": (
        "part of an upload that was broken off long ago",
        "parts of uploads that were broken off long ago",
    ),
}
"""What is said of one, and of several."""
REMEDIES: Final[dict[FaultKind, str]] = {
    "missing_object": "bring back from a backup what is gone; a file that is sent again is mended"
    " by itself",
    "wrong_size": "bring it back from a backup",
    "wrong_hash": "bring it back from a backup",
    "orphan_object": "--repair removes what no row names",
    "missing_copy": "--repair forgets what is gone, and it is made again when asked for",
    "unfinished_removal": "--repair finishes it; a running server does too",
    "wrong_count": "--repair counts anew",
    "stale_facts": "--repair copies the facts again",
    "leftover": "--repair removes it; a start of the server does too",
}
MAX_EXAMPLES: Final = 20


def counted(n: int, one: str, several: str) -> str:
    """Say a number with what it counts."""
    return f"{n} {one if n == 1 else several}"


DEFAULT_AGE_S: Final = 24 * 3600
"""Longer than any request takes between its first object and its rows."""


class Fault(msgspec.Struct):
    """One kind of fault, and where.

    `examples` are the first object keys or rows; `n_repaired` of the `n_found` are mended now.
    """

    kind: FaultKind
    n_found: int = 0
    size_bytes: int = 0
    n_repaired: int = 0
    examples: list[str] = msgspec.field(default_factory=list[str])

    def add(self, example: str, size_bytes: int = 0, *, is_repaired: bool = False) -> None:
        """Count one more."""
        self.n_found += 1
        self.size_bytes += size_bytes
        self.n_repaired += is_repaired
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(example)


class Report(msgspec.Struct):
    """What was compared, and what was wrong."""

    n_blobs: int = 0
    n_objects: int = 0
    size_bytes: int = 0
    faults: dict[str, Fault] = msgspec.field(default_factory=dict[str, Fault])

    def fault(self, kind: FaultKind) -> Fault:
        """Return the fault of a kind, to be counted."""
        return self.faults.setdefault(kind, Fault(kind))

    @property
    def is_clean(self) -> bool:
        """Say whether nothing is wrong any more."""
        return all(fault.n_repaired == fault.n_found for fault in self.faults.values())


class BlobRow(msgspec.Struct, frozen=True):
    """A blob whose object must be there."""

    agent_id: int
    blob_id: int
    object_key: str
    size_bytes: int
    sha256: str


class CopyRow(msgspec.Struct, frozen=True):
    """Something that was made of a blob, whose object must be there."""

    agent_id: int
    blob_id: int
    kind: str
    object_key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Options:
    """What to do.

    Args:
        is_repairing: Mend what can be mended; else nothing is changed.
        is_reading: Read every byte and compare the hashes.
        min_age_s: How old an object without a row must be to be nobody's. 0 only while no server
            runs: a request makes its objects durable before it writes its rows.
    """

    is_repairing: bool = False
    is_reading: bool = False
    min_age_s: int = DEFAULT_AGE_S
