"""Hypothesis strategies: files full of what breaks filters, and filters that fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.server.attachments import oracle
from tests.server.conversations.worlds import (
    a_file,
    conversations,
    known,
    metadata,
    metadata_filters,
    needles,
    some_text,
    texts,
    time_texts,
    times,
)
from tests.server.library import sha256_of

MIME_TYPES = ("image/png", "image/jpeg", "application/pdf", "text/plain", "audio/ogg", "video/mp4")
SCANS = ("not_scanned", "clean", "infected", "failed")


@st.composite
def blobs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what is known of some bytes; files of the same bytes share it."""
    return {
        "text": draw(some_text),
        "detected_mime_type": draw(st.sampled_from([None, *MIME_TYPES])),
        "scan": draw(st.sampled_from(SCANS)),
        "size_bytes": draw(st.integers(0, 3)),
    }


@st.composite
def worlds(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw conversations whose messages bring files, of a few different bytes."""
    different = draw(st.lists(blobs(), min_size=1, max_size=4))
    numbered = [blob | {"bytes": str(n)} for n, blob in enumerate(different)]
    some_files = st.lists(
        st.builds(
            lambda blob, **fields: a_file(**blob, **fields),
            st.sampled_from(numbered),
            filename=texts,
            mime_type=st.sampled_from(MIME_TYPES),
            metadata=metadata,
            is_deleted=st.sampled_from([False, False, False, True]),
        ),
        max_size=3,
    )
    messages = st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "content": st.just("x"),
            "sender": st.sampled_from(["end_user", "agent", "system"]),
            "timestamp": times,
            "files": some_files,
        }
    )
    made = draw(
        st.lists(conversations, min_size=1, max_size=3, unique_by=lambda c: c["conversation_id"])
    )
    return [c | {"messages": draw(st.lists(messages, max_size=3)), "feedbacks": []} for c in made]


@dataclass
class Case:
    """A world, how many of it are indexed, how few blobs count as too many to be named, and queries
    with their page sizes."""

    world: list[dict[str, Any]]
    n_indexed: int
    max_known: int
    queries: list[tuple[dict[str, str], int]]


@st.composite
def cases(draw: st.DrawFn, n_queries: int = 10) -> Case:
    """Draw a world and what is asked of it."""
    world = draw(worlds())
    asked = st.tuples(queries(world), st.integers(1, 3))
    n_indexed = draw(st.integers(0, len(world)))
    max_known = draw(st.sampled_from([0, 1, 1000]))
    return Case(world, n_indexed, max_known, draw(st.lists(asked, min_size=1, max_size=n_queries)))


@st.composite
def queries(draw: st.DrawFn, world: list[dict[str, Any]]) -> dict[str, str]:
    """Draw a query of one to three filters, most of which some file answers to."""
    makers = makers_of(world)
    names = draw(st.lists(st.sampled_from(sorted(makers)), min_size=1, max_size=3, unique=True))
    query = {name: draw(makers[name]) for name in names}
    if draw(st.booleans()):
        query["ordering"] = draw(orderings)
    return query


def with_ids(query: dict[str, str], world: list[dict[str, Any]]) -> dict[str, str]:
    """Put the row id that a conversation got in place of its ordinal; one past all is nobody's."""
    if "conversation" not in query:
        return query
    ids = [conversation["id"] for conversation in world]
    return query | {"conversation": str([*ids, max(ids) + 1][int(query["conversation"])])}


columns = st.sampled_from(["sent_at", "size_bytes", "filename", "type", "id"])
orderings = st.lists(
    st.tuples(st.sampled_from(["", "-"]), columns).map("".join), min_size=1, max_size=3
).map(",".join)


def makers_of(world: list[dict[str, Any]]) -> dict[str, st.SearchStrategy[str]]:
    files = oracle.files_of(world)
    names, inside = [f["filename"] for f in files], [f["text"] for f in files]
    sizes = st.integers(0, 4).map(str)
    return {
        "type": st.sampled_from(["image", "Document", "text", "audio", "video"]),
        "detected_mime_type": st.sampled_from([*MIME_TYPES, "image/*", "TEXT/*", "application/*"]),
        "filename_contains": needles(names),
        "text_contains": needles(inside),
        "contains": needles([*names, *inside]),
        "sender": st.sampled_from(["end_user", "Agent", "system"]),
        "conversation": st.integers(0, len(world)).map(str),  # an ordinal: see `with_ids`
        "conversation_id": known(world, "conversation_id"),
        "customer_id": known(world, "customer_id"),
        "environment": st.sampled_from(["prod", "DEV", " staging ", "STRASSEE", "nowhere"]),
        "size_min": sizes,
        "size_max": sizes,
        "sent_after": time_texts(),
        "sent_before": time_texts(),
        "metadata": metadata_filters(files),
        "scan": st.sampled_from([*SCANS, "CLEAN"]),
        "sha256": st.sampled_from([sha256_of(f) for f in files] or ["0" * 64]),
        "include_deleted": st.sampled_from(["true", "false", "1"]),
        "count": st.sampled_from(["true", "false"]),
    }
