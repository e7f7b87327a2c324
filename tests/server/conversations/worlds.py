"""Hypothesis strategies: conversations full of what breaks filters, and filters that fit them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from tests.server.conversations import oracle

START = datetime(2026, 9, 1, 12, tzinfo=UTC)
TEXTS = (
    "Straße", "STRASSE", "İstanbul", "istanbul", "ΣΊΣΥΦΟΣ", "σίσυφος", "ﬁle", "FILE", "100%",
    "a_b", "axb", "a\\b", "it's", 'say "hi"', "a:b", "a,b", "ab", "x", "日本語テキスト", "😀 ok",
    "%", "_", "\\", "A%B_C\\D", "null", "true", "1", "1.0", "  spaced  ", "e\u0301", "é", "\u0345",
    'NEAR("a" b) OR *', "line\nbreak", "tab\tbed", "\x01", "--", "$1 ?1", "{}", "ǅ", "ŉ",
)  # fmt: skip
NASTY = "aAbB%_\\'\":,.*ßẞİıΣσςﬁ😀\u0301 \n"
KEYS = ("plan", "address", "city", "n", "a b", "ä", 'q"', "back\\slash", "\x01", "%", "a.b", "$")

texts = st.sampled_from(TEXTS) | st.text(NASTY, min_size=1, max_size=8).filter(str.strip)
some_text = st.none() | texts
times = st.integers(0, 6).map(lambda n: START + timedelta(seconds=n))
numbers = (
    st.integers(-3, 3)
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0.1, -0.5, 1.0, 1e16, 1e300, 1.5e-7, 5e-324, 1e22])
    | st.floats(allow_nan=False, allow_infinity=False)
)
leaves = st.none() | st.booleans() | numbers | st.sampled_from(TEXTS) | st.just("")
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=5,
)
documents = st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=4)
metadata = st.integers(0, 4).flatmap(lambda n: documents if n else st.none())


def a_file(**fields: Any) -> dict[str, Any]:
    """Make a file of which only a few fields matter; equal `bytes` are one blob."""
    plain = {"filename": "a.bin", "bytes": "nothing", "text": None, "metadata": None}
    more = {"mime_type": None, "detected_mime_type": None, "size_bytes": 7, "scan": "not_scanned"}
    return plain | more | {"is_deleted": False} | fields


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a file: a name, and perhaps a text inside."""
    text = draw(some_text)
    return a_file(
        filename=draw(texts), bytes=repr(text), text=text, is_deleted=draw(st.integers(0, 4)) == 4
    )


messages = st.fixed_dictionaries(
    {
        "type": st.just("message"),
        "content": texts,
        "timestamp": times,
        "files": st.lists(files(), max_size=2),
    }
) | st.one_of(
    st.fixed_dictionaries({"type": st.just("action"), "action_name": texts, "timestamp": times}),
    st.fixed_dictionaries(
        {
            "type": st.just("button"),
            "label": texts,
            "button_event": st.just("pressed"),
            "value": texts,
            "timestamp": times,
        }
    ),
    st.fixed_dictionaries(
        {"type": st.just("usage"), "prompt_tokens": st.integers(0, 9), "timestamp": times}
    ),
)
feedbacks = st.fixed_dictionaries(
    {
        "sentiment": st.sampled_from(["positive", "neutral", "negative"]),
        "source": st.sampled_from(["customer", "platform"]),
    }
)
conversations = st.fixed_dictionaries(
    {
        "conversation_id": texts,
        "timestamp": times,
        "customer_id": some_text,
        "customer_ip_address": st.sampled_from([None, "8.8.8.8", "::1", "not an address"]),
        "device": some_text,
        "source": some_text,
        "language": st.sampled_from([None, "en", "de", "Ä"]),
        "name": some_text,
        "environment": st.sampled_from([None, "dev", "PROD", "Staging", "stra\u1e9ee"]),
        "metadata": metadata,
        "messages": st.lists(messages, max_size=4),
        "feedbacks": st.lists(feedbacks, max_size=2),
        "is_marked": st.booleans(),
        "is_deleted": st.sampled_from([False, False, False, True]),
    }
)
worlds = st.lists(conversations, min_size=1, max_size=4, unique_by=lambda c: c["conversation_id"])


@st.composite
def queries(draw: st.DrawFn, world: list[dict[str, Any]]) -> dict[str, str]:
    """Draw a query of one to three filters, most of which somebody in the world answers to."""
    makers = _makers(world)
    names = draw(st.lists(st.sampled_from(sorted(makers)), min_size=1, max_size=3, unique=True))
    query = {name: draw(makers[name]) for name in names}
    if draw(st.booleans()):
        query["ordering"] = draw(orderings)
    return query


@dataclass
class Case:
    """A world, how many of its conversations are in the search index before the others come, and
    queries with the size of their pages."""

    world: list[dict[str, Any]]
    n_indexed: int
    queries: list[tuple[dict[str, str], int]]


@st.composite
def cases(draw: st.DrawFn, n_queries: int = 8) -> Case:
    """Draw a world and what is asked of it."""
    world = draw(worlds)
    asked = st.tuples(queries(world), st.integers(1, 3))
    return Case(
        world,
        draw(st.integers(0, len(world) + 1)),
        draw(st.lists(asked, min_size=1, max_size=n_queries)),
    )


columns = st.sampled_from(["started_at", "ended_at", "id", "customer_id", "is_marked", "language"])
orderings = st.lists(
    st.tuples(st.sampled_from(["", "-"]), columns).map("".join), min_size=1, max_size=3
).map(",".join)


def _makers(world: list[dict[str, Any]]) -> dict[str, st.SearchStrategy[str]]:
    flags = st.sampled_from(["true", "false", "1", "No", " on ", "OFF"])
    shown = [oracle.shown_text(m) for c in world for m in c["messages"] if m["type"] != "usage"]
    sent = [f for c in world for m in c["messages"] for f in m.get("files", ())]
    actions = [m["action_name"] for c in world for m in c["messages"] if m["type"] == "action"]
    fields = ("conversation_id", "customer_id", "customer_ip_address", "device", "source")
    return {
        **{name: known(world, name) for name in (*fields, "language")},
        "customer_id__icontains": needles([c["customer_id"] for c in world]),
        "name": needles([c["name"] for c in world]),
        "message_contains": needles(shown),
        "attachment_contains": needles([f[key] for f in sent for key in ("filename", "text")]),
        "action_name": needles(actions),
        "environment": st.sampled_from(["prod", "DEV", " staging ", "STRASSEE", "nowhere"]),
        "feedback_sentiment": st.sampled_from(["positive", "Neutral", "negative"]),
        "feedback_source": st.sampled_from(["customer", "platform"]),
        "has_feedback": flags,
        "has_messages": flags,
        "has_action": flags,
        "is_marked": flags,
        "include_deleted": flags,
        "started_at_after": shown_times,
        "started_at_before": shown_times,
        "metadata": metadata_filters(world),
    }


def known(rows: Sequence[Mapping[str, Any]], field: str) -> st.SearchStrategy[str]:
    """Draw a value that some row has, or any text."""
    values = [row[field] for row in rows if row[field]]
    return st.sampled_from(values) | texts if values else texts


@st.composite
def needles(draw: st.DrawFn, haystacks: list[str | None]) -> str:
    """Draw a piece of one of the texts, with its case turned; sometimes any text."""
    known = [text for text in haystacks if text]
    text = draw(st.sampled_from(known)) if known and draw(st.integers(0, 4)) else draw(texts)
    start = draw(st.integers(0, len(text) - 1))
    piece = text[start : start + draw(st.integers(1, 12))]
    turn = draw(st.sampled_from([str.upper, str.lower, str.swapcase, str.title, str]))
    return turn(piece) if turn(piece).strip() else "a"


_OFFSETS = (UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8)))


@st.composite
def time_texts(draw: st.DrawFn) -> str:
    """Draw a time of the world, as a query writes it."""
    time = draw(times)
    if draw(st.booleans()):
        return time.replace(tzinfo=None).isoformat()
    return time.astimezone(draw(st.sampled_from(_OFFSETS))).isoformat()


shown_times = time_texts()


@st.composite
def metadata_filters(draw: st.DrawFn, world: list[dict[str, Any]]) -> str:
    """Draw one or two `path:value` pairs, of leaves that are there or nearly."""
    known = [pair for c in world for pair in _leaves(c["metadata"] or {}, ())]
    pieces: list[str] = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        if known and draw(st.integers(0, 5)):
            path, leaf = draw(st.sampled_from(known))
            text = draw(st.sampled_from(_writings(leaf)))
        else:
            path = tuple(draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)))
            text = draw(st.sampled_from([*TEXTS, "", "0", "-0", "1e0", "01", "1.", "1e999"]))
        pieces.append(f"{'.'.join(path)}:{text}")
    raw = ",".join(pieces)
    # What cannot be read is a 400 and has tests of its own.
    is_read = all(all(path) for path, _ in oracle.metadata_pairs(raw)) if ":" in raw else False
    return raw if is_read else "plan:gold"


def _leaves(value: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, item in value.items() for leaf in _leaves(item, (*path, key))]
    return [(path, value)] if path else []


def _writings(leaf: Any) -> list[str]:
    """Write a leaf in ways that mean the same, and in one that does not."""
    if isinstance(leaf, str):
        return [leaf, leaf.upper()]
    writings = [json.dumps(leaf), json.dumps(leaf).upper()]
    if isinstance(leaf, int | float) and not isinstance(leaf, bool):
        writings += [f"{leaf}.0", f"{leaf:e}", f"{leaf}0"]
    return writings
