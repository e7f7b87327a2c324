"""Signed addresses of files: made without a database, checked in constant time.

`{files base}/files/{attachment uid}/{key id}.{expiry}.{signature}/{file name}`. The signature
covers purpose, agent, uid and expiry; the file name is compared with the row's. The expiry is the
end of a UTC day, so that a link is the same all day and can be cached.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

FILES_PATH: Final = "/files/"
DEFAULT_LIFETIME_S: Final = 7 * 24 * 3600
MIN_SECRET_BYTES: Final = 32
_PURPOSE: Final = "file"
_DAY_S: Final = 24 * 3600
_US: Final = 1_000_000
_BLOCK_BYTES: Final = 64
"""SHA-256's block, to which HMAC pads its key (RFC 2104)."""
_SIGNATURE_CHARS: Final = 40
"""160 bits in lower-case hex: one text for each value, where base64 may have spare bits."""
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]{1,16})\.([1-9][0-9]{8,11})\.([0-9a-f]{40})")
_PERCENT: Final = {n: quote(chr(n), safe="") for n in range(128)}


class _Signer:
    """HMAC-SHA256 with one key, its padded halves hashed once: 0.4 of `hmac.digest`'s time."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        if len(secret) > _BLOCK_BYTES:
            secret = hashlib.sha256(secret).digest()
        padded = secret.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded))
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in padded))

    def sign(self, message: bytes) -> str:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()[:_SIGNATURE_CHARS]


class Links:
    """Makes and checks file links.

    Args:
        keys: Pairs of key id (1–16 letters, digits, `_`, `-`) and secret (32 bytes or more). The
            first signs; all are accepted, so that a new one can be put before an old one.
        lifetime_s: How long a link lives at least; it then lives to the end of that UTC day.

    Raises:
        ValueError: No key, a key id twice, a malformed id or a short secret.
    """

    def __init__(
        self, keys: Sequence[tuple[str, bytes]], *, lifetime_s: int = DEFAULT_LIFETIME_S
    ) -> None:
        if not keys or len({key_id for key_id, _ in keys}) != len(keys):
            raise ValueError("give at least one signing key, each under an id of its own")
        for key_id, secret in keys:
            if _KEY_ID.fullmatch(key_id) is None or len(secret) < MIN_SECRET_BYTES:
                raise ValueError(
                    f"signing key {key_id!r}: 1-16 letters or digits, 32 bytes or more"
                )
        if lifetime_s < 1:
            raise ValueError("links must live for at least a second")
        self._signers = {key_id: _Signer(secret) for key_id, secret in keys}
        self._key_id = keys[0][0]
        self._signer = self._signers[self._key_id]
        self._lifetime_s = lifetime_s

    def file_url(
        self, agent_id: int, attachment_uid: str, filename: str, base_url: str, now_us: int
    ) -> tuple[str, int]:
        """Make the address of an attachment's file.

        Args:
            agent_id: Whose file.
            attachment_uid: Its uid.
            filename: The row's name, as `clean_filename` left it.
            base_url: Scheme, host and path before `/files/`, without a slash at the end.
            now_us: The time, µs since 1970 UTC.

        Returns:
            The URL, and when it expires in µs since 1970 UTC.
        """
        expires_s = ((now_us // _US + self._lifetime_s) // _DAY_S + 1) * _DAY_S
        signature = self._signer.sign(_message(agent_id, attachment_uid, expires_s))
        url = (
            f"{base_url}/files/{attachment_uid}/{self._key_id}.{expires_s}.{signature}"
            f"/{_quote(filename)}"
        )
        return url, expires_s * _US

    def expires_at_us(self, token: str, now_us: int) -> int | None:
        """Read a link's middle part; None when it is malformed, expired or of no key of ours.

        Proves nothing: it saves the look into the database for what `verify` would refuse anyway.
        """
        found = _TOKEN.fullmatch(token)
        if found is None or found[1] not in self._signers:
            return None
        expires_at_us = int(found[2]) * _US
        return expires_at_us if now_us < expires_at_us else None

    def verify(
        self,
        token: str,
        name_in_url: str,
        *,
        agent_id: int,
        attachment_uid: str,
        filename: str,
        now_us: int,
    ) -> int | None:
        """Check a link against the row that its uid names.

        Args:
            token: The link's middle part, `{key id}.{expiry}.{signature}`.
            name_in_url: Its last part, percent-decoded.
            agent_id: The row's agent.
            attachment_uid: The row's uid.
            filename: The row's file name.
            now_us: The time, µs since 1970 UTC.

        Returns:
            When the link expires (µs since 1970 UTC); None if it is not one of ours, was altered
            in any part, or has expired.
        """
        expires_at_us = self.expires_at_us(token, now_us)
        if expires_at_us is None:
            return None
        key_id, expires_s, signature = token.split(".")
        message = _message(agent_id, attachment_uid, int(expires_s))
        is_signed = hmac.compare_digest(self._signers[key_id].sign(message), signature)
        return expires_at_us if is_signed and name_in_url == filename else None


def _message(agent_id: int, attachment_uid: str, expires_s: int) -> bytes:
    return f"{_PURPOSE}\n{agent_id}\n{attachment_uid}\n{expires_s}".encode()


def _quote(filename: str) -> str:
    # A tenth of `quote`'s time, which only names beyond ASCII need.
    if filename.isascii():
        return filename.translate(_PERCENT)
    return quote(filename.encode("utf-8", "replace"), safe="")
