"""The schema's promises: made once, migrated once, whole or not at all, strangers left alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from agentsight.server.db import DatabaseMissing, DatabaseUnavailable, SchemaRefused, open_database
from agentsight.server.db.migrate import (
    CURRENT_VERSION,
    FOLDER,
    History,
    check_schema,
    ensure_schema,
    own_history,
    schema_version,
    sqlite_statements,
)
from agentsight.server.db.migrate_child import rewrite_without_traces
from tests.server.db.schema_dump import dump_schema
from tests.support.postgres import PostgresServer, TestDatabases
from tests.support.raw_sql import read_rows, run_statements

pytestmark = pytest.mark.slow

ADD_COLUMN = """
from alembic import op
revision = "0005"
down_revision = "0004"
def upgrade() -> None:
    op.execute("ALTER TABLE organisations ADD COLUMN motto text")
"""
FAIL_LATE = """
from alembic import op
revision = "0005"
down_revision = "0004"
def upgrade() -> None:
    op.execute("ALTER TABLE organisations ADD COLUMN motto text")
    op.execute("INSERT INTO nowhere VALUES (1)")
"""


@pytest.fixture
def next_history(tmp_path: Path) -> History:
    """Make a future in which there is one more migration."""
    return make_history(tmp_path / "next", ADD_COLUMN)


def make_history(folder: Path, second: str) -> History:
    """Copy the package's history and add a migration; the snapshots know its column."""
    shutil.copytree(FOLDER / "migrations", folder / "migrations")
    (folder / "migrations" / "versions" / "v0005_next.py").write_text(second)
    for path in FOLDER.glob("schema.*.sql"):
        text = path.read_text().replace("VALUES ('0004')", "VALUES ('0005')")
        text += "\nALTER TABLE organisations ADD COLUMN motto text;\n"
        (folder / path.name).write_text(text)
    return History.read(folder / "migrations", folder)


def test_the_current_version_is_the_last_migration() -> None:
    """The constant, the file names, Alembic's chain and both snapshots agree."""
    config = Config()
    config.set_main_option("script_location", str(own_history().migrations))
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert own_history().versions == tuple(reversed(chain))
    assert own_history().versions[-1] == CURRENT_VERSION
    for dialect in ("sqlite", "postgresql"):
        assert f"alembic_version (version_num) VALUES ('{CURRENT_VERSION}')" in (
            own_history().script(dialect)
        )


def test_the_snapshot_equals_all_migrations(
    database_url: str, empty_database_url: str, tmp_path: Path
) -> None:
    """A database made from the snapshot and one that ran every migration are the same."""
    if empty_database_url.startswith("sqlite"):
        Path(empty_database_url.removeprefix("sqlite:///")).touch()
    order = json.dumps({"url": empty_database_url, "migrations": str(own_history().migrations)})
    done = subprocess.run(
        [sys.executable, "-m", "agentsight.server.db.migrate_child"],
        input=order, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert dump_schema(empty_database_url) == dump_schema(database_url), (
        "before the first release: a migration"
    )


@pytest.mark.anyio
async def test_an_empty_database_is_made_once(empty_database_url: str) -> None:
    """The first call makes the tables, the second finds them."""
    assert ensure_schema(empty_database_url) == "created"
    assert ensure_schema(empty_database_url) == "current"
    check_schema(empty_database_url)
    async with await open_database(empty_database_url) as db:
        assert await schema_version(db) == CURRENT_VERSION


@pytest.mark.anyio
async def test_a_database_without_tables_has_no_version(
    empty_database_url: str, dialect: str
) -> None:
    """Asking is allowed before there is a schema."""
    async with await open_database(empty_database_url, create=True) as db:
        assert db.dialect == dialect
        assert await schema_version(db) is None


def test_a_new_file_is_private(tmp_path: Path) -> None:
    """The SQLite file holds signing keys: nobody but its owner reads it."""
    ensure_schema(f"sqlite:///{tmp_path}/new.db")
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


def test_nothing_is_made_unless_asked_for(empty_database_url: str, tmp_path: Path) -> None:
    """Only those who say `create` make a database; the refusal names the remedy."""
    with pytest.raises(DatabaseMissing, match="agentsight serve"):
        ensure_schema(empty_database_url, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A wrong path is an error of ours, not a stack of the system's."""
    with pytest.raises(DatabaseUnavailable, match="No such file"):
        ensure_schema(f"sqlite:///{tmp_path}/no/such/folder/a.db")


def test_an_older_schema_is_migrated(
    database_url: str, next_history: History, empty_database_url: str
) -> None:
    """Its rows stay, and the result is what the newer snapshot makes."""
    add = "INSERT INTO instance_values (name, value, created_at) VALUES ('kept', 'yes', 1)"
    run_statements(database_url, [add])
    assert ensure_schema(database_url, history=next_history) == "migrated"
    assert ensure_schema(database_url, history=next_history) == "current"
    assert ensure_schema(empty_database_url, history=next_history) == "created"
    migrated, made = dump_schema(database_url), dump_schema(empty_database_url)
    assert migrated == made
    assert "version 0005" in migrated


def test_no_migrate_refuses_an_older_schema(database_url: str, next_history: History) -> None:
    """The refusal says which version is there, which is needed, and what to run."""
    with pytest.raises(SchemaRefused, match=r"0004.*0005.*agentsight migrate"):
        ensure_schema(database_url, migrate=False, history=next_history)
    check_schema(database_url)


def test_a_failing_migration_changes_nothing(database_url: str, tmp_path: Path) -> None:
    """The statements before the failing one are undone, and the reason is told."""
    before = dump_schema(database_url)
    with pytest.raises(SchemaRefused, match="nowhere"):
        ensure_schema(database_url, history=make_history(tmp_path / "bad", FAIL_LATE))
    assert dump_schema(database_url) == before


def test_a_newer_schema_is_refused(database_url: str) -> None:
    """A version this code does not know was made by a newer one."""
    run_statements(database_url, ["UPDATE alembic_version SET version_num = '9999'"])
    with pytest.raises(SchemaRefused, match=r"9999.*upgrade this one"):
        ensure_schema(database_url)


def test_a_strangers_database_is_refused(empty_database_url: str) -> None:
    """Tables that are not ours are never touched."""
    run_statements(empty_database_url, ["CREATE TABLE theirs (id integer)"])
    with pytest.raises(SchemaRefused, match=r"theirs.*database of its own"):
        ensure_schema(empty_database_url)


def test_a_role_without_rights_is_told(
    postgres_databases: TestDatabases, postgres_server: PostgresServer
) -> None:
    """Since PostgreSQL 15 only a database's owner may make tables in it."""
    url = postgres_databases.create_empty("not_owned")
    run_statements(url, ["CREATE ROLE guest LOGIN"])
    with pytest.raises(SchemaRefused, match="own the database"):
        ensure_schema(url.replace(postgres_server.user + "@", "guest@"))
    postgres_databases.drop(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Whatever the file is, it stays what it was."""
    path = tmp_path / "notes.txt"
    path.write_text("Remember the milk. " * 100)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        ensure_schema(f"sqlite:///{path}")
    assert path.read_text().startswith("Remember")


START = """
import sys
from pathlib import Path
from agentsight.server.db.migrate import History, ensure_schema
url, folder = sys.argv[1:]
folder = Path(folder)
print("ready", flush=True)
sys.stdin.readline()
print(ensure_schema(url, history=History.read(folder / "migrations", folder)))
"""


def start_together(url: str, folder: Path, n_processes: int) -> list[str]:
    """Let processes ensure the schema at the same moment, and return what each has done."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START, url, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(n_processes)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0].strip() for process in processes]


def test_ten_processes_make_the_schema_once(empty_database_url: str) -> None:
    """One creates, nine find it done."""
    outcomes = start_together(empty_database_url, FOLDER, 10)
    assert sorted(outcomes) == ["created", *["current"] * 9]


def test_ten_processes_migrate_once(database_url: str, next_history: History) -> None:
    """One migrates, nine find it done."""
    outcomes = start_together(database_url, next_history.snapshots, 10)
    assert sorted(outcomes) == [*["current"] * 9, "migrated"]


def test_only_the_child_imports_alembic(tmp_path: Path) -> None:
    """The server never carries the weight of Alembic and SQLAlchemy."""
    code = (
        "import sys; from agentsight.server.db.migrate import ensure_schema;"
        f"ensure_schema('sqlite:///{tmp_path}/a.db');"
        "print([m for m in ('alembic', 'sqlalchemy', 'asyncpg') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_trigger_is_one_statement() -> None:
    """The semicolons inside a trigger's body do not end it."""
    script = (
        "CREATE TABLE a (x);"
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; SELECT 1; END; SELECT 2;"
    )
    connection = sqlite3.connect(":memory:")
    statements = list(sqlite_statements(script))
    for statement in statements:
        connection.execute(statement)
    connection.close()
    assert len(statements) == 3


def test_rows_of_the_first_schema_are_completed(empty_database_url: str, tmp_path: Path) -> None:
    """From 0001 on, names are folded, stored bytes are counted and wait to be examined."""
    make_first_schema(empty_database_url, tmp_path / "first")
    run_statements(empty_database_url, FIRST_ROWS)
    assert ensure_schema(empty_database_url) == "migrated"
    assert read_rows(empty_database_url, "SELECT filename_folded FROM attachments ORDER BY id") == [
        ("Straße.PDF".casefold(),),
        ("b.txt",),
    ]
    assert read_rows(empty_database_url, "SELECT agent_id, blob_id, kind FROM blob_jobs") == [
        (1, 1, "examine")
    ]
    counts = "SELECT n_blobs, stored_bytes, n_attachments, referenced_bytes FROM storage_counts"
    assert read_rows(empty_database_url, counts) == [(1, 7, 2, 14)]


SECRET = "sécret-of-the-first-version"


def with_traces(folder: Path) -> Path:
    """Make a file as a first server left it: texts that it indexed and deleted in free pages."""
    path = folder / "old.db"
    make_first_schema(f"sqlite:///{path}", folder / "first")
    connection = sqlite3.connect(path)
    # SQLite's own default; Debian's build has another one.
    connection.execute("PRAGMA secure_delete = OFF").fetchall()
    for first, text in ((1, f"{SECRET} 1"), (1001, f"{SECRET} 2" * 2_000), (2001, "kept")):
        connection.executemany(
            "INSERT INTO search_queue (agent_id, message_id, content_folded) VALUES (1, ?, ?)",
            [(n, text) for n in range(first, first + 200)],
        )
        connection.commit()
        connection.execute("DELETE FROM search_queue WHERE content_folded <> 'kept'")
        connection.commit()
    connection.close()
    assert SECRET.encode() in path.read_bytes()
    return path


def test_texts_that_the_first_version_deleted_leave_the_file(tmp_path: Path) -> None:
    """It did not overwrite what it deleted; whoever migrates rewrites the file once."""
    path = with_traces(tmp_path)
    size = path.stat().st_size
    assert ensure_schema(f"sqlite:///{path}") == "migrated"
    for file in tmp_path.glob("old.db*"):
        assert SECRET.encode() not in file.read_bytes(), file
    assert path.stat().st_size < size / 2
    assert read_rows(f"sqlite:///{path}", "SELECT count(*) FROM search_queue") == [(200,)]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_too_little_disk_to_rewrite_is_told(tmp_path: Path) -> None:
    """The file stays as it is, and the sentence names what is missing and the remedy."""
    path = with_traces(tmp_path)
    note = rewrite_without_traces(path, free_bytes=1000)
    assert note is not None
    assert "1000 are free" in note
    assert f"sqlite3 {path} VACUUM" in note
    assert SECRET.encode() in path.read_bytes()
    assert rewrite_without_traces(path, free_bytes=2**40) is None
    assert SECRET.encode() not in path.read_bytes()


def test_a_reader_who_delays_the_rewriting_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The migration goes on; the log has the sentence."""
    path = with_traces(tmp_path)
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("PRAGMA journal_mode = WAL").fetchall()
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM search_queue").fetchone()
    assert ensure_schema(f"sqlite:///{path}") == "migrated"
    reader.close()
    assert "sqlite3" in caplog.text
    assert "another process is reading it" in caplog.text


def test_a_file_of_this_schema_is_not_rewritten(tmp_path: Path) -> None:
    """It overwrites what it deletes by itself."""
    path = tmp_path / "new.db"
    ensure_schema(f"sqlite:///{path}")
    assert rewrite_without_traces(path, free_bytes=0) is None


def make_first_schema(url: str, folder: Path) -> None:
    """Make a database as the first version did."""
    shutil.copytree(FOLDER / "migrations", folder)
    for path in (folder / "versions").glob("v*"):
        if path.is_file() and not path.name.startswith("v0001"):
            path.unlink()
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    order = json.dumps({"url": url, "migrations": str(folder)})
    subprocess.run(
        [sys.executable, "-m", "agentsight.server.db.migrate_child"],
        input=order, text=True, check=True,
    )  # fmt: skip


FIRST_ROWS = [
    "INSERT INTO organisations (id, uid, slug, name, created_at, updated_at)"
    " VALUES (1, 'o', 'o', 'O', 1, 1)",
    "INSERT INTO clients (id, uid, organisation_id, slug, name, created_at, updated_at)"
    " VALUES (1, 'c', 1, 'c', 'C', 1, 1)",
    "INSERT INTO agents (id, uid, organisation_id, client_id, slug, name, created_at, updated_at)"
    " VALUES (1, 'a', 1, 1, 'a', 'A', 1, 1)",
    "INSERT INTO environments (id, agent_id, slug, name, is_production, created_at, updated_at)"
    " VALUES (1, 1, 'production', 'Production', 1, 1, 1)",
    "INSERT INTO conversations (id, agent_id, uid, conversation_id, environment_id, started_at,"
    " created_at, updated_at) VALUES (1, 1, 'v', 'conv', 1, 1, 1, 1)",
    "INSERT INTO messages (id, agent_id, conversation_id, uid, kind, sender, content, timestamp,"
    " created_at, updated_at) VALUES (1, 1, 1, 'm', 'attachments', 'agent', '', 1, 1, 1)",
    "INSERT INTO blobs (id, agent_id, uid, object_key, sha256, size_bytes, state, created_at,"
    " updated_at) VALUES (1, 1, 'b', 'blobs/1/aa/b', 'ff', 7, 'stored', 1, 1)",
    *(
        "INSERT INTO attachments (id, agent_id, conversation_id, message_id, blob_id, uid, type,"
        " filename, mime_type, sender, sent_at, size_bytes, sha256, created_at, updated_at) VALUES"
        f" ({n}, 1, 1, 1, 1, 'u{n}', 'text', '{name}', 'text/plain', 'agent', 1, 7, 'ff', 1, 1)"
        for n, name in ((1, "Straße.PDF"), (2, "b.txt"))
    ),
]
