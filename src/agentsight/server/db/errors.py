"""What can go wrong with the database, in the words of every room above it.

DatabaseError
├── DatabaseUnavailable     away, busy for too long, shutting down: try again (503)
├── DatabaseFull            no room left for the write (507)
├── DatabaseMissing         there is no such database, and nobody said `create`
├── DatabaseUrlError        the address cannot be understood
├── SchemaRefused           the schema is newer, older (with --no-migrate) or not ours
├── UnitSuspended           a unit or query awaited something else than its `tx`
└── QueryError              the statement is wrong or a value does not fit: a fault of ours
    └── ConstraintViolation
        └── UniqueViolation
"""

from __future__ import annotations


class DatabaseError(Exception):
    """Any failure of the database; its text names the object and, where known, the remedy."""


class DatabaseUnavailable(DatabaseError):
    """The database does not answer now; a repeat may work. Doors answer 503.

    After a write, it may still have happened if the connection was lost during the commit: callers
    send the same `item_key` again, and the second one finds the first.
    """


class DatabaseFull(DatabaseError):
    """The disk, the quota or the page limit is used up. Nothing was written. Doors answer 507."""


class DatabaseMissing(DatabaseError):
    """There is no database at that address, and the caller did not ask to make one."""


class DatabaseUrlError(DatabaseError):
    """The address of the database cannot be understood or may not be used."""


class SchemaRefused(DatabaseError):
    """The database's schema is not the one this version works with; the text says what to do."""


class UnitSuspended(DatabaseError):
    """A unit of work waited for something else than its `tx`; the text names it and its line."""


class QueryError(DatabaseError):
    """The statement is wrong, or a value does not fit its column: our fault, not the user's."""


class ConstraintViolation(QueryError):
    """A row breaks a rule of the schema (foreign key, check, not null).

    Attributes:
        constraint: What was broken, as the database says it.
    """

    def __init__(self, message: str, constraint: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class UniqueViolation(ConstraintViolation):
    """A row with the same key exists.

    Attributes:
        constraint: `table(column, column)`, equal on both databases.
    """
