"""A database's schema as plain text lines, so that two of them can be compared."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import asyncpg

from agentsight.server.db.sql import tokenize


def _squeeze(text: str) -> str:
    """Drop comments and layout."""
    words = [token.text for token in tokenize(text) if token.kind not in {"space", "comment"}]
    return " ".join(words)


def dump_sqlite(path: Path) -> list[str]:
    """List every table, index, trigger and view of a file."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master")
    lines = [f"{kind} {name} on {table}: {_squeeze(text)}" for kind, name, table, text in rows]
    lines += [f"version {v}" for (v,) in connection.execute("SELECT * FROM alembic_version")]
    connection.close()
    return sorted(lines)


async def dump_postgresql(url: str) -> list[str]:
    """List every column, constraint, index, trigger, function and extension of a database."""
    connection = await asyncpg.connect(url)
    ours = "current_schema()::regnamespace"
    extension = "SELECT objid FROM pg_depend WHERE deptype = 'e'"
    queries = [
        "SELECT 'extension ' || extname FROM pg_extension",
        "SELECT 'version ' || version_num FROM alembic_version",
        "SELECT format('column %s.%s %s notnull=%s identity=%s collate=%s default=%s', c.relname,"
        " a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,"
        " (SELECT collname FROM pg_collation o WHERE o.oid = a.attcollation),"
        " (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d"
        "  WHERE d.adrelid = c.oid AND d.adnum = a.attnum))"
        " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        f" WHERE c.relnamespace = {ours} AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0"
        f" AND NOT a.attisdropped AND c.oid NOT IN ({extension})",
        "SELECT format('constraint %s on %s: %s', conname, conrelid::regclass,"
        f" pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace = {ours}",
        f"SELECT pg_get_indexdef(oid) FROM pg_class WHERE relkind = 'i' AND relnamespace = {ours}",
        "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT t.tgisinternal",
        f"SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = {ours}"
        f" AND prokind = 'f' AND oid NOT IN ({extension})",
    ]
    lines: list[str] = []
    for query in queries:
        lines += [row[0] for row in await connection.fetch(query)]
    await connection.close()
    return sorted(lines)


def dump_schema(url: str) -> list[str]:
    """List the schema of the database at `url`."""
    if url.startswith("sqlite:///"):
        return dump_sqlite(Path(url.removeprefix("sqlite:///")))
    return asyncio.run(dump_postgresql(url))
