"""What a check finds, and what it may show."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from agentsight.server.settings import Settings, variable_of

State = Literal["ok", "warn", "fail", "skip"]
MIB = 1024 * 1024
GIB = 1024 * MIB
MIN_FREE_BYTES = 100 * 1024 * 1024
"""Below it, one large upload fills the disk."""
LOW_FREE_BYTES = GIB
MAX_SKEW_S = 60.0
"""More, and keys expire, and resends are recognised, visibly at the wrong time."""
LOW_SKEW_S = 5.0
_HIDDEN = "***"
_MIN_SECRET_CHARS = 4
"""Shorter ones would blot out parts of words."""
_SECRET_VARIABLES = ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class Finding(msgspec.Struct, frozen=True):
    """What one check says.

    Attributes:
        check: Its name, a stable word.
        state: `fail` must be mended, `warn` should be looked at, `skip` could not be asked.
        text: What was found.
        remedy: What to change; empty where there is nothing.
    """

    check: str
    state: State
    text: str
    remedy: str = ""


def free_disk_finding(check: str, free_bytes: int, place: str, settings: Settings) -> Finding:
    """Judge how much room is left on the disk of `place`."""
    kept_free = settings.min_free_disk_bytes
    text = f"{free_bytes / GIB:.1f} GiB free on the disk of {place}"
    if free_bytes < kept_free:
        text += f": files are refused ({variable_of('min_free_disk_bytes')}={kept_free})"
        return Finding(check, "fail", text, "Make room, or move it to a larger disk.")
    if free_bytes < MIN_FREE_BYTES:
        return Finding(check, "fail", text, "Make room, or move it to a larger disk.")
    if free_bytes < kept_free + LOW_FREE_BYTES:
        return Finding(check, "warn", text, "Make room soon.")
    return Finding(check, "ok", text)


def skew_finding(whose: str, skew_s: float) -> Finding:
    """Judge how far another clock is from this machine's; positive when it is ahead."""
    if abs(skew_s) < LOW_SKEW_S:
        return Finding("clock", "ok", f"the clock of {whose} agrees with this machine's")
    direction = "ahead of" if skew_s > 0 else "behind"
    text = f"the clock of {whose} is {abs(skew_s):.0f} s {direction} this machine's"
    remedy = "Let both machines set their clocks by NTP (systemd-timesyncd, chrony)."
    return Finding("clock", "fail" if abs(skew_s) >= MAX_SKEW_S else "warn", text, remedy)


class Hider:
    """Takes secrets out of texts; the last thing before anybody sees them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        both = {form for text in secrets for form in (text, urllib.parse.unquote(text))}
        self._secrets = sorted(
            (text for text in both if len(text) >= _MIN_SECRET_CHARS), key=len, reverse=True
        )

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Hider:
        """Collect what the settings and the environment hold."""
        secrets = [*settings.secret_key, settings.init_key or "", settings.init_password or ""]
        secrets += [environ.get(name, "") for name in _SECRET_VARIABLES]
        for url in (settings.database_url, settings.storage_url):
            secrets += _secrets_of_url(url)
        return cls(secrets)

    def hide(self, text: str) -> str:
        """Return the text without the secrets."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text

    def clean(self, finding: Finding) -> Finding:
        """Return the finding without the secrets."""
        text, remedy = self.hide(finding.text), self.hide(finding.remedy)
        return Finding(finding.check, finding.state, text, remedy)


def _secrets_of_url(url: str) -> list[str]:
    authority, _, query = url.partition("://")[2].partition("?")
    credentials = authority.rpartition("@")[0]
    found = [credentials.partition(":")[2]]
    pairs = urllib.parse.parse_qsl(query)
    return found + [value for name, value in pairs if "password" in name.lower()]
