"""Addresses of databases: read, checked, and shown without their passwords."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from agentsight.server.db.errors import DatabaseUrlError
from agentsight.server.db.interface import Dialect

EXAMPLES = "sqlite:///relative/path.db, sqlite:////absolute/path.db or postgresql://user:password@host/name"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """An address that was understood.

    Attributes:
        dialect: Which database.
        text: The address itself. It may hold a password: show `describe()` instead.
        path: The file, for SQLite.
    """

    dialect: Dialect
    text: str = field(repr=False)
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> DatabaseUrl:
        """Read an address.

        What follows `sqlite:///` is the file's path as it stands: nothing is decoded, so that every
        path can be written.

        Raises:
            DatabaseUrlError: It is none of the shapes in the message.
        """
        scheme, colon, rest = text.partition("://")
        if not colon:
            raise DatabaseUrlError(f"not the address of a database; write {EXAMPLES}")
        if scheme == "sqlite":
            return _parse_sqlite(text, rest)
        if scheme in {"postgresql", "postgres"}:
            return _parse_postgresql(text)
        hint = " (no driver is named here)" if "+" in scheme else ""
        raise DatabaseUrlError(f"unknown kind of database {scheme!r}{hint}; write {EXAMPLES}")

    def describe(self) -> str:
        """Return the address without its password, for people and logs."""
        if self.path is not None:
            return f"sqlite:///{self.path}"
        return _without_password(self.text)


def describe_url(text: str) -> str:
    """Return an address without its password, whatever shape it has."""
    try:
        return DatabaseUrl.parse(text).describe()
    except DatabaseUrlError:
        return "(an address that cannot be understood)"


def _parse_sqlite(text: str, rest: str) -> DatabaseUrl:
    if not rest.startswith("/"):
        raise DatabaseUrlError(
            "sqlite:// takes three slashes before a relative path, four before an absolute one:"
            f" write {EXAMPLES}"
        )
    path = rest[1:]
    if not path or path.endswith("/"):
        raise DatabaseUrlError(f"name the file: write {EXAMPLES}")
    if path.startswith(":memory:") or "\0" in path:
        raise DatabaseUrlError(
            "a database in memory cannot be shared by the connections we open; name a file"
        )
    return DatabaseUrl("sqlite", text, Path(path))


def _parse_postgresql(text: str) -> DatabaseUrl:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as exc:
        raise DatabaseUrlError(f"the port or host is wrong: {exc}; write {EXAMPLES}") from None
    if len(parts.path) < 2:
        raise DatabaseUrlError("name the database: postgresql://user:password@host/name")
    return DatabaseUrl("postgresql", text)


def _without_password(text: str) -> str:
    parts = urlsplit(text)
    user, at, host = parts.netloc.rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":***"
    query = parse_qsl(parts.query, keep_blank_values=True)
    shown = [(name, "***" if "password" in name.lower() else value) for name, value in query]
    return urlunsplit(
        parts._replace(netloc=user + at + host, query=urlencode(shown, safe="*/"), fragment="")
    )
