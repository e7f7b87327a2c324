"""Search by substring in SQLite's trigram indexes: which rows are one agent's, what FTS5 is asked.

PostgreSQL needs none of it: its index serves `LIKE`. FTS5's tables here are contentless and without
positions (`detail = none`), so what they find are candidates, to be checked against the text.
"""

from __future__ import annotations

from typing import Final

ROWID_SHIFT: Final = 40
"""An index row is `agent_id << 40 | row id`: one agent's texts are one range."""
ROW_MASK: Final = (1 << ROWID_SHIFT) - 1
MIN_INDEXED_CHARS: Final = 3
"""A shorter needle has no trigram: no index of either database helps to find it."""
_MAX_TRIGRAMS: Final = 64


def index_range(agent_id: int) -> tuple[int, int]:
    """Return the first and the last index row that can be an agent's."""
    first = agent_id << ROWID_SHIFT
    return first, first | ROW_MASK


def fts_query(folded: str) -> str:
    """Return FTS5's query for texts that may contain `folded`: all of its trigrams.

    `detail=none` knows no phrases: every trigram stands on its own, joined by AND.
    """
    trigrams = dict.fromkeys(folded[i : i + 3] for i in range(len(folded) - 2))
    return " AND ".join('"' + t.replace('"', '""') + '"' for t in list(trigrams)[:_MAX_TRIGRAMS])
