"""SQL of organisations, clients, users and one-time links."""

from __future__ import annotations

from typing import Any

from agentsight.server.access import Access
from agentsight.server.accounts.model import Client, Organisation, TokenHolder, User
from agentsight.server.db import Tx, sql
from agentsight.server.ids import ClientId, OrganisationId, UserId

_FIRST_ORGANISATION = sql("SELECT id, uid, slug, name FROM organisations ORDER BY id LIMIT 1")
_INSERT_ORGANISATION = sql(
    "INSERT INTO organisations (uid, slug, name, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $4) RETURNING id"
)

# A client's user sees that client only.
_CLIENT_VISIBLE = "organisation_id = $1 AND ($2::bigint = 0 OR id = $2) AND deleted_at IS NULL"
_CLIENT_COLUMNS = "id, uid, slug, name, created_at"
_LIST_CLIENTS = sql(f"SELECT {_CLIENT_COLUMNS} FROM clients WHERE {_CLIENT_VISIBLE} ORDER BY id")
_FIND_CLIENT = sql(f"SELECT {_CLIENT_COLUMNS} FROM clients WHERE {_CLIENT_VISIBLE} AND slug = $3")
_INSERT_CLIENT = sql(
    "INSERT INTO clients (uid, organisation_id, slug, name, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $5) RETURNING id"
)

_USER_COLUMNS = (
    "u.id, u.uid, u.email_shown, u.role, c.slug, u.password_hash IS NOT NULL, u.created_at"
)
_USER_TABLES = "users u LEFT JOIN clients c ON c.id = u.client_id"
_USER_VISIBLE = (
    "u.organisation_id = $1 AND ($2::bigint = 0 OR u.client_id = $2) AND u.deleted_at IS NULL"
)
_LIST_USERS = sql(f"SELECT {_USER_COLUMNS} FROM {_USER_TABLES} WHERE {_USER_VISIBLE} ORDER BY u.id")
_FIND_USER = sql(
    f"SELECT {_USER_COLUMNS} FROM {_USER_TABLES} WHERE {_USER_VISIBLE} AND u.email = $3"
)
_INSERT_USER = sql(
    "INSERT INTO users (uid, organisation_id, client_id, email, email_shown, role, password_hash,"
    " created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) RETURNING id"
)
_COUNT_OWNERS = sql(
    "SELECT count(*) FROM users WHERE organisation_id = $1 AND role = 'owner'"
    " AND client_id IS NULL AND deleted_at IS NULL"
)
_FIND_PASSWORD = sql("SELECT id, password_hash FROM users WHERE email = $1 AND deleted_at IS NULL")
_SET_PASSWORD = sql(
    "UPDATE users SET password_hash = $2, updated_at = $3 WHERE id = $1 AND deleted_at IS NULL"
)

_INSERT_TOKEN = sql(
    "INSERT INTO user_tokens (user_id, purpose, token_sha256, created_at, expires_at)"
    " VALUES ($1, 'set_password', $2, $3, $4) RETURNING id"
)
_FIND_TOKEN = sql(
    "SELECT u.id, u.email_shown FROM user_tokens t JOIN users u ON u.id = t.user_id"
    " WHERE t.token_sha256 = $1 AND t.purpose = 'set_password' AND t.used_at IS NULL"
    " AND t.expires_at > $2 AND u.deleted_at IS NULL"
)
# The WHERE decides who was first: of two requests with one link, one changes a row.
_USE_TOKEN = sql(
    "UPDATE user_tokens SET used_at = $2 WHERE token_sha256 = $1 AND purpose = 'set_password'"
    " AND used_at IS NULL AND expires_at > $2 RETURNING user_id"
)
_USE_OTHER_TOKENS = sql(
    "UPDATE user_tokens SET used_at = $2 WHERE user_id = $1 AND used_at IS NULL"
)


# --- Organisations and clients --------------------------------------------------------------------


async def first_organisation(tx: Tx) -> Organisation | None:
    """Return the oldest organisation: the one that the command line works for."""
    row = await tx.row(_FIRST_ORGANISATION)
    return None if row is None else Organisation(*row)


async def insert_organisation(
    tx: Tx, *, uid: str, slug: str, name: str, now_us: int
) -> OrganisationId:
    """Add an organisation.

    Raises:
        UniqueViolation: The slug is taken.
    """
    return await tx.value(_INSERT_ORGANISATION, uid, slug, name, now_us)


async def list_clients(tx: Tx, access: Access) -> list[Client]:
    """Return the clients the caller may see, oldest first."""
    rows = await tx.rows(_LIST_CLIENTS, access.organisation_id, access.client_id or 0)
    return [Client(*row) for row in rows]


async def find_client(tx: Tx, access: Access, slug: str) -> Client | None:
    """Return the client of that slug, if the caller may see it."""
    row = await tx.row(_FIND_CLIENT, access.organisation_id, access.client_id or 0, slug)
    return None if row is None else Client(*row)


async def insert_client(
    tx: Tx, access: Access, *, uid: str, slug: str, name: str, now_us: int
) -> ClientId:
    """Add a client to the caller's organisation.

    Raises:
        UniqueViolation: The slug is taken, maybe by a client the caller cannot see.
    """
    return await tx.value(_INSERT_CLIENT, uid, access.organisation_id, slug, name, now_us)


# --- Users ----------------------------------------------------------------------------------------


async def list_users(tx: Tx, access: Access) -> list[User]:
    """Return the people the caller may see, oldest first."""
    rows = await tx.rows(_LIST_USERS, access.organisation_id, access.client_id or 0)
    return [_user(row) for row in rows]


async def find_user(tx: Tx, access: Access, email_folded: str) -> User | None:
    """Return the person of that address, if the caller may see them."""
    row = await tx.row(_FIND_USER, access.organisation_id, access.client_id or 0, email_folded)
    return None if row is None else _user(row)


def _user(row: tuple[Any, ...]) -> User:
    user_id, uid, email, role, client_slug, has_password, created_at = row
    return User(user_id, uid, email, role, client_slug, bool(has_password), created_at)


async def count_owners(tx: Tx, access: Access) -> int:
    """Return how many owners the caller's organisation has."""
    return await tx.value(_COUNT_OWNERS, access.organisation_id)


async def insert_user(
    tx: Tx,
    access: Access,
    *,
    uid: str,
    client_id: ClientId | None,
    email_folded: str,
    email: str,
    role: str,
    password_hash: str | None,
    now_us: int,
) -> UserId:
    """Add a person to the caller's organisation.

    Raises:
        UniqueViolation: The address has an account.
    """
    return await tx.value(
        _INSERT_USER,
        uid,
        access.organisation_id,
        client_id,
        email_folded,
        email,
        role,
        password_hash,
        now_us,
    )


async def find_password(tx: Tx, email_folded: str) -> tuple[UserId, str | None] | None:
    """Return who has that address and their password's hash; who signs in has no access yet."""
    row = await tx.row(_FIND_PASSWORD, email_folded)
    return None if row is None else (UserId(row[0]), row[1])


async def set_password_hash(tx: Tx, user_id: UserId, password_hash: str, now_us: int) -> bool:
    """Replace a person's password; False when the account is gone."""
    return await tx.execute(_SET_PASSWORD, user_id, password_hash, now_us) == 1


# --- One-time links -------------------------------------------------------------------------------


async def insert_token(
    tx: Tx, user_id: UserId, *, token_sha256: str, now_us: int, expires_at: int
) -> None:
    """Add a link that sets a person's password, once, until `expires_at`."""
    await tx.value(_INSERT_TOKEN, user_id, token_sha256, now_us, expires_at)


async def find_token(tx: Tx, token_sha256: str, now_us: int) -> TokenHolder | None:
    """Return whose link it is, while it works. The link itself is the permission to ask."""
    row = await tx.row(_FIND_TOKEN, token_sha256, now_us)
    return None if row is None else TokenHolder(*row)


async def use_token(tx: Tx, token_sha256: str, now_us: int) -> UserId | None:
    """Use a link up, and with it every other of the same person; None when it does not work."""
    user_id = await tx.value(_USE_TOKEN, token_sha256, now_us)
    if user_id is not None:
        await tx.execute(_USE_OTHER_TOKENS, user_id, now_us)
    return user_id
