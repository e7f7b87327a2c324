"""How long a server that failed is left alone, so that not every send waits for it again."""

from __future__ import annotations

from typing import Final, NamedTuple

_FIRST_S: Final = 5.0
_LONGEST_S: Final = 60.0
_LONGEST_ASKED_S: Final = 3600.0
"""However much longer a server, or a proxy before it, asks us to stay away."""


class Pause(NamedTuple):
    """From a failed delivery until the next try. Immutable, so that threads may share it."""

    endpoint: str
    until: float
    """On the monotonic clock, as `failed_at`."""
    failed_at: float
    n_failures: int
    reason: str
    is_asked: bool
    """The server itself said when to come back, by `Retry-After`."""

    def message(self, now: float) -> str:
        """Say why nothing is sent now."""
        if self.is_asked:
            return f"The server asked to wait {self.until - now:.0f} s more before the next request"
        return (
            f"Kept for the next send; {self.reason} {now - self.failed_at:.0f} s ago, "
            f"and is asked again in {self.until - now:.0f} s, or by flush()"
        )


def next_pause(
    before: Pause | None,
    endpoint: str,
    *,
    began_at: float,
    now: float,
    reason: str,
    retry_after_s: float | None,
) -> Pause:
    """Return the pause after a delivery failed: 5 s, doubled with every failure, at most 60 s.

    Args:
        before: the pause that was in force.
        began_at: when the delivery began; where several fail side by side, they count as one.
        now: as `began_at` on the monotonic clock.
        reason: what the server did.
        retry_after_s: what the server asks for, which counts instead, up to an hour.
    """
    n_failures = 0 if before is None else before.n_failures
    if before is None or began_at >= before.failed_at:
        n_failures += 1
    pause_s = min(_FIRST_S * 2.0 ** min(n_failures - 1, 10), _LONGEST_S)
    if retry_after_s is not None:
        pause_s = min(retry_after_s, _LONGEST_ASKED_S)
    is_asked = retry_after_s is not None
    return Pause(endpoint, now + pause_s, now, n_failures, reason, is_asked)
