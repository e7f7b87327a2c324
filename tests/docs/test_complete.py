"""Nothing that a user can name is missing from `docs/`, and nothing there leads nowhere."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from tools.generate_docs import public_api

import agentsight
import agentsight.server.db as db_package
from agentsight._contract import ERROR_CODES
from agentsight.server.app import ROUTES
from agentsight.server.settings import describe_settings
from tests.docs.pages import DOCS, ROOT, all_pages, prose_of

SCHEMAS = Path(db_package.__file__).parent
_LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_PATH = re.compile(r"`((?:tests|src|docs|tools|benchmarks|examples)/[A-Za-z0-9_./-]*)`")


def read(page: str) -> str:
    """Return a page of `docs/`."""
    return (DOCS / page).read_text(encoding="utf-8")


def named_in(text: str) -> set[str]:
    """Return what stands in backticks in a text."""
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_setting_is_described() -> None:
    """An operator finds each variable, and what it is without being set."""
    text = read("settings.md")
    missing = [row.variable for row in describe_settings() if f"| `{row.variable}` |" not in text]
    assert missing == []


def test_every_setting_of_the_sdk_is_described() -> None:
    """A developer finds each variable that the SDK reads."""
    source = (ROOT / "src" / "agentsight" / "config.py").read_text(encoding="utf-8")
    variables = set(re.findall(r"\"(AGENTSIGHT_[A-Z_]+)\"", source))
    assert variables
    assert variables - named_in(read("settings.md")) == set()


def test_every_route_is_described() -> None:
    """Each method of each path has its section; what is no API for others is named in words."""
    text = read("http-api.md")
    missing = []
    for route in ROUTES:
        methods = sorted(set(route.http_methods) - {"HEAD", "OPTIONS"})
        for path in route.paths:
            shown = re.sub(r":[a-z]+}", "}", path)
            shown = f"{shown}/" if shown.startswith(("/api/", "/sdk")) else shown
            if route.include_in_schema is False:
                missing += [shown] if shown.removesuffix("/") not in hidden_paths(text) else []
            else:
                missing += [f"{m} {shown}" for m in methods if f"#### {m} {shown}\n" not in text]
    assert missing == []


def hidden_paths(text: str) -> set[str]:
    """Return the paths in the table of what is not in the OpenAPI description."""
    table = text.partition("## Beside the API")[2].partition("\n## ")[0]
    return {name.removesuffix("/") for name in named_in(table)}


def test_every_error_code_is_described() -> None:
    """Whoever meets a code finds what it says."""
    text = read("http-api.md")
    assert [code for code in ERROR_CODES if f"| `{code}` |" not in text] == []


def tables_of_sqlite() -> dict[str, set[str]]:
    """Return the columns of each table of the SQLite schema."""
    connection = sqlite3.connect(":memory:")
    connection.executescript((SCHEMAS / "schema.sqlite.sql").read_text(encoding="utf-8"))
    rows = connection.execute(
        "SELECT t.name, c.name FROM pragma_table_list t, pragma_table_info(t.name) c"
        " WHERE t.schema = 'main' AND t.type IN ('table', 'virtual')"
        " AND t.name NOT LIKE 'sqlite~_%' ESCAPE '~'"
    ).fetchall()
    connection.close()
    tables: dict[str, set[str]] = {}
    for table, column in rows:
        tables.setdefault(table, set()).add(column)
    return tables


def tables_of_postgresql() -> dict[str, set[str]]:
    """Return the columns of each table of the PostgreSQL schema."""
    text = (SCHEMAS / "schema.postgresql.sql").read_text(encoding="utf-8")
    kinds = "bigint|text|smallint|jsonb|double|varchar|integer"
    column = re.compile(rf"^    ([a-z0-9_]+) (?:{kinds})\b", re.MULTILINE | re.IGNORECASE)
    return {
        table: set(column.findall(body))
        for table, body in re.findall(r"CREATE TABLE (\w+) \((.*?)^\)", text, re.M | re.S)
    }


@pytest.mark.parametrize("tables", [tables_of_sqlite(), tables_of_postgresql()], ids=["s", "p"])
def test_every_table_and_column_is_described(tables: dict[str, set[str]]) -> None:
    """The section of each table names each of its columns, and no table is there that is not."""
    assert len(tables) > 15
    parts = re.split(r"^### `(\w+)`$", read("data-model.md"), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    only_sqlite = {"filename_search"}  # PostgreSQL has an index in its place
    assert set(sections) == set(tables) | only_sqlite
    missing = {
        table: columns - named_in(re.sub(r"^## .*", "", sections[table], flags=re.M | re.S))
        for table, columns in tables.items()
    }
    assert {table: columns for table, columns in missing.items() if columns} == {}


def test_every_public_name_of_the_sdk_is_described() -> None:
    """Each class, method, function, exception and enum stands on the SDK's page."""
    text = read("sdk.md")
    names = {
        name
        for module in public_api().values()
        for public, members in module.items()
        for name in [public, *(members if isinstance(members, dict) else ())]
    } - {"bases"}
    assert set(agentsight.__all__) <= names
    assert [name for name in sorted(names) if not re.search(rf"`{name}\b", text)] == []


def test_every_decision_is_listed_and_has_its_four_parts() -> None:
    """A record says question, answer, reasons, and when to ask again."""
    index = read("decisions/README.md")
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        text = page.read_text(encoding="utf-8")
        assert f"({page.name})" in index
        assert text.startswith(f"# {int(page.name[:4])}. ")
        for part in ("**Answer.**", "**Reasons.**", "**Ask again**"):
            assert part in text, (page.name, part)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a page's headings get, as GitHub makes them."""
    headings = _HEADING.findall(prose_of(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_within_the_repository_leads_somewhere() -> None:
    """No relative link of any page is broken, nor its anchor."""
    broken = []
    for page in all_pages():
        for link in _LINK.findall(prose_of(page)):
            if "://" in link or link.startswith("mailto:"):
                continue
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            is_there = target.exists() and target.is_relative_to(ROOT)
            if not is_there or (anchor and anchor not in anchors_of(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert broken == []


def test_every_file_that_a_page_names_is_there() -> None:
    """A page that sends the reader to a test or a source sends them to one that exists."""
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in all_pages()
        for name in _PATH.findall(prose_of(page))
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_no_page_names_a_registry_or_a_place_on_one_machine() -> None:
    """What is written here is true on everybody's machine."""
    # In pieces, so that this file itself may be searched for them.
    places = ("/" + "work/", "/" + "root/", "/" + "tmp/", "/" + "home/")
    hosts = ("pypi." + "org", "pythonhosted" + ".org", "index" + "-url")
    found = [
        f"{page.relative_to(ROOT)}: {word}"
        for page in all_pages()
        for word in (*places, *hosts)
        if re.search(rf"(?<!\w){re.escape(word)}", page.read_text(encoding="utf-8"))
    ]
    assert found == []
