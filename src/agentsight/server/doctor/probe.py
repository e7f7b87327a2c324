"""Probes: questions that only who holds an instance's signing keys can ask it.

`agentsight doctor` signs one with the keys of its database and sends it to the public address. Only
the instance of that database answers, so that the right server is told from any other, and nobody
else learns how it is set up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence

SCHEME = "Probe"
LIFETIME_S = 600
MAX_BODY_BYTES = 64 * 1024 * 1024
"""What a probe may send: it is counted and thrown away."""
_US = 1_000_000
_TOKEN = re.compile(r"([A-Za-z0-9_-]{1,16})\.([0-9]{1,12})\.([0-9a-f]{32})\.([0-9a-f]{64})")


class Probes:
    """Signs and checks probes.

    Args:
        keys: The signing keys of file links, the one that signs first.
    """

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._secrets = dict(keys)
        self._key_id = keys[0][0]

    def sign(self, nonce: str, now_us: int) -> str:
        """Return the value of the `Authorization` header of a probe.

        Args:
            nonce: 32 hex digits, new each time.
            now_us: The time, µs since 1970 UTC.
        """
        claim = f"{self._key_id}.{now_us // _US + LIFETIME_S}.{nonce}"
        return f"{SCHEME} {claim}.{_signature(self._secrets[self._key_id], claim)}"

    def is_valid(self, header: str | None, now_us: int) -> bool:
        """Say whether a header is a probe of ours that has not expired."""
        scheme, _, token = (header or "").partition(" ")
        found = _TOKEN.fullmatch(token)
        if scheme != SCHEME or found is None or found[1] not in self._secrets:
            return False
        claim, _, signature = token.rpartition(".")
        expected = _signature(self._secrets[found[1]], claim)
        return hmac.compare_digest(expected, signature) and now_us < int(found[2]) * _US


def _signature(secret: bytes, claim: str) -> str:
    # The purpose keeps a probe's signature from ever being a link's.
    return hmac.new(secret, f"probe\n{claim}".encode(), hashlib.sha256).hexdigest()
