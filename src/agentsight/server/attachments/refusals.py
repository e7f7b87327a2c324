"""Why a file that is here is not handed out: found by the malware scan, or blocked. Pure.

Every door to bytes asks here: links, content by key, previews, archives.
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

from agentsight.server.problems import Problem

Withheld = Literal["quarantined", "infected"]

_TEXTS: Final[dict[Withheld, str]] = {
    "quarantined": "Who runs this server has blocked this file.",
    "infected": (
        "The malware scan found something in this file, so it is not served. With a key that may"
        " write, ?allow_infected=true at its permanent address gives its bytes."
    ),
}


class Blockable(Protocol):
    """What is known of a file that somebody wants."""

    @property
    def scan(self) -> str:
        """`not_scanned`, `clean`, `infected` or `failed`."""
        ...

    @property
    def is_quarantined(self) -> bool:
        """Whether the operator has blocked these bytes."""
        ...


def withheld_as(file: Blockable, *, allow_infected: bool = False) -> Withheld | None:
    """Return why a file is not handed out, in a word; None when it may be.

    Args:
        file: What is asked for; its being there and the caller's right to it are known.
        allow_infected: Somebody who may write insists. The operator's word is not overruled.
    """
    if file.is_quarantined:
        return "quarantined"
    return "infected" if file.scan == "infected" and not allow_infected else None


def refusal_of(file: Blockable, *, allow_infected: bool = False) -> Problem | None:
    """Return the answer where a file is not handed out, as `withheld_as` decides."""
    reason = withheld_as(file, allow_infected=allow_infected)
    return None if reason is None else Problem(403, reason, _TEXTS[reason])
