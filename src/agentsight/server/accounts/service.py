"""What can be done with organisations, clients, users and one-time links."""

from __future__ import annotations

from dataclasses import replace

from agentsight.server.access import Access, job_access
from agentsight.server.accounts import store
from agentsight.server.accounts.model import (
    DEFAULT_SLUG,
    TOKEN_LIFETIME_DAYS,
    Client,
    TokenHolder,
    User,
    check_password,
    check_role,
    clean_email,
    clean_name,
    clean_slug,
    fold_email,
    generate_token,
    slug_taken,
    token_sha256,
)
from agentsight.server.accounts.passwords import hash_password, verify_password
from agentsight.server.db import Database, Tx
from agentsight.server.db.errors import UniqueViolation
from agentsight.server.ids import ClientId, OrganisationId, UserId, new_uid
from agentsight.server.problems import Problem, invalid, not_found

_DAY_US = 24 * 3_600_000_000

# --- Organisations and clients --------------------------------------------------------------------


async def create_organisation(db: Database, slug: str, *, name: str = "", now_us: int) -> Access:
    """Make an organisation and return the access of its jobs.

    Raises:
        Problem: 400 for a slug that is malformed or taken.
    """
    slug = clean_slug(slug)
    name = clean_name(name or slug)
    uid = new_uid(now_us)

    async def unit(tx: Tx) -> Access:
        return job_access(
            await store.insert_organisation(tx, uid=uid, slug=slug, name=name, now_us=now_us)
        )

    try:
        return await db.write(unit)
    except UniqueViolation as error:
        raise slug_taken("organisation", slug) from error


async def ensure_defaults(tx: Tx, now_us: int) -> Access:
    """Return the access of the instance's own jobs; the first call makes their organisation.

    Makes, inside the caller's unit, the organisation `default` with the client `default` where the
    instance has no organisation yet. Not atomic against another one on PostgreSQL: the unique slug
    decides, and the loser's unit raises UniqueViolation and may be repeated.
    """
    organisation = await store.first_organisation(tx)
    if organisation is not None:
        return job_access(organisation.organisation_id)
    access = job_access(
        await store.insert_organisation(
            tx, uid=new_uid(now_us), slug=DEFAULT_SLUG, name="Default", now_us=now_us
        )
    )
    await ensure_client(tx, access, now_us)
    return access


async def ensure_client(tx: Tx, access: Access, now_us: int) -> ClientId:
    """Return the organisation's first client; one without any gets `default`."""
    clients = await store.list_clients(tx, access)
    if clients:
        return clients[0].client_id
    return await store.insert_client(
        tx, access, uid=new_uid(now_us), slug=DEFAULT_SLUG, name="Default", now_us=now_us
    )


async def operator_access(db: Database, *, now_us: int, create: bool) -> Access:
    """Return what the command line may see: the whole of the instance's first organisation.

    Args:
        create: Whether to make the organisation where there is none yet. Without it, and without
            an organisation, the answer is the access to an organisation that nobody has.
    """

    async def find(tx: Tx) -> Access | None:
        organisation = await store.first_organisation(tx)
        return None if organisation is None else _operator(organisation.organisation_id)

    async def make(tx: Tx) -> Access:
        return replace(await ensure_defaults(tx, now_us), principal="operator")

    access = await db.read(find)
    if access is not None:
        return access
    if not create:
        return _operator(OrganisationId(0))
    try:
        return await db.write(make)
    except UniqueViolation:  # another process was first
        return await db.write(make)


def _operator(organisation_id: OrganisationId) -> Access:
    return job_access(organisation_id, principal="operator")


async def create_client(
    db: Database, access: Access, slug: str, *, name: str = "", now_us: int
) -> Client:
    """Make a client.

    Raises:
        Problem: 400 for a slug that is malformed or taken.
    """
    slug = clean_slug(slug)
    name = clean_name(name or slug)
    uid = new_uid(now_us)

    async def unit(tx: Tx) -> Client:
        await store.insert_client(tx, access, uid=uid, slug=slug, name=name, now_us=now_us)
        client = await store.find_client(tx, access, slug)
        if client is None:
            raise not_found()
        return client

    try:
        return await db.write(unit)
    except UniqueViolation as error:
        raise slug_taken("client", slug) from error


async def list_clients(db: Database, access: Access) -> list[Client]:
    """Return the clients the caller may see, oldest first."""

    async def query(tx: Tx) -> list[Client]:
        return await store.list_clients(tx, access)

    return await db.read(query)


# --- Users ----------------------------------------------------------------------------------------


async def create_user(
    db: Database,
    access: Access,
    email: str,
    *,
    role: str,
    client_slug: str | None = None,
    password: str | None = None,
    now_us: int,
) -> User:
    """Make a person's account.

    Args:
        role: `owner`, `member` or `viewer`.
        client_slug: The one client they see; None is the whole organisation.
        password: At least ten characters; None leaves it to a one-time link.

    Raises:
        Problem: 400 for a wrong address, role or password, or one that has an account;
            404 for a client the caller cannot see.
    """
    email = clean_email(email)
    check_role(role)
    if role == "owner" and client_slug is not None:
        raise invalid("client", "An owner sees the whole organisation: leave the client out.")
    if password is not None:
        check_password(password)
    password_hash = None if password is None else await hash_password(password)

    async def unit(tx: Tx) -> User:
        client_id = await _client_id(tx, access, client_slug)
        return await add_user(
            tx,
            access,
            email,
            role=role,
            client_id=client_id,
            password_hash=password_hash,
            now_us=now_us,
        )

    try:
        return await db.write(unit)
    except UniqueViolation as error:
        raise invalid("email", f"There is an account for {email} already.") from error


async def _client_id(tx: Tx, access: Access, client_slug: str | None) -> ClientId | None:
    if client_slug is None:
        return access.client_id
    client = await store.find_client(tx, access, client_slug)
    if client is None:
        raise not_found()
    return client.client_id


async def add_user(
    tx: Tx,
    access: Access,
    email: str,
    *,
    role: str,
    client_id: ClientId | None,
    password_hash: str | None,
    now_us: int,
) -> User:
    """Add an account inside the caller's unit of work."""
    await store.insert_user(
        tx,
        access,
        uid=new_uid(now_us),
        client_id=client_id,
        email_folded=fold_email(email),
        email=email,
        role=role,
        password_hash=password_hash,
        now_us=now_us,
    )
    user = await store.find_user(tx, access, fold_email(email))
    if user is None:
        raise not_found()
    return user


async def list_users(db: Database, access: Access) -> list[User]:
    """Return the people the caller may see, oldest first."""

    async def query(tx: Tx) -> list[User]:
        return await store.list_users(tx, access)

    return await db.read(query)


async def check_credentials(db: Database, email: str, password: str) -> UserId | None:
    """Return who signs in, or None. The unknown address takes as long as the wrong password."""

    async def query(tx: Tx) -> tuple[UserId, str | None] | None:
        return await store.find_password(tx, fold_email(email))

    found = await db.read(query)
    fits = await verify_password(found[1] if found else None, password)
    return found[0] if found and fits else None


# --- One-time links -------------------------------------------------------------------------------


async def create_token(db: Database, access: Access, email: str, *, now_us: int) -> str:
    """Make a one-time link's secret for a person; it sets a password and works for seven days.

    Raises:
        Problem: 404 for a person the caller cannot see.
    """
    token = generate_token()

    async def unit(tx: Tx) -> None:
        user = await store.find_user(tx, access, fold_email(email))
        if user is None:
            raise not_found()
        await add_token(tx, user.user_id, token, now_us=now_us)

    await db.write(unit)
    return token


async def add_token(tx: Tx, user_id: UserId, token: str, *, now_us: int) -> None:
    """Add a one-time link inside the caller's unit of work."""
    expires_at = now_us + TOKEN_LIFETIME_DAYS * _DAY_US
    await store.insert_token(
        tx, user_id, token_sha256=token_sha256(token), now_us=now_us, expires_at=expires_at
    )


async def find_token(db: Database, token: str, now_us: int) -> TokenHolder | None:
    """Return whose link it is, or None when it is unknown, used or expired."""

    async def query(tx: Tx) -> TokenHolder | None:
        return await store.find_token(tx, token_sha256(token), now_us)

    return await db.read(query)


async def use_token(db: Database, token: str, password: str, *, now_us: int) -> None:
    """Set the password of the link's person and use the link up.

    Of two requests with one link, one succeeds. Every other link of the person ends too.

    Raises:
        Problem: 410 `gone` for a link that is unknown, used or expired; 400 for a poor password.
    """
    check_password(password)
    if await find_token(db, token, now_us) is None:
        raise _link_gone()  # asked before hashing: strangers must not make us work
    password_hash = await hash_password(password)

    async def unit(tx: Tx) -> None:
        user_id = await store.use_token(tx, token_sha256(token), now_us)
        if user_id is None or not await store.set_password_hash(tx, user_id, password_hash, now_us):
            raise _link_gone()

    await db.write(unit)


def _link_gone() -> Problem:
    return Problem(410, "gone", "This link has been used or has expired; ask for a new one.")
