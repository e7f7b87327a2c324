"""What a malware scan says of a file's bytes, and how the daemon's words are read. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ScanResult = Literal["clean", "infected", "failed"]
MAX_DETAIL_CHARS: Final = 300
_NOT_WHOLE: Final = "Heuristics.Limits.Exceeded"
"""What it "finds" in a file that it did not look at to the end, with `AlertExceedsMax yes`
(clamd.conf(5)): no signature."""


class DaemonAway(Exception):
    """The daemon does not answer, or not to the end: the scan must be tried again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a scan. `detail` names the signature, or why there is no result."""

    result: ScanResult
    detail: str | None = None


def read_verdict(reply: bytes) -> Verdict:
    """Read the daemon's reply to INSTREAM (clamd(8), "COMMANDS").

    It is `stream: OK`, `stream: <signature> FOUND`, or a text that ends in `ERROR`. What was not
    scanned whole has failed: nothing was found in it, and nothing can be said of the rest.

    Raises:
        DaemonAway: There is no reply, or one that nobody knows: that must never count as clean.
    """
    text = reply.rstrip(b"\0\n").decode("utf-8", "replace")
    said = text.removeprefix("stream: ")
    if text == "stream: OK":
        return Verdict("clean")
    if text.startswith("stream: ") and said.endswith(" FOUND"):
        if said.startswith(_NOT_WHOLE):
            reason = f"past the daemon's limits, not scanned whole: {said.removesuffix(' FOUND')}"
            return Verdict("failed", _shortened(reason))
        return Verdict("infected", _shortened(said.removesuffix(" FOUND")))
    if text == "INSTREAM size limit exceeded. ERROR":
        return Verdict("failed", "larger than the daemon's StreamMaxLength")
    if said.endswith("ERROR"):
        return Verdict("failed", _shortened(said.removesuffix("ERROR").rstrip(" .")))
    raise DaemonAway(f"it answered {text[:100]!r}" if text else "it hung up without an answer")


def _shortened(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_DETAIL_CHARS]
