"""One connection to a SQLite file: how it is opened, what its errors mean, how a unit runs on it.

Nothing here knows of threads or event loops; `sqlite_writer.py` and `sqlite_readers.py` do.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from agentsight.server.db.errors import (
    ConstraintViolation,
    DatabaseError,
    DatabaseFull,
    DatabaseMissing,
    DatabaseUnavailable,
    DatabaseUrlError,
    QueryError,
    UniqueViolation,
    UnitSuspended,
)
from agentsight.server.db.interface import Argument, Row, Tx
from agentsight.server.db.sql import Sql

T = TypeVar("T")

MIN_SQLITE: Final = (3, 39, 0)
"""`IS NOT DISTINCT FROM` came with 3.39, `->>` with 3.38."""
CACHED_STATEMENTS: Final = 512
CACHE_KIB: Final = 8 * 1024
"""Page cache of one connection. We open up to six, and idle memory must stay under 90 MB.

Memory mapping instead was measured: 1.1 times the reads, but an I/O error becomes a SIGBUS that
ends the process, and the file counts as our memory. Refused.
"""
NETWORK_FILESYSTEMS: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "orangefs", "smb3", "smbfs", "fuse.blobfuse", "fuse.cephfs", "fuse.davfs2",
    "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.juicefs", "fuse.mount-s3",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
})  # fmt: skip
_MIN_FREE_BYTES: Final = 1024 * 1024


# --- Opening --------------------------------------------------------------------------------------


def require_sqlite() -> None:
    """Check the library that this Python brings.

    Raises:
        DatabaseUrlError: It is too old.
    """
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        wanted = ".".join(map(str, MIN_SQLITE))
        raise DatabaseUrlError(
            f"this Python has SQLite {sqlite3.sqlite_version}, and {wanted} is needed: use a newer"
            " Python, or PostgreSQL"
        )


def connect(
    path: Path, *, create: bool, read_only: bool, busy_timeout_s: float
) -> sqlite3.Connection:
    """Open a connection whose transactions are ours alone to begin and end.

    It may be used from any thread, by one at a time.

    Raises:
        DatabaseMissing: There is no such file and `create` is False.
        DatabaseUnavailable: It cannot be opened, or is no SQLite database.
    """
    if not create and not path.exists():
        raise DatabaseMissing(
            f"there is no database at {path}: `agentsight serve` or `agentsight migrate` makes one"
        )
    if create:
        _make_private(path)
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    try:
        connection = sqlite3.connect(
            uri, uri=True, timeout=busy_timeout_s, isolation_level=None,
            check_same_thread=False, cached_statements=CACHED_STATEMENTS,
        )  # fmt: skip
    except sqlite3.Error as exc:
        raise DatabaseUnavailable(f"cannot open {path}: {exc}") from exc
    try:
        _configure(connection, read_only=read_only)
    except sqlite3.Error as exc:
        connection.close()
        raise translate(exc, path) from exc
    return connection


def _make_private(path: Path) -> None:
    """Make an empty file that only its owner may read: it will hold signing keys."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return
    except OSError as exc:
        raise DatabaseUnavailable(f"cannot make {path}: {exc.strerror}") from exc


def _configure(connection: sqlite3.Connection, *, read_only: bool) -> None:
    pragmas = [
        f"cache_size = -{CACHE_KIB}",
        "temp_store = MEMORY",
        "case_sensitive_like = ON",  # as PostgreSQL's LIKE; texts that are searched are folded
    ]
    if read_only:
        pragmas.append("query_only = ON")
    else:
        pragmas += [
            "journal_mode = WAL",
            "synchronous = FULL",
            "fullfsync = ON",  # macOS: fsync alone does not reach the disk there
            "foreign_keys = ON",
            "journal_size_limit = 67108864",
            # What is deleted is overwritten with zeros: erased text must not stay in free pages.
            "secure_delete = ON",
        ]
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.create_function("fold", 1, _fold, deterministic=True)
    connection.create_function("holds", 2, _holds, deterministic=True)


def _fold(text: Any) -> Any:
    """Fold case as Python does (SQLite folds ASCII only)."""
    return text.casefold() if isinstance(text, str) else text


def _holds(text: Any, folded: Any) -> bool:
    """Say whether a text holds another that is folded: half the time of `fold(text) LIKE …`.

    What is there as it stands needs no folding, which is three quarters of the time.
    """
    return isinstance(text, str) and (folded in text or folded in text.casefold())


def refuse_network_filesystem(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Refuse a place where SQLite's locks and shared memory do not work.

    "All processes using a database must be on the same host computer; WAL does not work over a
    network filesystem" (sqlite.org/wal.html). Only Linux tells us; elsewhere nothing is refused.

    Raises:
        DatabaseUrlError: The directory is on such a file system.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return
    place = os.path.realpath(path.parent)
    best, kind = "", ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount_point = fields.split(" ")[4].encode().decode("unicode_escape")
        inside = place == mount_point or place.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= len(best):  # of equals, the last one covers the others
            best, kind = mount_point, rest.split(" ")[0]
    if kind in NETWORK_FILESYSTEMS:
        raise DatabaseUrlError(
            f"{path} is on a network file system ({kind}, mounted at {best}), where SQLite loses"
            " data: use a local disk, or PostgreSQL"
        )


# --- Errors ---------------------------------------------------------------------------------------


def translate(exc: Exception, path: Path, *, reading: bool = False) -> DatabaseError:
    """Turn an error of `sqlite3` into one of ours."""
    if isinstance(exc, DatabaseError):
        return exc
    code = getattr(exc, "sqlite_errorcode", None)
    if not isinstance(code, int):
        return QueryError(str(exc))
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return _translate_constraint(code, str(exc))
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _disk_is_full(path)):
        return DatabaseFull(f"no room left to write to {path}: {exc}")
    if primary == sqlite3.SQLITE_READONLY and reading:
        return QueryError("a read tried to write")
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return DatabaseUnavailable(f"{path} is locked by another process: {exc}")
    if primary in {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE,
                   sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISUSE}:  # fmt: skip
        return QueryError(str(exc))
    return DatabaseUnavailable(f"{path}: {exc}")


def _translate_constraint(code: int, message: str) -> ConstraintViolation:
    unique = {
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    }
    what = message.partition(": ")[2] or message
    if code not in unique:
        return ConstraintViolation(message, what)
    # "UNIQUE constraint failed: clients.organisation_id, clients.slug"
    pairs = [column.partition(".") for column in what.split(", ")]
    constraint = f"{pairs[0][0]}({', '.join(column for _, _, column in pairs)})"
    return UniqueViolation(f"a row with the same {constraint} exists", constraint)


def _disk_is_full(path: Path) -> bool:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _MIN_FREE_BYTES


def is_busy(exc: DatabaseError) -> bool:
    """Say whether the cause was another connection's lock."""
    code = getattr(exc.__cause__, "sqlite_errorcode", 0)
    return code & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


# --- Running a unit -------------------------------------------------------------------------------


class SqliteTx:
    """The `Tx` of one unit or query: every call runs at once, on the thread that awaits it."""

    __slots__ = ("_connection", "_path", "_reading", "failure")

    def __init__(self, connection: sqlite3.Connection, path: Path, *, reading: bool) -> None:
        self._connection = connection
        self._path = path
        self._reading = reading
        self.failure: DatabaseError | None = None
        """Set by the first error; from then on every call raises it again."""

    def _run(self, sql: Sql, args: Sequence[Argument], fetch: Callable[[sqlite3.Cursor], T]) -> T:
        if self.failure is not None:
            raise self.failure
        try:
            cursor = self._connection.execute(sql.sqlite, _arguments(sql, args))
            try:
                return fetch(cursor)
            finally:
                cursor.close()
        except (sqlite3.Error, OverflowError, UnicodeError, TypeError) as exc:
            self.failure = translate(exc, self._path, reading=self._reading)
            raise self.failure from exc

    async def rows(self, sql: Sql, *args: Argument) -> list[Row]:
        return self._run(sql, args, _all)

    async def row(self, sql: Sql, *args: Argument) -> Row | None:
        return self._run(sql, args, _first)

    async def value(self, sql: Sql, *args: Argument) -> Any:
        row = self._run(sql, args, _first)
        return None if row is None else row[0]

    async def execute(self, sql: Sql, *args: Argument) -> int:
        return self._run(sql, args, _touched)

    async def execute_many(self, sql: Sql, rows: Sequence[Sequence[Argument]]) -> None:
        for args in rows:
            self._run(sql, args, _touched)


def _arguments(sql: Sql, args: Sequence[Argument]) -> Sequence[Argument]:
    """Fit the arguments to SQLite's text: lists as JSON, those it does not take left out."""
    if len(args) != sql.n_params:
        raise TypeError(f"{sql.n_params} arguments wanted, {len(args)} given: {sql.postgresql}")
    if not sql.array_params:
        return args if sql.n_sqlite_params == sql.n_params else args[: sql.n_sqlite_params]
    fitted = list(args)
    for place in sql.array_params:
        if fitted[place] is not None:
            fitted[place] = json.dumps(fitted[place])
    return fitted[: sql.n_sqlite_params]


def _all(cursor: sqlite3.Cursor) -> list[Row]:
    return cursor.fetchall()


def _first(cursor: sqlite3.Cursor) -> Row | None:
    return cursor.fetchone()


def _touched(cursor: sqlite3.Cursor) -> int:
    rows = cursor.fetchall()  # a RETURNING is done when its rows are read
    return max(cursor.rowcount, len(rows))


def run_to_end(unit: Callable[[Tx], Coroutine[Any, Any, T]], tx: SqliteTx) -> T:
    """Drive a unit by hand, and make its `tx` useless afterwards.

    Raises:
        UnitSuspended: It awaited something that was not done at once.
        DatabaseError: A statement failed, also when the unit swallowed the error.
    """
    coroutine = unit(tx)
    try:
        coroutine.send(None)
    except StopIteration as stop:
        if tx.failure is not None:
            raise tx.failure from None
        return stop.value
    else:
        where = _describe(coroutine)
        coroutine.close()
        raise UnitSuspended(f"{where} awaited something else than its tx")
    finally:
        if tx.failure is None:
            tx.failure = QueryError("this tx has ended: it was used after its unit returned")


def _describe(coroutine: Coroutine[Any, Any, Any]) -> str:
    """Name a coroutine and the line it stands on."""
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    frame = getattr(coroutine, "cr_frame", None)
    return f"{name} (line {frame.f_lineno} of {frame.f_code.co_filename})" if frame else name
