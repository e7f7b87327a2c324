"""A hundred thousand documents with the text inside them, in SQLite and in PostgreSQL.

The server makes the schema, the agent and the key; rows and texts then go in by plain SQL, as
`attachments/store_texts.py` would have put them. Texts are sentences of real dialogues with words
of a made-up vocabulary: half of them are under 1,500 characters, the longest have sixty thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentsight.server.db.trigrams import ROWID_SHIFT
from benchmarks.dataset import KEY, Texts, uid_at
from benchmarks.measuring import ROOT, SCRATCH, Server, agentsight

N_DOCUMENTS = 100_000
WORDS = {"zephyrquartz": 5, "orderlatteness": 5, "mediumrareword": 300}
"""In how many documents; of the second all trigrams are common."""
_START_US = 1_780_000_000_000_000
_PER_CONVERSATION = 4
_CHUNK = 2000
_POSTGRES_SETTINGS = {"shared_buffers": "512MB", "jit": "on", "autovacuum": "on"}
"""As an operator has them, where the tests' PostgreSQL has less: memory for what is asked often."""


def documents() -> Iterator[tuple[int, str]]:
    """Yield numbers from 1, and texts; the same ones each time."""
    texts, lengths = Texts(), random.Random(23)
    wanted_words = [word for word, n_times in WORDS.items() for _ in range(n_times)]
    places = random.Random(29).sample(range(1, N_DOCUMENTS + 1), len(wanted_words))
    placed = dict(zip(places, wanted_words, strict=True))
    sentence = 0
    for number in range(1, N_DOCUMENTS + 1):
        wanted = min(60_000, int(lengths.lognormvariate(7.3, 0.9)))
        pieces, n_chars = [], 0
        while n_chars < wanted:
            sentence += 1
            pieces.append(texts.make(sentence))
            n_chars += len(pieces[-1]) + 1
        if number in placed:
            pieces.insert(len(pieces) // 2, placed[number].title())
        yield number, "\n".join(pieces)


def _rows(agent_id: int, environment_id: int) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    """Yield the rows of all tables, some documents at a time."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for number, text in documents():
        at = _START_US + number * 60_000_000
        pk = (number - 1) // _PER_CONVERSATION + 1
        if (number - 1) % _PER_CONVERSATION == 0:
            rows.setdefault("conversations", []).append(
                (pk, agent_id, uid_at(1, pk, at), f"conv-{pk}", environment_id,
                 f"customer-{pk % 500}", 1, _PER_CONVERSATION, at, at, at, at)
            )  # fmt: skip
        rows.setdefault("messages", []).append(
            (number, agent_id, pk, uid_at(2, number, at), "text", "end_user", "see the file", at,
             at, at)
        )  # fmt: skip
        uid, sha256 = uid_at(4, number, at), hashlib.sha256(text.encode()).hexdigest()
        size = len(text)
        rows.setdefault("blobs", []).append(
            (number, agent_id, uid, f"blobs/{agent_id}/{uid[-2:]}/{uid}", sha256, size, "stored",
             "application/pdf", "stored", at, at)
        )  # fmt: skip
        name = f"Report {number} of {text[:20].split()[0]}.pdf"
        rows.setdefault("attachments", []).append(
            (number, agent_id, pk, number, number, uid_at(5, number, at), "document", name,
             name.casefold(), "application/pdf", "end_user", at, size, sha256, at, at)
        )  # fmt: skip
        rows.setdefault("blob_texts", []).append((agent_id, number, text, 0, at))
        rows.setdefault("attachment_search", []).append((agent_id, number, text.casefold()))
        if number % _CHUNK == 0:
            yield rows
            rows = {}


COLUMNS = {
    "conversations": "id agent_id uid conversation_id environment_id customer_id is_used n_messages"
    " started_at ended_at created_at updated_at",
    "messages": "id agent_id conversation_id uid kind sender content timestamp created_at"
    " updated_at",
    "blobs": "id agent_id uid object_key sha256 size_bytes state detected_mime_type text_state"
    " created_at updated_at",
    "attachments": "id agent_id conversation_id message_id blob_id uid type filename"
    " filename_folded mime_type sender sent_at size_bytes sha256 created_at updated_at",
    "blob_texts": "agent_id blob_id content is_cut created_at",
    "attachment_search": "agent_id blob_id content_folded",
}
_INDEXES = ("attachment_search_trigrams", "attachments_by_name")
"""Of PostgreSQL; made when all rows are there."""


# --- SQLite ---------------------------------------------------------------------------------------


def sqlite_documents() -> Path:
    """Return a data directory with all documents, made now if it is not there."""
    schema = (ROOT / "src/agentsight/server/db/schema.sqlite.sql").read_bytes()
    mark = hashlib.sha256(schema + Path(__file__).read_bytes()).hexdigest()[:12]
    data = SCRATCH / f"documents-{mark}"
    if (data / "made").exists():
        return data
    for stale in SCRATCH.glob("documents-*"):
        shutil.rmtree(stale)
    started = time.monotonic()
    data.mkdir(parents=True)
    with agentsight(data, init_key=KEY):
        pass
    _fill_sqlite(data / "agentsight.db")
    (data / "made").touch()
    print(f"(made {data.name} in {time.monotonic() - started:.0f} s)", flush=True)
    return data


def _fill_sqlite(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        for pragma in ("journal_mode = WAL", "synchronous = OFF", "cache_size = -1000000"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        agent_id, environment_id = db.execute(
            "SELECT agent_id, id FROM environments WHERE is_production = 1"
        ).fetchone()
        db.execute("BEGIN")
        for rows in _rows(agent_id, environment_id):
            for table, values in rows.items():
                columns = COLUMNS[table].split()
                if table == "attachment_search":
                    values = [((a << ROWID_SHIFT) | n, text) for a, n, text in values]
                    columns = ["rowid", "content"]
                places = ",".join("?" * len(columns))
                db.executemany(
                    f"INSERT INTO {table} ({','.join(columns)}) VALUES ({places})", values
                )
        db.execute(
            f"INSERT INTO filename_search (rowid, content) SELECT (agent_id << {ROWID_SHIFT}) | id,"
            " filename_folded FROM attachments ORDER BY id"
        )
        db.execute(
            "INSERT INTO instance_values (name, value, created_at)"
            " SELECT 'names_indexed_to', max(id), 0 FROM attachments"
        )
        db.execute("COMMIT")
        db.execute("PRAGMA analysis_limit = 400")
        db.execute("ANALYZE")  # what the server's writer does when it ends
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


# --- PostgreSQL -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Postgres:
    url: str
    data: Path
    pid: int


@dataclass(frozen=True)
class Documents:
    """A server with all documents, and the processes whose CPU an answer takes."""

    server: Server
    pids: tuple[int, ...]


@contextlib.contextmanager
def postgresql_documents() -> Generator[_Postgres]:
    """Start PostgreSQL with all documents; it ends with the block."""
    sys.path.insert(0, str(ROOT))
    from tests.support.postgres import PostgresServer, run_sql

    with PostgresServer(_POSTGRES_SETTINGS) as postgres:
        run_sql(postgres.url("postgres"), ["CREATE DATABASE documents"])
        url = postgres.url("documents")
        started = time.monotonic()
        data = postgres.scratch / "agentsight"
        data.mkdir()
        with agentsight(data, database_url=url, init_key=KEY):
            pass
        asyncio.run(_fill_postgresql(url))
        print(f"(filled PostgreSQL in {time.monotonic() - started:.0f} s)", flush=True)
        yield _Postgres(url, data, postgres.supervisor_pid)


async def _fill_postgresql(url: str) -> None:
    import asyncpg

    db = await asyncpg.connect(url)
    try:
        agent_id, environment_id = await db.fetchrow(
            "SELECT agent_id, id FROM environments WHERE is_production = 1"
        )
        definitions = await db.fetch(
            "SELECT indexdef FROM pg_indexes WHERE indexname = ANY($1::text[])", list(_INDEXES)
        )
        for index in _INDEXES:
            await db.execute(f"DROP INDEX {index}")
        for rows in _rows(agent_id, environment_id):
            for table, values in rows.items():
                columns = COLUMNS[table].split()
                await db.copy_records_to_table(table, records=values, columns=columns)
        await db.execute("SET maintenance_work_mem = '1GB'")
        for (definition,) in definitions:
            await db.execute(definition)
        await db.execute("VACUUM ANALYZE")
    finally:
        await db.close()


@contextlib.contextmanager
def document_servers() -> Generator[dict[str, Documents]]:
    """Run the server on both databases."""
    with (
        agentsight(sqlite_documents()) as lite,
        postgresql_documents() as postgres,
        agentsight(postgres.data, database_url=postgres.url) as pg,
    ):
        yield {
            "SQLite": Documents(lite, (lite.process.pid,)),
            "PostgreSQL": Documents(pg, (pg.process.pid, postgres.pid)),
        }
