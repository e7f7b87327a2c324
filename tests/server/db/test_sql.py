"""The rewriting of SQL: only code is touched, and every argument stays in its place."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.db.sql import Sql, split_statements, sql, tokenize


def run(statement: Sql, *args: object) -> list[tuple[object, ...]]:
    """Run SQLite's text as the driver does."""
    connection = sqlite3.connect(":memory:")
    fitted = [json.dumps(a) if i in statement.array_params else a for i, a in enumerate(args)]
    try:
        return connection.execute(statement.sqlite, fitted[: statement.n_sqlite_params]).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT $1, $2", "SELECT ?1, ?2"),
        ("SELECT $2, $1", "SELECT ?2, ?1"),
        ("SELECT $1::text", "SELECT ?1"),
        ("SELECT $1 :: double precision, 2", "SELECT ?1 , 2"),
        ("SELECT $1::numeric(9, 2) AS n", "SELECT ?1 AS n"),
        ("SELECT $1::character varying(3)", "SELECT ?1"),
        ("SELECT $1::pg_catalog.int8", "SELECT ?1"),
        ("SELECT '{}'::jsonb", "SELECT '{}'"),
        ("SELECT a FROM t WHERE a = ANY($1::bigint[])",
         "SELECT a FROM t WHERE a IN (SELECT value FROM json_each(?1))"),
        ("SELECT a FROM t WHERE a=any ( $1 :: text [ ] )",
         "SELECT a FROM t WHERE a IN (SELECT value FROM json_each(?1))"),
        ("SELECT a FROM t WHERE a <> ALL($1::text[])",
         "SELECT a FROM t WHERE a NOT IN (SELECT value FROM json_each(?1))"),
        ("SELECT 1 FROM t FOR UPDATE", "SELECT 1 FROM t "),
        ("SELECT 1 FROM t FOR SHARE SKIP LOCKED", "SELECT 1 FROM t "),
        ("SELECT 1 FROM t x FOR NO KEY UPDATE OF x NOWAIT", "SELECT 1 FROM t x "),
        ("SELECT '$1 it''s ::text' FROM t", "SELECT '$1 it''s ::text' FROM t"),
        ('SELECT "a$1" -- $2 ::x\n FROM t /* = ANY($1) */',
         'SELECT "a$1" -- $2 ::x\n FROM t /* = ANY($1) */'),
        ("SELECT $q$it's $1$q$, $$x$$", "SELECT 'it''s $1', 'x'"),
        ("SELECT a$1 FROM t", "SELECT a$1 FROM t"),
    ],
)  # fmt: skip
def test_each_rule_of_the_table(text: str, expected: str) -> None:
    """What the module's table promises."""
    assert sql(text).sqlite == expected
    assert sql(text).postgresql == text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a ? 'b' FROM t",
        "SELECT ?1",
        "SELECT a @> b FROM t",
        "SELECT :name",
        r"SELECT E'a\'b'",
        "SELECT U&'x'",
        "SELECT 1 /* a /* b */ c */",
        "SELECT $1, $3",
        "SELECT 'no end",
        'SELECT "no end',
        "SELECT 1 /* no end",
        "SELECT $a$ no end",
        "SELECT $1::",
    ],
)
def test_what_sqlite_would_read_differently_is_refused(text: str) -> None:
    """Better an error at import than other rows on one of the databases."""
    with pytest.raises(ValueError, match="SELECT"):
        sql(text)


def test_sqlite_may_have_a_text_of_its_own() -> None:
    """It takes the same arguments in the same places, and may leave the last ones out."""
    statement = sql(
        "SELECT x FROM unnest($1::bigint[]) x WHERE x > $2 AND $3::text ? 'a'",
        sqlite="SELECT value FROM json_each(?1) WHERE value > $2",
    )
    assert statement.array_params == (0,)
    assert (statement.n_params, statement.n_sqlite_params) == (3, 2)
    assert run(statement, [1, 2, 3], 1, "x") == [(2,), (3,)]
    with pytest.raises(ValueError, match="more parameters"):
        sql("SELECT $1", sqlite="SELECT $1, $2")


def test_equal_texts_are_rewritten_once() -> None:
    """Texts built at run time (filters) cost a look into a dictionary."""
    assert sql("SELECT " + "1") is sql("SELECT 1")


# --- Properties -----------------------------------------------------------------------------------

ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30
) | st.sampled_from(["$1", "$$", "::text", "--", "/*", "*/", "'", '"', "= ANY($1)", "?", ";"])


def quoted(text: str) -> str:
    """Write a string literal."""
    return "'" + text.replace("'", "''") + "'"


def without_comment_marks(text: str) -> str:
    """Make a text that can stand inside a block comment."""
    return text.replace("*", "x").replace("/", "x")


@given(st.permutations(range(1, 8)), st.data())
def test_arguments_never_swap(order: list[int], data: st.DataObject) -> None:
    """Whatever stands between them and however often, `$n` gets the nth argument."""
    columns: list[str] = []
    expected: list[object] = []
    for number in [*order, *data.draw(st.lists(st.sampled_from(order), max_size=5))]:
        between = data.draw(ANY_TEXT)
        cast = data.draw(st.sampled_from(["", "::bigint", " ::numeric(9, 2)", "::text"]))
        columns += [quoted(between), f"/*{without_comment_marks(between)}*/ ${number}{cast} "]
        expected += [between, f"argument {number}"]
    statement = sql("SELECT " + ", ".join(columns))
    assert run(statement, *(f"argument {n}" for n in range(1, 8))) == [tuple(expected)]


@given(st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_text_is_never_touched(texts: list[str]) -> None:
    """What a string, a quoted name or a comment says reaches SQLite as it was."""
    strings = ", ".join(map(quoted, texts))
    names = ", ".join('"' + text.replace('"', '""') + 'x"' for text in texts)
    lines = "".join("-- " + "".join(text.splitlines()) + "\n" for text in texts)
    blocks = "".join(f"/* {without_comment_marks(text)} */" for text in texts)
    for text in (f"SELECT {strings}", f"SELECT {names}", f"SELECT 1 {lines}", f"SELECT 1 {blocks}"):
        assert sql(text).sqlite == text
    assert run(sql(f"SELECT {strings}")) == [tuple(texts)]


@given(ANY_TEXT)
def test_a_dollar_quote_says_the_same_in_sqlite(text: str) -> None:
    """SQLite does not know dollar quotes; it gets a string of the same text."""
    body = text.replace("$", "S")
    assert run(sql(f"SELECT $tag${body}$tag$, $1"), 7) == [(body, 7)]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), st.integers(-(2**63), 2**63 - 1))
def test_a_list_of_numbers_is_searched(numbers: list[int], wanted: int) -> None:
    """`= ANY($n::bigint[])` finds what the list holds, and nothing else."""
    statement = sql("SELECT 1 WHERE $2::bigint = ANY($1::bigint[])")
    assert bool(run(statement, numbers, wanted)) == (wanted in numbers)
    assert run(statement, [*numbers, wanted], wanted) == [(1,)]


@given(st.lists(ANY_TEXT, max_size=5), ANY_TEXT)
def test_a_list_of_texts_is_searched(texts: list[str], wanted: str) -> None:
    """`= ANY($n::text[])` finds what the list holds, and nothing else."""
    statement = sql("SELECT 1 WHERE $1::text <> ALL($2::text[])")
    assert bool(run(statement, wanted, texts)) == (wanted not in texts)


@given(st.lists(ANY_TEXT, max_size=8))
def test_tokens_are_the_text(pieces: list[str]) -> None:
    """Nothing is lost or added by the lexer, and its only complaint is a missing end."""
    text = " ".join(pieces)
    try:
        assert "".join(token.text for token in tokenize(text)) == text
    except ValueError as exc:
        assert "no end" in str(exc)


@given(st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_a_script_is_cut_only_between_statements(texts: list[str]) -> None:
    """A semicolon inside a string or comment does not cut."""
    statements = [f"SELECT {quoted(t)} /* ; {without_comment_marks(t)} */" for t in texts]
    assert split_statements(";\n ; -- ;\n".join(statements) + ";") == [
        statements[0],
        *(f"-- ;\n{statement}" for statement in statements[1:]),
    ]
