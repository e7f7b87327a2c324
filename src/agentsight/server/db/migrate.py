"""The schema: made in an empty database, brought up in an old one, refused where it is not ours.

An empty database is made from the snapshot beside this file, in one transaction. An older one is
migrated once, by a child process (`migrate_child.py`), so that Alembic and SQLAlchemy never weigh
on the server. Whoever comes first does the work under a lock; the others wait and find it done.
What is newer than this code, or holds tables that are not ours, is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from agentsight.server.db.errors import (
    DatabaseError,
    DatabaseMissing,
    DatabaseUnavailable,
    SchemaRefused,
)
from agentsight.server.db.interface import Database, Dialect, Tx
from agentsight.server.db.sql import split_statements, sql
from agentsight.server.db.sqlite_connection import connect, refuse_network_filesystem, translate
from agentsight.server.db.urls import DatabaseUrl

T = TypeVar("T")
log = logging.getLogger(__name__)

CURRENT_VERSION: Final = "0004"
"""The schema this code works with; a test holds it equal to the last migration."""
FOLDER: Final = Path(__file__).parent
ADVISORY_LOCK: Final = 0x6167_656E_7473_6967
"""PostgreSQL's lock for starting, one number per database: "agentsig" in ASCII."""
BUSY_TIMEOUT_S: Final = 60.0

Outcome = Literal["created", "migrated", "current"]
State = Literal["empty", "older", "current"]


@dataclass(frozen=True, slots=True)
class History:
    """The schema's past and present.

    Attributes:
        versions: All versions, the oldest first.
        migrations: Alembic's folder.
        snapshots: The folder of `schema.<dialect>.sql`.
    """

    versions: tuple[str, ...]
    migrations: Path
    snapshots: Path

    @classmethod
    def read(cls, migrations: Path, snapshots: Path) -> History:
        """Take the versions from the names of the migrations (`v0001_initial.py`)."""
        names = sorted(path.name for path in (migrations / "versions").glob("v*.py"))
        found = [match[1] for name in names if (match := re.match(r"v(\d{4})_\w+\.py$", name))]
        return cls(tuple(found), migrations, snapshots)

    def script(self, dialect: Dialect) -> str:
        """Return the script that an empty database is made with."""
        return (self.snapshots / f"schema.{dialect}.sql").read_text(encoding="utf-8")


@functools.cache
def own_history() -> History:
    """Return the history that comes with this package."""
    return History.read(FOLDER / "migrations", FOLDER)


# --- The whole story ------------------------------------------------------------------------------


def ensure_schema(
    url: str, *, create: bool = True, migrate: bool = True, history: History | None = None
) -> Outcome:
    """See to it that the database has the schema of this code.

    Promises: whatever happens, the schema is the old one or the new one; of many processes started
    together one does the work, once. Blocks (call it before the event loop, or in a thread).

    Args:
        create: Make the database (SQLite: the file) or its tables where there are none.
        migrate: Bring an older schema up; False is `serve --no-migrate`.
        history: For tests; by default the package's own.

    Returns:
        What was done.

    Raises:
        DatabaseMissing: There is no database or no table in it, and `create` is False.
        SchemaRefused: Older (and `migrate` is False), newer, or not ours.
        DatabaseUnavailable: It does not answer.
    """
    where = DatabaseUrl.parse(url)
    past = history or own_history()
    plan = _Plan(where, past, create=create, migrate=migrate)
    if where.path is not None:
        return _ensure_sqlite(where.path, plan)
    return _run_async(lambda: _ensure_postgresql(plan))


def check_schema(url: str) -> None:
    """Refuse a database whose schema is not exactly ours; change nothing.

    Raises: as `ensure_schema`.
    """
    ensure_schema(url, create=False, migrate=False)


async def schema_version(db: Database) -> str | None:
    """Return the version of an open database's schema, or None where it has none."""

    async def query(tx: Tx) -> str | None:
        if not await tx.value(_HAS_VERSION):
            return None
        return await tx.value(_VERSION)

    return await db.read(query)


_HAS_VERSION: Final = sql(
    "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
    " AND tablename = 'alembic_version'",
    sqlite="SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'",
)
_VERSION: Final = sql("SELECT version_num FROM alembic_version")


@dataclass(frozen=True, slots=True)
class _Plan:
    url: DatabaseUrl
    history: History
    create: bool
    migrate: bool

    def judge(self, tables: set[str], versions: list[str]) -> State:
        """Decide what a database with these tables and this version is, or refuse it."""
        shown, ours = self.url.describe(), self.history.versions
        if not tables:
            if self.create:
                return "empty"
            raise DatabaseMissing(
                f"{shown} is empty: `agentsight serve` or `agentsight migrate` makes its tables"
            )
        if len(versions) != 1:
            raise SchemaRefused(
                f"{shown} holds tables ({', '.join(sorted(tables)[:5])} …) but no version of ours:"
                " give AgentSight a database of its own"
            )
        if versions[0] == ours[-1]:
            return "current"
        if versions[0] not in ours:
            raise SchemaRefused(
                f"{shown} has schema {versions[0]}, which this version of AgentSight does not know"
                f" (its own is {ours[-1]}): it was made by a newer one; upgrade this one"
            )
        if not self.migrate:
            raise SchemaRefused(
                f"{shown} has schema {versions[0]}, and {ours[-1]} is needed: run"
                " `agentsight migrate`, or start without --no-migrate"
            )
        return "older"


def _migrate_in_child(plan: _Plan, pass_fds: tuple[int, ...] = ()) -> None:
    """Run Alembic in a process of its own: 277 ms and 22 MB that the server never carries."""
    log.info("migrating %s to schema %s", plan.url.describe(), plan.history.versions[-1])
    # By standard input: the address may hold a password, and arguments can be read by all.
    order = json.dumps({"url": plan.url.text, "migrations": str(plan.history.migrations)})
    environ = dict(os.environ)
    if plan.url.path is not None:
        # Where SQLite may write a copy of the file: there is room beside it, not always in /tmp.
        environ.setdefault("SQLITE_TMPDIR", str(plan.url.path.absolute().parent))
    done = subprocess.run(
        [sys.executable, "-m", "agentsight.server.db.migrate_child"],
        input=order, text=True, capture_output=True, check=False, pass_fds=pass_fds, env=environ,
    )  # fmt: skip
    for note in done.stdout.splitlines():
        log.warning("%s", note)
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise SchemaRefused(
            f"migrating {plan.url.describe()} to schema {plan.history.versions[-1]} failed, and"
            f" nothing was changed: {reason}"
        )


# --- SQLite ---------------------------------------------------------------------------------------


def _ensure_sqlite(path: Path, plan: _Plan) -> Outcome:
    refuse_network_filesystem(path)
    # Most starts find nothing to do, and should not need a lock for that.
    if path.exists() and _judge_sqlite(path, plan) == "current":
        return "current"
    if not path.exists() and not plan.create:
        raise DatabaseMissing(
            f"there is no database at {path}: `agentsight serve` or `agentsight migrate` makes one"
        )
    with _file_lock(path) as lock:
        state = _judge_sqlite(path, plan)
        if state == "current":
            return "current"
        if state == "empty":
            _create_sqlite(path, plan.history.script("sqlite"))
            return "created"
        # The child holds the lock too: it stays locked even if we are killed.
        _migrate_in_child(plan, pass_fds=(lock,))
        return "migrated"


def _judge_sqlite(path: Path, plan: _Plan) -> State:
    if not path.exists():
        return plan.judge(set(), [])
    connection = connect(path, create=False, read_only=True, busy_timeout_s=BUSY_TIMEOUT_S)
    try:
        tables = {
            str(name)
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
            )
        }
        versions: list[str] = []
        if "alembic_version" in tables:
            versions = [
                str(version) for (version,) in connection.execute("SELECT * FROM alembic_version")
            ]
    except sqlite3.Error as exc:
        raise translate(exc, path) from exc
    finally:
        connection.close()
    return plan.judge(tables, versions)


def _create_sqlite(path: Path, script: str) -> None:
    connection = connect(path, create=True, read_only=False, busy_timeout_s=BUSY_TIMEOUT_S)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for statement in sqlite_statements(script):
            connection.execute(statement)
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        raise translate(exc, path) from exc
    finally:
        connection.close()


def sqlite_statements(script: str) -> Iterator[str]:
    """Cut a script into statements; a trigger's body holds semicolons of its own."""
    pending = ""
    for piece in split_statements(script):
        pending += piece + ";"
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending:
        raise ValueError(f"a statement has no end: {pending}")


@contextlib.contextmanager
def _file_lock(path: Path) -> Generator[int]:
    """Hold a lock beside the database. Its file stays: removing it would let two in at once."""
    import fcntl  # POSIX only, as the server is

    try:
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as exc:
        raise DatabaseUnavailable(f"cannot lock {path}: {exc.strerror}") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


# --- PostgreSQL -----------------------------------------------------------------------------------


async def _ensure_postgresql(plan: _Plan) -> Outcome:
    async with _postgresql(plan) as connection:
        if await _judge_postgresql(connection, plan) == "current":
            return "current"
        await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
        state = await _judge_postgresql(connection, plan)
        if state == "empty":
            # A simple query is one transaction; an error undoes all of it.
            await connection.execute(plan.history.script("postgresql"))
            return "created"
        if state == "older":
            await asyncio.to_thread(_migrate_in_child, plan)
            return "migrated"
        return "current"


@contextlib.asynccontextmanager
async def _postgresql(plan: _Plan) -> AsyncGenerator[Any]:
    """Lend a connection; closing it gives back the lock it holds."""
    from agentsight.server.db import postgresql_connection as postgresql

    connection = await postgresql.connect(plan.url)
    try:
        yield connection
    except DatabaseError:
        raise
    except Exception as exc:
        if postgresql.lacks_privilege(exc):
            raise SchemaRefused(
                f"{plan.url.describe()}: {exc}: let its role own the database"
            ) from exc
        raise postgresql.translate(exc) from exc
    finally:
        await connection.close()


async def _judge_postgresql(connection: Any, plan: _Plan) -> State:
    rows = await connection.fetch(
        # Tables and views that came with an extension are not anybody's data.
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT EXISTS (SELECT 1 FROM pg_depend d"
        " WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')"
    )
    tables = {str(row[0]) for row in rows}
    versions: list[str] = []
    if "alembic_version" in tables:
        found = await connection.fetch("SELECT version_num FROM alembic_version")
        versions = [str(row[0]) for row in found]
    return plan.judge(tables, versions)


def _run_async(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end, also where a loop is running already (in a thread then)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(asyncio.run(work()))
        except BaseException as exc:  # noqa: BLE001 - handed to the caller below
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return answers[0]
