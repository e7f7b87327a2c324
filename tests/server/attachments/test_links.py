"""Tests of signed links."""

from __future__ import annotations

import hashlib
import os
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.attachments.links import Links
from agentsight.server.attachments.names import clean_filename

DAY_US = 24 * 3600 * 1_000_000
NOW_US = 1_763_850_123_456_789
UID = "0190a0b0-1111-7222-8333-4444555566ab"
BASE = "https://files.example.org"
SECRET = bytes(range(32))
LINKS = Links([("k1", SECRET)])


def made(filename: str = "a.png", *, links: Links = LINKS, agent_id: int = 7) -> tuple[str, str]:
    """Make a link; return its token and its file name, decoded."""
    url, _ = links.file_url(agent_id, UID, filename, BASE, NOW_US)
    _, files, uid, token, name = urlsplit(url).path.split("/")
    assert (files, uid) == ("files", UID)
    return token, unquote(name)


def verified(
    token: str,
    name: str = "a.png",
    *,
    links: Links = LINKS,
    agent_id: int = 7,
    uid: str = UID,
    filename: str = "a.png",
    now_us: int = NOW_US,
) -> int | None:
    """Verify a link with everything right but what is given."""
    return links.verify(
        token, name, agent_id=agent_id, attachment_uid=uid, filename=filename, now_us=now_us
    )


def test_a_link_opens() -> None:
    """What was made is accepted, and says when it expires."""
    url, expires_at_us = LINKS.file_url(7, UID, "a.png", BASE, NOW_US)
    assert url.startswith(f"{BASE}/files/{UID}/k1.{expires_at_us // 1_000_000}.")
    assert url.endswith("/a.png")
    assert verified(made()[0]) == expires_at_us


def test_the_signature_is_keyed_blake2b() -> None:
    """What is hashed in steps is what the standard library gives at once, for any key length."""
    for n_bytes in (32, 64, 65, 200):
        secret = os.urandom(n_bytes)
        token, _ = made(links=Links([("k", secret)]))
        _, expiry, signature = token.split(".")
        key = secret if n_bytes <= 64 else hashlib.sha256(secret).digest()
        message = f"7\n{expiry}\n{UID}".encode()
        whole = hashlib.blake2b(message, key=key, digest_size=20, person=b"agentsight file")
        assert signature == whole.hexdigest()


def test_what_the_key_signs_for_another_purpose_is_no_link() -> None:
    """The purpose is part of the hash, not of the text: the same text signed for another fails."""
    token, _ = made()
    key_id, expiry, _ = token.split(".")
    message = f"7\n{expiry}\n{UID}".encode()
    other = hashlib.blake2b(message, key=SECRET, digest_size=20, person=b"agentsight else")
    assert verified(token) is not None
    assert verified(f"{key_id}.{expiry}.{other.hexdigest()}") is None


@given(seconds=st.integers(0, 86_400 * 3), lifetime_s=st.integers(1, 86_400 * 400))
def test_a_link_is_the_same_all_day_and_lives_long_enough(seconds: int, lifetime_s: int) -> None:
    """The expiry is the end of the UTC day in which the lifetime ends."""
    links = Links([("k1", SECRET)], lifetime_s=lifetime_s)
    now_us = NOW_US + seconds * 1_000_000
    url, expires_at_us = links.file_url(7, UID, "a", BASE, now_us)
    assert expires_at_us % DAY_US == 0
    assert lifetime_s * 1_000_000 <= expires_at_us - now_us <= lifetime_s * 1_000_000 + DAY_US
    whole_days = lifetime_s - lifetime_s % 86_400 or 86_400
    daily = Links([("k1", SECRET)], lifetime_s=whole_days)
    midnight_us = now_us - now_us % DAY_US
    all_day = [midnight_us, midnight_us + 1, now_us, midnight_us + DAY_US - 1]
    assert len({daily.file_url(7, UID, "a", BASE, at)[0] for at in all_day}) == 1
    assert url


def test_a_link_dies_at_its_expiry() -> None:
    """A microsecond before it opens, at it no more."""
    token, _ = made()
    expires_at_us = LINKS.file_url(7, UID, "a.png", BASE, NOW_US)[1]
    assert verified(token, now_us=expires_at_us - 1) == expires_at_us
    assert verified(token, now_us=expires_at_us) is None
    assert LINKS.expires_at_us(token, expires_at_us) is None


def test_anything_altered_is_refused() -> None:
    """Another agent, uid, name or key: the same link opens nothing else."""
    token, _ = made()
    assert verified(token) is not None
    assert verified(token, agent_id=8) is None
    assert verified(token, uid=UID[:-1] + "c") is None
    assert verified(token, "b.png") is None
    assert verified(token, "a.png/") is None
    assert verified(token, "A.png") is None
    assert verified(token, filename="renamed.png") is None
    assert verified(token, links=Links([("k1", os.urandom(32))])) is None


def test_every_single_character_counts() -> None:
    """A token with any one character changed, added or left out is refused."""
    token, _ = made()
    for at in range(len(token)):
        for other in "0a.Z-_+%\0é٣":
            changed = token[:at] + other + token[at + 1 :]
            assert changed == token or verified(changed) is None
            assert verified(token[:at] + other + token[at:]) is None
        assert verified(token[:at] + token[at + 1 :]) is None
    assert verified(token + "\n") is None
    assert verified(token.upper()) is None


def test_a_later_expiry_cannot_be_claimed() -> None:
    """The expiry is signed, and has one spelling."""
    key_id, expiry, signature = made()[0].split(".")
    for claimed in (
        str(int(expiry) + 86_400),
        f"0{expiry}",
        f"+{expiry}",
        f"{expiry}.0",
        "9" * 400,
    ):
        assert verified(f"{key_id}.{claimed}.{signature}") is None


@given(token=st.text(max_size=80), name=st.text(max_size=20))
def test_rubbish_is_refused_without_a_sound(token: str, name: str) -> None:
    """Any text in a token's place is refused, never an error."""
    assert verified(token, name) is None
    assert LINKS.expires_at_us(token, NOW_US) is None


def test_keys_are_rotated_without_breaking_links() -> None:
    """The first key signs, all are accepted, a removed one is refused."""
    old, new = ("old", os.urandom(32)), ("new", os.urandom(32))
    token_old, _ = made(links=Links([old]))
    both = Links([new, old])
    token_new, _ = made(links=both)
    assert token_new.startswith("new.")
    assert verified(token_old, links=both) is not None
    assert verified(token_new, links=both) is not None
    assert verified(token_old, links=Links([new])) is None
    swapped = token_old.replace("old.", "new.", 1)
    assert verified(swapped, links=both) is None


@given(st.text(st.characters(exclude_categories=[]), max_size=300))
def test_any_clean_name_survives_the_url(raw: str) -> None:
    """The last segment decodes to the row's name, and the URL has no other segments for it."""
    filename = clean_filename(raw)
    url, _ = LINKS.file_url(7, UID, filename, BASE, NOW_US)
    assert url.isascii()
    assert urlsplit(url).query == urlsplit(url).fragment == ""
    token, name = made(filename)
    assert name == filename
    assert verified(token, name, filename=filename) is not None


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [("k1", b"short")],
        [("k.1", SECRET)],
        [("", SECRET)],
        [("k" * 17, SECRET)],
        [("k1", SECRET), ("k1", SECRET)],
    ],
)
def test_keys_that_would_not_protect_are_refused(keys: list[tuple[str, bytes]]) -> None:
    """No key, a short secret, a malformed id or an id twice is an error at the start."""
    with pytest.raises(ValueError, match="key"):
        Links(keys)


def test_a_link_must_live() -> None:
    """A lifetime of nothing is an error at the start."""
    with pytest.raises(ValueError, match="live"):
        Links([("k1", SECRET)], lifetime_s=0)
