"""The conditions of a list, collected for both databases with one list of arguments.

Every value travels as a parameter. Here is also the one condition that differs most between the
databases: a leaf of a JSON document that equals a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from agentsight.server.db.interface import Argument
from agentsight.server.db.sql import Sql, sql
from agentsight.server.queries import MetadataFilter, number_text


class Conditions:
    """Conditions that must all hold, in both dialects.

    Args:
        args: The arguments that are there already, from `$1` on.
    """

    def __init__(self, *args: Argument) -> None:
        self.args: list[Argument] = list(args)
        self._pg: list[str] = []
        self._lite: list[str] = []

    def param(self, value: Argument) -> str:
        """Add an argument and return its placeholder."""
        self.args.append(value)
        return f"${len(self.args)}"

    def add(self, condition: str, *, sqlite: str | None = None) -> None:
        """Add a condition that must hold."""
        self._pg.append(condition)
        self._lite.append(condition if sqlite is None else sqlite)

    def statement(self, head: str, tail: str = "") -> Sql:
        """Join the conditions into a statement."""
        return sql(
            f"{head} WHERE {' AND '.join(self._pg)}{tail}",
            sqlite=f"{head} WHERE {' AND '.join(self._lite)}{tail}",
        )

    def add_metadata(self, column: str, leaf: MetadataFilter) -> None:
        """Add that a leaf of the JSON in `column` equals a text; see `MetadataFilter`."""
        keys = [self.param(key) for key in leaf.path]
        text = self.param(leaf.text)
        number = number_text(leaf.text)
        placed = None if number is None else self.param(number)
        # Beyond 2^53 a double's shortest text and the integer it stands for differ.
        is_double = number is not None and Decimal(repr(float(number))) == Decimal(number)
        sqlite = _metadata_sqlite(column, keys, text, placed, is_double=is_double)
        if number is None and _is_verbatim(leaf.text):
            # A document that does not hold the text anywhere need not be parsed.
            sqlite = f"CASE WHEN instr({column}, {text}) > 0 THEN {sqlite} ELSE 0 END"
        self.add(_metadata_postgresql(column, keys, text, placed), sqlite=sqlite)


def _metadata_postgresql(column: str, keys: Sequence[str], text: str, number: str | None) -> str:
    # `-> text` on a list is NULL, so the path goes through objects only.
    leaf = f"({column}" + "".join(f" -> {key}::text" for key in keys) + ")"
    cases = [
        f"WHEN 'string' THEN {leaf} #>> '{{}}' = {text}::text",
        f"WHEN 'boolean' THEN {leaf}::text = {text}::text",
        f"WHEN 'null' THEN {text}::text = 'null'",
    ]
    if number is not None:
        cases.append(f"WHEN 'number' THEN {leaf}::text::numeric = {number}::text::numeric")
    return f"CASE jsonb_typeof({leaf}) {' '.join(cases)} ELSE false END"


def _metadata_sqlite(
    column: str, keys: Sequence[str], text: str, number: str | None, *, is_double: bool
) -> str:
    tables = [f"json_each(CASE WHEN json_type({column}) = 'object' THEN {column} END) j1"]
    conditions = [f"j1.key = {keys[0]}"]
    for n, key in enumerate(keys[1:], start=2):
        outer = f"j{n - 1}"
        tables.append(f"json_each(CASE WHEN {outer}.type = 'object' THEN {outer}.value END) j{n}")
        conditions.append(f"j{n}.key = {key}")
    leaf = f"j{len(keys)}"
    cases = [
        f"WHEN 'text' THEN {leaf}.value = {text}",
        f"WHEN 'true' THEN {text} = 'true'",
        f"WHEN 'false' THEN {text} = 'false'",
        f"WHEN 'null' THEN {text} = 'null'",
    ]
    if number is not None:
        cases.append(f"WHEN 'integer' THEN {leaf}.value = CAST({number} AS NUMERIC)")
    if is_double:
        cases.append(f"WHEN 'real' THEN {leaf}.value = CAST({number} AS REAL)")
    conditions.append(f"CASE {leaf}.type {' '.join(cases)} ELSE 0 END")
    where = " AND ".join(conditions)
    return f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {where})"  # noqa: S608 # constants and placeholders


def _is_verbatim(value: str) -> bool:
    """Say whether JSON holds a string as it is, with nothing escaped (RFC 8259, section 7)."""
    return bool(value) and value.isascii() and value.isprintable() and not set(value) & set('"\\/')
