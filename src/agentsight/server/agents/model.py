"""What agents, environments and keys are, and their rules: pure."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

from agentsight import _contract as contract
from agentsight.server.ids import AgentId, ClientId, EnvironmentId, KeyId, OrganisationId

KeyRole = Literal["read", "write", "ingest"]
KEY_ROLES: tuple[KeyRole, ...] = ("read", "write")
"""Roles that keys are made with. `ingest` (write only) is reserved: the schema knows it, and this
version makes no key with it."""

PRODUCTION = "production"
DEVELOPMENT = "development"
BUILT_IN_ENVIRONMENTS = (PRODUCTION, DEVELOPMENT)
"""Every agent has these from its first moment; only `PRODUCTION` is production."""
_ALIASES = {"prod": PRODUCTION, "dev": DEVELOPMENT}

KeyState = Literal["active", "expired", "revoked"]


@dataclass(frozen=True, slots=True)
class Agent:
    """One bot; everything it records belongs to it."""

    agent_id: AgentId
    uid: str
    organisation_id: OrganisationId
    client_id: ClientId
    client_slug: str
    slug: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Environment:
    """A stage an agent runs in, like `production`."""

    environment_id: EnvironmentId
    slug: str
    name: str
    is_production: bool
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of an API key: never the key."""

    key_id: KeyId
    uid: str
    agent_slug: str
    role: str
    name: str
    hint: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    @property
    def ends_at(self) -> int | None:
        """When it stops working, by expiry, rotation or revocation; None is never."""
        ends = [time for time in (self.expires_at, self.revoked_at) if time is not None]
        return min(ends, default=None)

    def state(self, now_us: int) -> KeyState:
        """Say whether the key works at `now_us`. A revocation in the future is an overlap."""
        if self.revoked_at is not None and self.revoked_at <= now_us:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now_us:
            return "expired"
        return "active"


def clean_environment(raw: str | None) -> str:
    """Return the slug an environment's name stands for.

    Missing or blank is production; `prod` and `dev` are aliases; case and outer space do not count.
    Anything else is an environment of the agent's own: a refusal would lose a message.
    """
    folded = (raw or "").strip().casefold()[: contract.MAX_ID_CHARS].strip()
    return _ALIASES.get(folded, folded) or PRODUCTION


def generate_key() -> str:
    """Make a new API key: `ags_`, 32 random hex digits, `_` and the checksum of what is before."""
    body = f"ags_{secrets.token_hex(16)}"
    return f"{body}_{contract.key_checksum(body)}"


def key_sha256(key: str) -> str:
    """Return what a key is looked up by. Hex digits count without case, so the key is folded.

    A plain hash will do: a key is 128 random bits, which nobody finds by trying.
    """
    return hashlib.sha256(key.lower().encode()).hexdigest()


def key_hint(key: str) -> str:
    """Return what a list shows of a key, enough to tell it from others."""
    return f"{key[:8].lower()}…{key[-6:].lower()}"
