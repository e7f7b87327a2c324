"""The key of the ledger: made once, the same for all, and without it nothing can be told."""

from __future__ import annotations

import asyncio

import pytest

from agentsight.server.db import Database
from agentsight.server.instance.ledger import NO_LEDGER_KEY, LedgerKey, ledger_key

pytestmark = pytest.mark.anyio


async def test_all_who_start_at_once_agree_on_one_key(db: Database) -> None:
    """And on the same the next time."""
    keys = await asyncio.gather(*(ledger_key(db, now_us=n) for n in range(8)))
    assert len({key.secret for key in keys}) == 1
    assert (await ledger_key(db, now_us=99)) == keys[0]
    assert len(keys[0].secret) == 32


def test_hashes_differ_by_kind_scope_subject_and_key() -> None:
    """Equal texts of two agents, or of two kinds, tell nothing of each other."""
    one, other = LedgerKey(b"1" * 32), LedgerKey(b"2" * 32)
    hashes = [
        one.of_conversation(1, "a"), one.of_conversation(1, "A"), one.of_conversation(2, "a"),
        one.of_customer(1, "a"), one.of_attachment(1, "a"), one.of_attachment_item(1, "a"),
        other.of_conversation(1, "a"), one.of_conversation(1, "\ud800"),
    ]  # fmt: skip
    assert len(set(hashes)) == len(hashes)
    assert all(len(text) == 64 for text in hashes)
    assert one.key_id != other.key_id
    assert "1" * 32 not in repr(one)


def test_without_a_key_nothing_is_hashed() -> None:
    """A part that was put together without it says so, and does not hash with nothing."""
    with pytest.raises(RuntimeError, match="ledger_key"):
        NO_LEDGER_KEY.of_customer(1, "a")
