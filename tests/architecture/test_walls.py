"""The walls of the house that import contracts cannot hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import agentsight
from agentsight.server.app import ROUTES
from tests.support.routes import OPEN_ROUTES, PROBE_ROUTE, READ_BY_WRITERS, bare_path

ROOT = Path(agentsight.__file__).parent
PROJECT = Path(__file__).parents[2]
MAX_LINES = 600
_SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM)\b",
    re.IGNORECASE | re.DOTALL,
)


def sources(folder: Path = ROOT) -> Iterator[Path]:
    """Walk the Python files below a folder."""
    return (path for path in sorted(folder.rglob("*.py")))


def strings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the string constants of a module with their lines, docstrings left out."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documented:
            yield node.lineno, node.value


def test_sql_stands_in_stores_and_the_database_layer_only() -> None:
    """Every question to the database is asked in a file named store, or in `db/`."""
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources(ROOT / "server")
        if not path.name.startswith("store") and "db" not in path.relative_to(ROOT).parts
        for line, text in strings(ast.parse(path.read_text()))
        if _SQL.search(text)
    ]
    assert found == []


def test_every_api_route_has_a_guard() -> None:
    """No route answers a stranger by an oversight: it has a guard, or stands on the list here."""
    unguarded = {
        path
        for route in ROUTES
        for path in route.paths
        if not (route.guards or bare_path(path) in OPEN_ROUTES | {PROBE_ROUTE})
    }
    assert unguarded == set()


def test_guards_run_before_bodies_are_read() -> None:
    """Every write route carries the guard `writes`, every read route `reads`."""
    for route in ROUTES:
        for guard in route.guards or ():
            methods = set(route.http_methods)
            only_reads = methods <= {"GET", "HEAD"} and not (
                {bare_path(path) for path in route.paths} <= READ_BY_WRITERS
            )
            wanted = "reads" if only_reads else "writes"
            assert guard.__name__ == wanted, route.paths


def test_no_file_outgrows_six_hundred_lines() -> None:
    """A file past that holds a second thing."""
    folders = [ROOT, PROJECT / "tests", PROJECT / "benchmarks", PROJECT / "examples"]
    grown = [
        str(path)
        for folder in folders
        for path in sources(folder)
        if len(path.read_text().splitlines()) > MAX_LINES
    ]
    assert grown == []


def test_every_module_says_what_lives_in_it() -> None:
    """A newcomer reads the first line of a module and knows whether to go on."""
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_store_functions_take_an_access_after_the_transaction() -> None:
    """Every public store function asks on somebody's behalf; the exceptions say why here."""
    without_access = {
        "add_counts": "for an agent whose rows the same unit writes or removes",
        "add_job": "background work, for the agent whose blob it is",
        "add_quarantine": "the operator's, of the whole instance",
        "add_reads": "reads of many, each with whose it was, on their way into the log",
        "all_rules": "background work, for all agents",
        "begun_keys": "the store is swept for all agents",
        "ask_for_scrub": "pages and log are everybody's",
        "begin_merging": "the index is one for all agents",
        "copy_some": "background work, for the agent whose blob waits for it",
        "count_waiting": "for /metrics: a number of the whole instance, of nobody's",
        "drop_derived": "for the agent whose file a link or a key has proved",
        "drop_text": "background work, for the agent that its job names",
        "due_attachment": "background work, for all agents",
        "due_conversation": "background work, for all agents",
        "entries": "background work: a removal goes on by its receipt",
        "expire_stored": "background work, for all agents",
        "find_access": "where an access comes from",
        "find_password": "asked by who is not signed in yet; the password proves who it is",
        "find_token": "the token's 256 bits prove who it is",
        "finish_job": "background work, for the agent that its job names",
        "first_organisation": "the first start, before there is anybody",
        "forget_blob": "for an agent whose blob the same unit removes",
        "forget_expired": "background work, for all agents",
        "forget_jobs": "for an agent whose blob the same unit removes",
        "forget_none": "the operator, for the agent whose blob was read by its access",
        "forget_note": "pages and log are everybody's",
        "found_by_uid": "a link's signature is what grants it",
        "go_on_merging": "the index is one for all agents",
        "going": "background work: a removal goes on by its receipt",
        "hold_expired": "background work, for all agents",
        "in_stage": "background work, for all agents",
        "insert_derived": "for the agent whose file a link or a key has proved",
        "insert_key": "for an agent that the same unit has made or found with an access",
        "insert_organisation": "the first start, before there is anybody",
        "insert_token": "for a user that the same unit has made",
        "is_expiry_due": "background work, for all agents",
        "is_job_due": "background work, for all agents",
        "is_known_as_none": "background work, for the agent that its job names",
        "is_quarantined": "the operator's word, which counts for every agent",
        "ledgered": "a restore replays the ledger of the whole instance",
        "list_quarantine": "the operator's, of the whole instance",
        "lock": "background work: a removal goes on by its receipt",
        "hold": "background work: a removal goes on by its receipt",
        "next_marked": "background work: a removal goes on by its receipt",
        "next_to_copy": "background work, for all agents",
        "organisation_of": "background work: a removal goes on by its receipt",
        "postpone_job": "background work, for the agent that its job names",
        "put": "background work: a removal goes on by its receipt",
        "put_facts": "background work, for the agent that its job names",
        "put_text": "background work, for the agent that its job names",
        "put_text_state": "background work, for the agent that its job names",
        "put_verdict": "background work, for the agent that its job names",
        "quarantined_among": "the operator's word, which counts for every agent",
        "read_any": "background work: a removal goes on by its receipt",
        "read_facts": "background work, for the agent that its job names",
        "read_note": "pages and log are everybody's",
        "read_scannable": "background work, for the agent that its job names",
        "read_source": "background work, for the agent that its job names",
        "read_text_start": "for the agent whose file a link or a key has proved",
        "remove_quarantine": "the operator's, of the whole instance",
        "served_by_uid": "a link's signature is what grants it",
        "set_password_hash": "for the user that the token or password has proved",
        "set_stage": "pages and log are everybody's",
        "take_job": "background work, for all agents",
        "tenants": "a restore replays the ledger of the whole instance",
        "unfinished": "background work, for all agents",
        "use_token": "the token's 256 bits prove who it is",
        "waiting_scans": "for the doctor: a number of the whole instance, of nobody's",
        "walk_stored": "background work, for all agents",
    }
    found = []
    for path in sources(ROOT / "server"):
        if not path.name.startswith("store") or path.parent.name in ("doctor", "fsck", "instance"):
            continue
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            names = [argument.arg for argument in node.args.args]
            if names[:1] == ["tx"] and names[1:2] != ["access"] and node.name not in without_access:
                found.append(f"{path.parent.name}.{node.name}")
    assert found == []
