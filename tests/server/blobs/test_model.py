"""Tests of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.blobs import blob_key, check_key
from agentsight.server.ids import AgentId, new_uid

UID = "0190a0b0-1111-7222-8333-4444555566ab"


def test_a_blob_key_names_agent_and_uid() -> None:
    """The folder is taken from the uid's random end, not from its time."""
    assert blob_key(AgentId(7), UID) == f"blobs/7/ab/{UID}"


@given(agent_id=st.integers(1, 2**53 - 1), now_us=st.integers(0, 2**60))
def test_every_blob_key_is_a_key(agent_id: int, now_us: int) -> None:
    """What is built from our ids always has the shape that stores accept."""
    key = blob_key(AgentId(agent_id), new_uid(now_us))
    assert check_key(key) == key


@pytest.mark.parametrize("uid", ["", "x", UID.upper(), UID + "\n", "../" + UID, UID[:-1] + "/"])
def test_only_our_ids_make_a_key(uid: str) -> None:
    """A uid that we did not make is refused."""
    with pytest.raises(ValueError, match="not a blob of ours"):
        blob_key(AgentId(1), uid)


def test_no_agent_is_no_owner() -> None:
    """Agent 0 stands for nobody and owns no bytes."""
    with pytest.raises(ValueError, match="not a blob of ours"):
        blob_key(AgentId(0), UID)
