"""Why a file that is here is not handed out: found by the malware scan, or blocked. Pure.

Every door to bytes asks here: links, content by key, previews, archives.
"""

from __future__ import annotations

from typing import Protocol

from agentsight.server.problems import Problem


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


def refusal_of(file: Blockable, *, allow_infected: bool = False) -> Problem | None:
    """Return why a file is not handed out; None when it may be.

    Args:
        file: What is asked for; its being there and the caller's right to it are known.
        allow_infected: Somebody who may write insists. The operator's word is not overruled.
    """
    if file.is_quarantined:
        return Problem(403, "quarantined", "Who runs this server has blocked this file.")
    if file.scan == "infected" and not allow_infected:
        text = (
            "The malware scan found something in this file, so it is not served. With a key that"
            " may write, ?allow_infected=true at its permanent address gives its bytes."
        )
        return Problem(403, "infected", text)
    return None
