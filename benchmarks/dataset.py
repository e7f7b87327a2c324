"""A database as the server would have made it, but quickly: deterministic, kept in `.scratch/`.

The server itself makes the schema, the agent and the key; the rows then go in by plain SQL with all
that the server's writes keep in step: item keys, folded copies, counters, the search index. What is
here is checked against the server's own answers (`check`), and a change of the schema makes it
anew. Messages of conversations that are open at the same time lie interleaved, as they arrive in
life, so that reading a conversation visits as many pages as it would there.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentsight._contract import key_checksum
from agentsight.server.db.trigrams import ROWID_SHIFT
from benchmarks.measuring import ROOT, SCRATCH, Server, agentsight

_KEY_BODY = "ags_" + "be" * 16
KEY = f"{_KEY_BODY}_{key_checksum(_KEY_BODY)}"
HEADERS = {"Authorization": f"Api-Key {KEY}"}
N_MESSAGES_EACH = 10
FILES_PATTERN = (2, 2, 2, 2)
"""Every fourth conversation has 8 files, in its messages 1, 3, 5 and 7."""
RARE_WORDS = {"zephyrquartz": 5, "orderlatteness": 5}
"""In how many messages; the trigrams of the first are rare too, those of the second are common."""
CUSTOMER = "customer-77"
DEVICE = "kiosk"
PLAN = "platinum"
"""Three values that 1 of 100 conversations has: behind an index, without one, inside metadata."""
_START_US = 1_780_000_000_000_000
_OPEN_AT_ONCE = 1000
_FILES = (
    ("image", "Screenshot 2026-05-{n}.png", "image/png"),
    ("document", "invoice-{n}.pdf", "application/pdf"),
    ("text", "orders {n}.csv", "text/csv"),
    ("audio", "voice-note-{n}.ogg", "audio/ogg"),
)


@dataclass(frozen=True)
class Dataset:
    """A data directory with `n_conversations` conversations of ten messages."""

    data: Path
    n_conversations: int

    @property
    def with_files(self) -> list[int]:
        """Row ids of the conversations that have eight files, spread evenly and shuffled."""
        pks = list(range(4, self.n_conversations + 1, 4))
        random.Random(7).shuffle(pks)
        return pks


_FACTS = '["image/png",1280,720,null,null,"not_scanned","image"]'
"""What the background has found out of a file, as its row keeps it."""


def dataset(n_conversations: int) -> Dataset:
    """Return the data directory, made now if it is not there."""
    schema = (ROOT / "src/agentsight/server/db/schema.sqlite.sql").read_bytes()
    mark = hashlib.sha256(schema + Path(__file__).read_bytes()).hexdigest()[:12]
    made = Dataset(SCRATCH / f"conversations-{n_conversations}-{mark}", n_conversations)
    if (made.data / "made").exists():
        return made
    for stale in SCRATCH.glob(f"conversations-{n_conversations}-*"):
        shutil.rmtree(stale)
    started = time.monotonic()
    made.data.mkdir(parents=True)
    with agentsight(made.data, init_key=KEY):
        pass
    _fill(made)
    with agentsight(made.data) as server:
        check(made, server)
    (made.data / "made").touch()
    print(f"(made {made.data.name} in {time.monotonic() - started:.0f} s)", flush=True)
    return made


# --- Rows -----------------------------------------------------------------------------------------


def uid_at(kind: int, number: int, at_us: int) -> str:
    digits = f"{at_us // 1000:012x}7{kind:03x}8{number * 2_654_435_761 % (1 << 60):015x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


class Texts:
    """Sentences of real dialogues with words of a made-up vocabulary of 4,000 between them."""

    def __init__(self) -> None:
        lines = (ROOT / "examples/data/dialogues.jsonl").read_text().splitlines()
        self._sentences = [t["text"] for line in lines for t in json.loads(line)["turns"]]
        self._random = random.Random(11)
        syllables = [a + b for a in "bdfgklmnprstvw" for b in "aeiou"]
        self._words = [
            "".join(self._random.choices(syllables, k=self._random.randint(2, 4)))
            for _ in range(4000)
        ]

    def make(self, number: int) -> str:
        words = " ".join(self._random.choices(self._words, k=8))
        return f"{self._sentences[number % len(self._sentences)]} {words} {number}."


def _conversation(pk: int, agent_id: int, environment_id: int) -> tuple[Any, ...]:
    started = _START_US + pk * 30_000_000
    customer = CUSTOMER if pk % 100 == 77 else f"customer-{pk % 100 + 1000 * (pk % 7)}"
    plan = PLAN if pk % 100 == 78 else ("free", "gold", "silver")[pk % 3]
    device = DEVICE if pk % 100 == 79 else ("mobile", "desktop", "tablet")[pk % 3]
    name = f"Conversation {pk} about an order"
    return (
        pk, agent_id, uid_at(1, pk, started), f"conv-{pk:07}", environment_id,
        name, name.casefold(),
        customer, customer.casefold(), device, "web", ("en", "de", "fr")[pk % 3],
        json.dumps({"plan": plan, "store": {"city": "Lyon", "number": pk % 50}}), 1,
        N_MESSAGES_EACH, started, _message_at(pk, N_MESSAGES_EACH - 1), started, started,
    )  # fmt: skip


def _message_at(pk: int, place: int) -> int:
    return _START_US + pk * 30_000_000 + place * 45_000_000


def _places(n_conversations: int) -> Iterator[tuple[int, int, int]]:
    """Yield message id, conversation and place of every message, in order of arrival."""
    message_id = 0
    for first in range(1, n_conversations + 1, _OPEN_AT_ONCE):
        for place in range(N_MESSAGES_EACH):
            for pk in range(first, min(first + _OPEN_AT_ONCE, n_conversations + 1)):
                message_id += 1
                yield message_id, pk, place


def _messages(made: Dataset, agent_id: int) -> Iterator[tuple[Any, ...]]:
    texts = Texts()
    n_messages = made.n_conversations * N_MESSAGES_EACH
    rare: dict[int, str] = {}
    for nth, (word, n_times) in enumerate(RARE_WORDS.items()):
        for time_number in range(n_times):
            rare[(time_number * 2 + nth + 1) * n_messages // (n_times * 2 + 3)] = word
    for message_id, pk, place in _places(made.n_conversations):
        at = _message_at(pk, place)
        content = texts.make(message_id)
        if message_id in rare:
            content += " " + rare[message_id]
        yield (
            message_id, agent_id, pk, uid_at(2, message_id, at), uid_at(3, message_id, at), "text",
            "agent" if place % 2 else "end_user", content, '{"channel": "web"}', at, at, at,
        )  # fmt: skip


def _files(made: Dataset, agent_id: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Yield blob and attachment rows; no bytes, which lists do not read."""
    number = 0
    for message_id, pk, place in _places(made.n_conversations):
        if pk % 4 or place % 2 == 0 or place // 2 >= len(FILES_PATTERN):
            continue
        at = _message_at(pk, place)
        for _ in range(FILES_PATTERN[place // 2]):
            number += 1
            type_name, pattern, mime_type = _FILES[number % len(_FILES)]
            uid = uid_at(4, number, at)
            key = f"blobs/{agent_id}/{uid[-2:]}/{uid}"
            sha256 = hashlib.sha256(uid.encode()).hexdigest()
            size = 1000 + number % 5_000_000
            yield (
                (number, agent_id, uid, key, sha256, size, mime_type, at, at),
                (number, agent_id, pk, message_id, number, uid_at(5, number, at),
                 uid_at(6, number, at), type_name, pattern.format(n=number), mime_type, mime_type,
                 "agent" if place % 2 else "end_user", at, size, sha256,
                 pattern.format(n=number).casefold(), _FACTS, at, at),
            )  # fmt: skip


_INTO_CONVERSATIONS = (
    "INSERT INTO conversations (id, agent_id, uid, conversation_id, environment_id, name,"
    " name_folded, customer_id, customer_id_folded, device, source, language, metadata, is_used,"
    " n_messages, started_at, ended_at, created_at, updated_at)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_INTO_MESSAGES = (
    "INSERT INTO messages (id, agent_id, conversation_id, uid, item_key, kind, sender, content,"
    " metadata, timestamp, created_at, updated_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_INTO_BLOBS = (
    "INSERT INTO blobs (id, agent_id, uid, object_key, sha256, size_bytes, state,"
    " detected_mime_type, created_at, updated_at) VALUES (?,?,?,?,?,?,'stored',?,?,?)"
)
_INTO_ATTACHMENTS = (
    "INSERT INTO attachments (id, agent_id, conversation_id, message_id, blob_id, uid, item_key,"
    " type, filename, declared_mime_type, mime_type, sender, sent_at, size_bytes, sha256,"
    " filename_folded, facts, created_at, updated_at)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


def _fill(made: Dataset) -> None:
    db = sqlite3.connect(made.data / "agentsight.db", isolation_level=None)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "cache_size = -1000000"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        agent_id, environment_id = db.execute(
            "SELECT agent_id, id FROM environments WHERE is_production = 1"
        ).fetchone()
        db.execute("BEGIN")
        n = made.n_conversations
        db.executemany(
            _INTO_CONVERSATIONS, (_conversation(pk, agent_id, environment_id)
                                  for pk in range(1, n + 1))
        )  # fmt: skip
        db.executemany(_INTO_MESSAGES, _messages(made, agent_id))
        for blob, attachment in _files(made, agent_id):
            db.execute(_INTO_BLOBS, blob)
            db.execute(_INTO_ATTACHMENTS, attachment)
        for shard in range(16):
            n_live = len(range(shard, n + 1, 16)) - (shard == 0)
            db.execute(
                "INSERT INTO conversation_counts (agent_id, shard, n_live, n_deleted)"
                " VALUES (?, ?, ?, 0)", (agent_id, shard, n_live),
            )  # fmt: skip
        db.create_function("fold", 1, str.casefold, deterministic=True)
        db.execute(
            "INSERT INTO message_search (rowid, content)"
            f" SELECT (agent_id << {ROWID_SHIFT}) | id, fold(content) FROM messages ORDER BY id"
        )
        db.execute("COMMIT")
        db.execute("PRAGMA analysis_limit = 400")
        db.execute("ANALYZE")  # what the server's writer does when it ends
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.close()


# --- Does it look as the server would have made it? -----------------------------------------------


def ask(server: Server, path: str) -> Any:
    """Ask with the key; the answer must be 200."""
    status, body = server.get(path, HEADERS)
    if status != 200:
        raise SystemExit(f"{path} answered {status}: {body[:300]!r}")
    return json.loads(body)


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SystemExit(f"the benchmark's database is not right: {what}: {found} and not {wanted}")


def check(made: Dataset, server: Server) -> None:
    """Ask the server about a sample."""
    n = made.n_conversations
    files = ask(server, f"/api/conversations/{made.with_files[0]}/attachments/")
    _expect("files", files["total_attachments"], sum(FILES_PATTERN))
    _expect("messages with files", len(files["messages"]), len(FILES_PATTERN))
    detail = ask(server, f"/api/conversations/{n}/")
    _expect("messages", len(detail["messages"]), detail["message_count"])
    _expect("the unfiltered count", ask(server, "/api/conversations/?page_size=1")["count"], n)
    for query in (f"customer_id={CUSTOMER}", f"device={DEVICE}", f"metadata=plan:{PLAN}"):
        found = ask(server, f"/api/conversations/?page_size=1&{query}")
        _expect(query, found["count"], n // 100)
    for word, n_times in RARE_WORDS.items():
        found = ask(server, f"/api/conversations/?page_size=1&message_contains={word}")
        _expect(word, found["count"], n_times)
