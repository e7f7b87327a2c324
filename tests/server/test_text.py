"""Text is mended where a refusal would lose it, and folded as Python folds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.text import fold_text, like_pattern, mend_text, mend_value

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("a\udfffb\x00", "a\ufffdb\ufffd"),
        ("\x01\x1f\x7f\u202e", "\x01\x1f\x7f\u202e"),
        ("ä😀", "ä😀"),
    ],
)
def test_what_cannot_be_stored_is_replaced(raw: str, mended: str) -> None:
    """NUL and lone surrogates become U+FFFD, and nothing else changes."""
    assert mend_text(raw) == mended


@given(ANY_TEXT)
def test_mended_text_can_be_stored(text: str) -> None:
    """It has no NUL, it is UTF-8, it is as long as before, and mending again changes nothing."""
    mended = mend_text(text)
    assert "\x00" not in mended
    assert mended.encode().decode() == mended
    assert len(mended) == len(text)
    assert mend_text(mended) == mended


def test_values_are_mended_throughout() -> None:
    """Keys and leaves at any depth; what is no text passes."""
    value = {"a\x00": [{"b": "\ud800"}, 1, None, True, 1.5]}
    assert mend_value(value) == {"a\ufffd": [{"b": "\ufffd"}, 1, None, True, 1.5]}


@pytest.mark.parametrize(("one", "other"), [("Straße", "STRASSE"), ("ﬁ", "FI"), ("Σς", "σΣ")])
def test_folding_is_full(one: str, other: str) -> None:
    """What Python holds equal without case is equal."""
    assert fold_text(one) == fold_text(other)
    assert fold_text(None) is None


def test_patterns_take_their_text_literally() -> None:
    """The metacharacters of LIKE are escaped, the escape first."""
    assert like_pattern("50%_a\\b") == "%50\\%\\_a\\\\b%"
