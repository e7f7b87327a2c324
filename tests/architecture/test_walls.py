"""The walls of the house that import contracts cannot hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import agentsight
from agentsight.server.app import ROUTES
from tests.support.routes import OPEN_ROUTES, PROBE_ROUTE, bare_path

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
            wanted = "reads" if methods <= {"GET", "HEAD"} else "writes"
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
        "find_access": "where an access comes from",
        "find_password": "asked by who is not signed in yet; the password proves who it is",
        "find_token": "the token's 256 bits prove who it is",
        "first_organisation": "the first start, before there is anybody",
        "insert_key": "for an agent that the same unit has made or found with an access",
        "insert_organisation": "the first start, before there is anybody",
        "insert_token": "for a user that the same unit has made",
        "served_by_uid": "a link's signature is what grants it",
        "set_password_hash": "for the user that the token or password has proved",
        "use_token": "the token's 256 bits prove who it is",
    }
    found = []
    for path in sources(ROOT / "server"):
        if not path.name.startswith("store") or path.parent.name in ("doctor", "instance"):
            continue
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            names = [argument.arg for argument in node.args.args]
            if names[:1] == ["tx"] and names[1:2] != ["access"] and node.name not in without_access:
                found.append(f"{path.parent.name}.{node.name}")
    assert found == []
