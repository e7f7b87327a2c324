"""What organisations, clients, users and one-time links are, and their rules: pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Literal

from agentsight import _contract as contract
from agentsight.server.ids import ClientId, OrganisationId, UserId
from agentsight.server.problems import Problem, invalid, required
from agentsight.server.settings_text import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS
from agentsight.server.text import mend_text

UserRole = Literal["owner", "member", "viewer"]
USER_ROLES: tuple[UserRole, ...] = ("owner", "member", "viewer")
DEFAULT_SLUG = "default"
"""The organisation, the client and the agent that the first start makes."""
TOKEN_LIFETIME_DAYS = 7
MAX_SLUG_CHARS = 63
MAX_EMAIL_CHARS = 254
"""RFC 5321, 4.5.3.1.3: a path has 256 octets, two of them its brackets."""

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]+@[^\s@\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who runs the instance: an agency, or a company for itself."""

    organisation_id: OrganisationId
    uid: str
    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class Client:
    """Whom agents are built for."""

    client_id: ClientId
    uid: str
    slug: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class User:
    """A person who may sign in; `client_slug` says that they see one client only."""

    user_id: UserId
    uid: str
    email: str
    role: str
    client_slug: str | None
    has_password: bool
    created_at: int


@dataclass(frozen=True, slots=True)
class TokenHolder:
    """Whose one-time link it is."""

    user_id: UserId
    email: str


def clean_slug(raw: str) -> str:
    """Return the slug, lower-cased and trimmed.

    Raises:
        Problem: 400 when it has other than a–z, 0–9, `-`, `_` and `.`, or begins or ends with one
            of the last three.
    """
    slug = raw.strip().lower()
    if _SLUG.fullmatch(slug) is None:
        raise invalid(
            "slug",
            f"Use 1 to {MAX_SLUG_CHARS} of a-z, 0-9, '-', '_' and '.',"
            " with a letter or digit first and last.",
        )
    return slug


def clean_name(raw: str) -> str:
    """Return a name that people read, trimmed and mended.

    Raises:
        Problem: 400 when it is too long.
    """
    name = mend_text(raw).strip()
    if len(name) > contract.MAX_NAME_CHARS:
        raise invalid("name", f"Use at most {contract.MAX_NAME_CHARS} characters.")
    return name


def clean_email(raw: str) -> str:
    """Return the address, trimmed. Whether it exists only a mail could tell.

    Raises:
        Problem: 400 when it does not look like one.
    """
    email = raw.strip()
    if len(email) > MAX_EMAIL_CHARS or _EMAIL.fullmatch(email) is None:
        raise invalid("email", "Enter an address like name@example.com.")
    return mend_text(email)


def fold_email(email: str) -> str:
    """Return what addresses are compared by."""
    return email.strip().casefold()


def check_password(password: str) -> None:
    """Refuse a password that is too short to be one, or too long to hash.

    Raises:
        Problem: 400 with the reason.
    """
    if not password:
        raise required("password")
    if len(password) < MIN_PASSWORD_CHARS:
        raise invalid("password", f"Use at least {MIN_PASSWORD_CHARS} characters.")
    if len(password) > MAX_PASSWORD_CHARS:
        raise invalid("password", f"Use at most {MAX_PASSWORD_CHARS} characters.")
    if len(set(password)) < 4:  # "aaaaaaaaaa" and its like
        raise invalid("password", "Use more than three different characters.")


def check_role(role: str) -> None:
    """Refuse a role that users do not have.

    Raises:
        Problem: 400 naming the roles.
    """
    if role not in USER_ROLES:
        raise invalid("role", f"This must be one of: {', '.join(USER_ROLES)}.")


def slug_taken(kind: str, slug: str) -> Problem:
    """Make the answer for a slug that the instance has already."""
    return invalid("slug", f"There is a {kind} '{slug}' in this instance already.")


def generate_token() -> str:
    """Make the secret of a one-time link: 256 random bits."""
    return secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """Return what a one-time link is looked up by; the link itself is never kept."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
