"""How the text of a variable or flag becomes a setting's value, and what it must be otherwise.

Each function takes the text and raises `ValueError("must be …")` when it is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from agentsight import _contract as contract

MIN_SECRET_CHARS = 16
MIN_PASSWORD_CHARS = 10
MAX_PASSWORD_CHARS = 1000
"""More than anybody types, and little enough to hash."""


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        digits = text.replace("_", "")
        if not (digits.isascii() and digits.isdigit() and low <= int(digits[:20]) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(digits)

    return parse


_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def size(text: str) -> int:
    folded = text.strip().lower().replace(" ", "").replace("_", "")
    digits = folded.rstrip("bgikm")
    factor = _UNITS.get(folded[len(digits) :])
    if factor is None or not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise ValueError("must be a number of bytes, or a number with KiB, MiB or GiB")
    if int(digits) == 0:
        raise ValueError("must be more than 0 bytes")
    return int(digits) * factor


def switch(text: str) -> bool:
    folded = text.strip().lower()
    if folded in ("1", "true", "yes", "on"):
        return True
    if folded in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be on or off")


def one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise ValueError(f"must be one of: {', '.join(words)}")
        return text.strip().lower()

    return parse


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def hosts(text: str) -> tuple[str, ...]:
    words = tuple(word.lower() for word in _words(text))
    for word in words:
        if "/" in word or "*" in word or (word.count(":") == 1):
            raise ValueError("must be host names without scheme, port or '*', comma between them")
    return words


def networks(text: str) -> tuple[str, ...]:
    import ipaddress

    try:
        return tuple(str(ipaddress.ip_network(word, strict=False)) for word in _words(text))
    except ValueError as error:
        raise ValueError(f"must be addresses or networks like 10.0.0.0/8 ({error})") from error


def secrets(text: str) -> tuple[str, ...]:
    words = _words(text)
    if not words or any(len(word) < MIN_SECRET_CHARS for word in words):
        raise ValueError(
            f"must be secrets of at least {MIN_SECRET_CHARS} characters, comma between them;"
            " make one with: openssl rand -hex 32"
        )
    return words


def directory(text: str) -> Path:
    return Path(text).expanduser().absolute()


def base_url(text: str) -> str:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        named = False
        parts = urlsplit("")
    if not named or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be an address like https://files.example.com")
    return text.rstrip("/")


def database_url(text: str) -> str:
    if text.startswith("postgres://"):
        text = "postgresql://" + text.removeprefix("postgres://")
    if not text.startswith(("sqlite:///", "postgresql://")) or text == "sqlite:///":
        raise ValueError(
            "must be sqlite:///relative/path.db, sqlite:////absolute/path.db"
            " or postgresql://user:password@host:5432/database"
        )
    return text


# A bucket's name (AWS S3 User Guide, "Bucket naming rules"), and a folder in it.
_S3 = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9][A-Za-z0-9._-]{0,100}){0,4}", re.ASCII
)


def storage_url(text: str) -> str:
    if text.startswith(("gs://", "az://")):
        raise ValueError(
            "must be file:///directory or s3://bucket[/prefix]; no other object storage has been"
            " tested (Google Cloud Storage also speaks S3, with AWS_ENDPOINT_URL)"
        )
    if text.startswith("s3://"):
        if _S3.fullmatch(text.rstrip("/")) is None:
            raise ValueError(
                "must be s3://bucket or s3://bucket/prefix, of letters, digits, '.', '_' and '-';"
                " keys of access go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
    elif not text.startswith("file:///") or text == "file:///":
        raise ValueError("must be file:///directory or s3://bucket[/prefix]")
    return text.rstrip("/")


def internal_path(text: str) -> str:
    if not text.startswith("/") or any(c.isspace() for c in text) or text.strip("/") == "":
        raise ValueError("must be a path of the proxy's internal location, like /internal-files/")
    return text.rstrip("/") + "/"


def host_and_port(text: str) -> str:
    """Read `host:port`; an IPv6 address stands in brackets."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(f"//{text.strip()}")
        is_complete = bool(parts.hostname and parts.port) and parts.netloc == text.strip()
    except ValueError:
        is_complete = False
    if not is_complete or "@" in text:
        raise ValueError("must be host:port, like 127.0.0.1:3310")
    return text.strip()


def key(text: str) -> str:
    if not contract.key_is_well_formed(text):
        raise ValueError(
            "must be a key of the shape ags_<32 hex>_<6 hex> with its right checksum;"
            " make one with: agentsight keys generate"
        )
    return text.lower()


def password(text: str) -> str:
    if not MIN_PASSWORD_CHARS <= len(text) <= MAX_PASSWORD_CHARS:
        raise ValueError(f"must have {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters")
    return text


def email(text: str) -> str:
    name, _, host = text.strip().rpartition("@")
    if not name or not host or len(text) > 254 or any(c.isspace() for c in text.strip()):
        raise ValueError("must be an address like owner@example.com")
    return text.strip()


plain_text = str.strip
LEVELS = ("debug", "info", "warning", "error", "critical")
