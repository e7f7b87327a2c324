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
_PURPOSE: Final = b"agentsight file"
"""BLAKE2b's personalization (RFC 7693, 2.5): what is signed for another purpose is no file link."""
_DAY_S: Final = 24 * 3600
_US: Final = 1_000_000
_MAX_SECRET_BYTES: Final = 64
"""Longer ones are hashed first: BLAKE2b takes no longer key (RFC 7693, 2.1)."""
_SIGNATURE_BYTES: Final = 20
_SIGNATURE_CHARS: Final = 2 * _SIGNATURE_BYTES
"""In lower-case hex: one text for each value, where base64 may have spare bits."""
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,16}")
_TOKEN: Final = re.compile(
    rf"([A-Za-z0-9_-]{{1,16}})\.([1-9][0-9]{{8,11}})\.([0-9a-f]{{{_SIGNATURE_CHARS}}})"
)
_TO_QUOTE: Final = re.compile(r"[^A-Za-z0-9._~ -]")
"""Beside spaces: what RFC 3986 (2.3) does not leave as it is."""
_PERCENT: Final = {n: quote(chr(n), safe="") for n in range(128)}


class _Signer:
    """Keyed BLAKE2b (RFC 7693), the key hashed in once: a quarter of `hmac.digest`'s time.

    Signs texts by their beginning and their end, so that what many have in common is hashed once.
    """

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) > _MAX_SECRET_BYTES:
            secret = hashlib.sha256(secret).digest()
        self._keyed = hashlib.blake2b(key=secret, digest_size=_SIGNATURE_BYTES, person=_PURPOSE)

    def begin(self, agent_id: int, expires_s: int) -> hashlib.blake2b:
        """Hash what all links have in common that one agent's files get on one day."""
        begun = self._keyed.copy()
        begun.update(b"%d\n%d\n" % (agent_id, expires_s))
        return begun

    def sign(self, agent_id: int, expires_s: int, attachment_uid: str) -> str:
        begun = self.begin(agent_id, expires_s)
        begun.update(attachment_uid.encode())
        return begun.hexdigest()


class FileUrls:
    """Makes the addresses of one agent's files, all of which end on the same day.

    A message with eight files makes eight: what they have in common is made once.
    """

    __slots__ = ("_begun", "_mark", "_prefix", "expires_at_us")

    def __init__(
        self, signer: _Signer, key_id: str, agent_id: int, base_url: str, expires_s: int
    ) -> None:
        self.expires_at_us = expires_s * _US
        self._prefix = f"{base_url}/files/"
        self._mark = f"/{key_id}.{expires_s}."
        self._begun = signer.begin(agent_id, expires_s)

    def folder(self, attachment_uid: str) -> str:
        """Return the address without its last `/` and the file's name."""
        signature = self._begun.copy()
        signature.update(attachment_uid.encode())
        return f"{self._prefix}{attachment_uid}{self._mark}{signature.hexdigest()}"


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
        urls = self.file_urls(agent_id, base_url, now_us)
        return f"{urls.folder(attachment_uid)}/{quote_name(filename)}", urls.expires_at_us

    def file_urls(self, agent_id: int, base_url: str, now_us: int) -> FileUrls:
        """Return what makes the addresses of an agent's files; arguments as `file_url`'s."""
        expires_s = ((now_us // _US + self._lifetime_s) // _DAY_S + 1) * _DAY_S
        return FileUrls(self._signer, self._key_id, agent_id, base_url, expires_s)

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
        expected = self._signers[key_id].sign(agent_id, int(expires_s), attachment_uid)
        is_signed = hmac.compare_digest(expected, signature)
        return expires_at_us if is_signed and name_in_url == filename else None


def quote_name(filename: str) -> str:
    """Percent-encode a file's name for the end of its link."""
    # Most names need no more than their spaces changed, and only those beyond ASCII need `quote`,
    # which takes ten times as long as the table.
    if _TO_QUOTE.search(filename) is None:
        return filename.replace(" ", "%20")
    if filename.isascii():
        return filename.translate(_PERCENT)
    return quote(filename.encode("utf-8", "replace"), safe="")
