"""The rules of agents, environments and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight import _contract as contract
from agentsight.server.agents.model import (
    Key,
    clean_environment,
    generate_key,
    key_hint,
    key_sha256,
)
from agentsight.server.ids import KeyId


@pytest.mark.parametrize(
    ("raw", "slug"),
    [
        (None, "production"),
        ("", "production"),
        ("   ", "production"),
        ("prod", "production"),
        (" PROD ", "production"),
        ("Production", "production"),
        ("dev", "development"),
        ("DEV\n", "development"),
        ("Staging", "staging"),
        ("production-eu", "production-eu"),
        ("Größe", "grösse"),
    ],
)
def test_environments_are_read_without_case_and_outer_space(raw: str | None, slug: str) -> None:
    """`prod` and `dev` are aliases, nothing is production, everything else is its own."""
    assert clean_environment(raw) == slug


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=600))
def test_a_cleaned_environment_stays_as_it_is(raw: str) -> None:
    """Cleaning twice changes nothing, and no name is too long for its column."""
    slug = clean_environment(raw)
    assert clean_environment(slug) == slug
    assert 0 < len(slug) <= contract.MAX_ID_CHARS


def test_a_generated_key_is_well_formed_and_new() -> None:
    """Every key has the fixed shape and its checksum, and no two are equal."""
    keys = {generate_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(contract.key_is_well_formed(key) for key in keys)


def test_a_key_is_looked_up_without_case() -> None:
    """Hex digits count without case, so the hash is of the folded key."""
    key = generate_key()
    assert key_sha256(key.upper()) == key_sha256(key)


def test_a_hint_does_not_give_the_key_away() -> None:
    """A list shows ten of 38 digits, six of which are only the checksum."""
    key = generate_key()
    hint = key_hint(key)
    assert hint == f"{key[:8]}…{key[-6:]}"


def test_a_key_ends_by_expiry_or_revocation() -> None:
    """An end in the future is an overlap: the key works until then."""
    key = Key(KeyId(1), "u", "support", "read", "", "h", 0, expires_at=100, revoked_at=50)
    assert [key.state(now) for now in (49, 50, 100)] == ["active", "revoked", "revoked"]
    kept = Key(KeyId(1), "u", "support", "read", "", "h", 0, expires_at=100, revoked_at=None)
    assert [kept.state(now) for now in (99, 100)] == ["active", "expired"]
