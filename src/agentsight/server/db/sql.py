"""SQL is written once, in PostgreSQL's words; here it becomes SQLite's as well.

SQLite takes a bare `$1` as a *name* and numbers names by first appearance, so that arguments would
swap in silence; `?1` is a number. A lexer (strings, quoted names, dollar quotes, comments) makes
sure that only code is rewritten, never text.

| written                          | for SQLite                                    |
|----------------------------------|-----------------------------------------------|
| `$1`                             | `?1`                                          |
| `$1::bigint`, `x::numeric(9, 2)` | the cast is dropped                           |
| `= ANY($1::bigint[])`            | `IN (SELECT value FROM json_each(?1))`        |
| `<> ALL($1::text[])`             | `NOT IN (SELECT value FROM json_each(?1))`    |
| `FOR UPDATE …`, `FOR SHARE …`    | dropped: a unit has the database to itself    |
| `$tag$it's$tag$`                 | `'it''s'`                                     |

A cast may only say what a value already is: where it would change one (`'7'::bigint`, `a::float8 /
b`), give SQLite a text of its own. What SQLite would read differently (`?`, `@`, `:name`, `E'…'`,
nested comments) is refused when the text is first seen, which for module constants is at import.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Kind = Literal["space", "comment", "string", "quoted", "name", "param", "numbered", "number", "op"]


class Token(NamedTuple):
    """A piece of SQL; joined again, the pieces are the text."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Sql:
    """One statement for both databases; made by `sql()`.

    Attributes:
        postgresql: The text as it was written.
        sqlite: The text for SQLite, with `?n`.
        n_params: How many arguments it takes.
        n_sqlite_params: How many of them (the first ones) SQLite's text takes.
        array_params: Positions (from 0) of the arguments that are lists.
    """

    postgresql: str
    sqlite: str
    n_params: int
    n_sqlite_params: int
    array_params: tuple[int, ...]


# What is not ASCII is named by what it is not: a range up to U+10FFFF takes 10 ms to compile.
_NAME: Final = r"(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_$]|[^\x00-\x7f])*"
_TOKEN: Final = re.compile(
    rf"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*|/\*)
    | (?P<string>'(?:[^']|'')*')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_]|[^\x00-\x7f])*)?\$)
    | (?P<param>\$[0-9]+)
    | (?P<numbered>\?[0-9]+)
    | (?P<name>{_NAME})
    | (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<op>::|->>|->|<=|>=|<>|!=|\|\||.)
    """,
    re.VERBOSE | re.DOTALL,
)
_LOCKS: Final = re.compile(
    rf"(?i:FOR\s+(?:NO\s+KEY\s+UPDATE|KEY\s+SHARE|UPDATE|SHARE)\b)"
    rf"(?:\s+(?i:OF)\s+{_NAME}(?:\s*,\s*{_NAME})*)?(?i:\s+(?:NOWAIT|SKIP\s+LOCKED))?"
)
_TWO_WORD_TYPES: Final = {("double", "precision"), ("character", "varying"), ("bit", "varying")}
_STRING_PREFIXES: Final = {"e", "b", "x", "n", "u&"}


def tokenize(text: str) -> Iterator[Token]:
    """Cut SQL into tokens.

    Raises:
        ValueError: A string, quoted name, comment or dollar quote has no end.
    """
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None, "the last alternative takes any character"
        kind, end = match.lastgroup, match.end()
        if kind == "comment" and match[0] == "/*":
            end = _comment_end(text, at)
        elif kind == "dollar":
            closing = text.find(match[0], end)
            if closing < 0:
                raise ValueError(f"{match[0]} has no end in SQL: {text!r}")
            kind, end = "string", closing + len(match[0])
        elif kind == "op" and match[0] in "'\"":
            raise ValueError(f"{match[0]} has no end in SQL: {text!r}")
        yield Token(kind, text[at:end])  # pyright: ignore[reportArgumentType] - a group of `Kind`
        at = end


def _comment_end(text: str, start: int) -> int:
    """Find the end of a block comment; PostgreSQL's nest (PostgreSQL manual, 4.1.5)."""
    depth, at = 0, start
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        at = start + mark.end()
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return at
    raise ValueError(f"/* has no end in SQL: {text!r}")


def split_statements(script: str) -> list[str]:
    """Cut a script at its top-level semicolons; comments stay, empty statements go."""
    statements: list[str] = []
    pieces: list[Token] = []
    for token in [*tokenize(script), Token("op", ";")]:
        if token.text != ";" or token.kind != "op":
            pieces.append(token)
            continue
        if any(piece.kind not in {"space", "comment"} for piece in pieces):
            statements.append("".join(piece.text for piece in pieces).strip())
        pieces = []
    return statements


@functools.lru_cache(maxsize=2048)
def sql(text: str, *, sqlite: str | None = None) -> Sql:
    """Make a statement for both databases; equal texts give the same object.

    Args:
        text: PostgreSQL's SQL with `$1…$n`.
        sqlite: SQLite's own text (with `$n` or `?n`), where the rewriting in this module's table is
            not enough. The arguments are the same ones, in the same places.

    Raises:
        ValueError: Quotes or comments have no end; numbers are left out; or, without `sqlite`,
            something that SQLite would read differently.
    """
    tokens = list(tokenize(text))
    used = {int(token.text[1:]) for token in tokens if token.kind == "param"}
    n_params = max(used, default=0)
    if used != set(range(1, n_params + 1)):
        raise ValueError(f"parameters must be $1…$n without gaps: {text!r}")
    if sqlite is None:
        rewritten = _Rewriter(tokens, numbered=False).run()
        arrays = rewritten.arrays
    else:
        rewritten = _Rewriter(list(tokenize(sqlite)), numbered=True).run()
        arrays = _Rewriter(tokens, numbered=False, strict=False).run().arrays
    if rewritten.n_params > n_params:
        raise ValueError(f"SQLite's text takes more parameters than PostgreSQL's: {sqlite!r}")
    return Sql(text, rewritten.text, n_params, rewritten.n_params, tuple(sorted(arrays)))


class _Rewritten(NamedTuple):
    text: str
    n_params: int
    arrays: set[int]


class _Rewriter:
    """Walks over tokens once and writes SQLite's text."""

    def __init__(self, tokens: list[Token], *, numbered: bool, strict: bool = True) -> None:
        self._tokens = tokens
        self._numbered = numbered
        self._strict = strict
        self._at = 0
        self._out: list[str] = []
        self._used = {0}
        self._arrays: set[int] = set()

    def run(self) -> _Rewritten:
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if not (self._quantifier(token) or self._cast(token) or self._lock(token)):
                self._out.append(self._plain(token))
                self._at += 1
        return _Rewritten("".join(self._out), max(self._used), self._arrays)

    def _plain(self, token: Token) -> str:
        """Write one token that needs no neighbours."""
        if token.kind in {"param", "numbered"}:
            if token.kind == "numbered" and not self._numbered:
                self._refuse(token)
            self._used.add(int(token.text[1:]))
            return f"?{int(token.text[1:])}"
        if token.kind == "string" and token.text[0] == "$":
            tag = token.text.index("$", 1) + 1
            body = token.text[tag:-tag]
            return "'" + body.replace("'", "''") + "'"
        if token.kind == "op" and token.text in {"?", "@", ":", "#", "$"}:
            self._refuse(token)
        if token.kind == "comment" and token.text.count("/*") > 1 and token.text[0] == "/":
            self._refuse(token)
        if token.kind == "name" and self._is_string_prefix(token):
            self._refuse(token)
        return token.text

    def _is_string_prefix(self, token: Token) -> bool:
        rest = self._tokens[self._at + 1 : self._at + 3]
        if token.text.lower() == "u" and len(rest) == 2 and rest[0].text == "&":
            return rest[1].kind in {"string", "quoted"}
        is_string = bool(rest) and rest[0].kind == "string" and rest[0].text[0] == "'"
        return is_string and token.text.lower() in _STRING_PREFIXES

    def _refuse(self, token: Token) -> None:
        if self._strict:
            raise ValueError(
                f"{token.text!r} means something else to SQLite: give it a text of its own with"
                f" sqlite=…, in {''.join(piece.text for piece in self._tokens)!r}"
            )

    def _code_from(self, at: int, count: int) -> tuple[list[Token], int]:
        """Return the next `count` tokens that are code, and the place behind them."""
        found: list[Token] = []
        while at < len(self._tokens) and len(found) < count:
            if self._tokens[at].kind not in {"space", "comment"}:
                found.append(self._tokens[at])
            at += 1
        return found, at

    def _quantifier(self, token: Token) -> bool:
        """Rewrite `= ANY($n::type[])` and `<> ALL($n::type[])`."""
        if token.kind != "op" or token.text not in {"=", "<>", "!="}:
            return False
        code, at = self._code_from(self._at, 4)
        words = [piece.text.upper() for piece in code]
        if words[1:3] not in (["ANY", "("], ["ALL", "("]) or code[-1].kind != "param":
            return False
        if words[1] != ("ANY" if token.text == "=" else "ALL"):
            return False
        number = int(words[3][1:])
        closing, behind = self._code_from(at, 1)
        if closing and closing[0].text == "::":
            _, at = self._type_from(behind)
            closing, behind = self._code_from(at, 1)
        if not closing or closing[0].text != ")":
            return False
        verb = "IN" if words[1] == "ANY" else "NOT IN"
        if self._out and not self._out[-1].isspace():
            self._out.append(" ")  # `a=ANY` must not become `aIN`
        self._out.append(f"{verb} (SELECT value FROM json_each(?{number}))")  # noqa: S608 - a number
        self._used.add(number)
        self._arrays.add(number - 1)
        self._at = behind
        return True

    def _cast(self, token: Token) -> bool:
        """Drop `::type`, and remember which parameters are arrays."""
        if token.text != "::":
            return False
        is_array, at = self._type_from(self._at + 1)
        before = next(
            (t for t in reversed(self._tokens[: self._at]) if t.kind not in {"space", "comment"}),
            None,
        )
        if is_array and before is not None and before.kind == "param":
            self._arrays.add(int(before.text[1:]) - 1)
        self._at = at
        return True

    def _type_from(self, at: int) -> tuple[bool, int]:
        """Read a type that starts at `at`: whether it is an array, and the place behind it."""
        code, behind = self._code_from(at, 1)
        if not code or code[0].kind not in {"name", "quoted"}:
            raise ValueError(f":: without a type in {''.join(t.text for t in self._tokens)!r}")
        words, further = self._code_from(behind, 1)
        if words and (code[0].text.lower(), words[0].text.lower()) in _TWO_WORD_TYPES:
            behind = further
        elif words and words[0].text == ".":
            behind = self._code_from(further, 1)[1]
        behind = self._skip_group(behind, "(", ")")
        is_array = False
        while (after := self._skip_group(behind, "[", "]")) != behind:
            is_array, behind = True, after
        return is_array, behind

    def _skip_group(self, at: int, opening: str, closing: str) -> int:
        """Return the place behind `(9, 2)` or `[]`, or `at` where there is none."""
        code, behind = self._code_from(at, 1)
        if not code or code[0].text != opening:
            return at
        while behind < len(self._tokens) and self._tokens[behind].text != closing:
            behind += 1
        return behind + 1

    def _lock(self, token: Token) -> bool:
        """Drop `FOR UPDATE` and its kin."""
        if token.kind != "name" or token.text.upper() != "FOR":
            return False
        rest = "".join(
            " " if piece.kind == "comment" else piece.text for piece in self._tokens[self._at :]
        )
        match = _LOCKS.match(rest)
        if match is None:
            return False
        length = 0
        while self._at < len(self._tokens) and length < match.end():
            piece = self._tokens[self._at]
            length += 1 if piece.kind == "comment" else len(piece.text)
            self._at += 1
        return True
