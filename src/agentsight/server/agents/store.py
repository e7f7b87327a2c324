"""SQL of agents, environments and keys."""

from __future__ import annotations

from agentsight import _contract as contract
from agentsight.server.access import ROLE_PERMISSIONS, Access
from agentsight.server.agents.model import (
    BUILT_IN_ENVIRONMENTS,
    PRODUCTION,
    Agent,
    Environment,
    Key,
)
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, ClientId, EnvironmentId, KeyId
from agentsight.server.problems import Problem

# A principal of one agent sees that agent, one of a client that client's, others all of the
# organisation's.
_VISIBLE = (
    "a.organisation_id = $1 AND ($2::bigint = 0 OR a.client_id = $2)"
    " AND ($3::bigint = 0 OR a.id = $3)"
    " AND a.deleted_at IS NULL AND c.deleted_at IS NULL"
)
_AGENT_COLUMNS = "a.id, a.uid, a.organisation_id, a.client_id, c.slug, a.slug, a.name, a.created_at"
_AGENT_TABLES = "agents a JOIN clients c ON c.id = a.client_id"

_LIST_AGENTS = sql(f"SELECT {_AGENT_COLUMNS} FROM {_AGENT_TABLES} WHERE {_VISIBLE} ORDER BY a.id")
_FIND_AGENT = sql(f"SELECT {_AGENT_COLUMNS} FROM {_AGENT_TABLES} WHERE {_VISIBLE} AND a.slug = $4")
_INSERT_AGENT = sql(
    "INSERT INTO agents (uid, organisation_id, client_id, slug, name, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $6) RETURNING id"
)

_FIND_ENVIRONMENT = sql("SELECT id FROM environments WHERE agent_id = $1 AND slug = $2")
_LIST_ENVIRONMENTS = sql(
    "SELECT id, slug, name, is_production, created_at, updated_at FROM environments"
    " WHERE agent_id = $1 ORDER BY id"
)
_COUNT_ENVIRONMENTS = sql("SELECT count(*) FROM environments WHERE agent_id = $1")
# No key of the row changes, so writers that refer to the agent need not wait for this lock.
_LOCK_AGENT = sql(
    "SELECT id FROM agents WHERE id = $1 FOR NO KEY UPDATE",
    sqlite="SELECT id FROM agents WHERE id = $1",
)
_INSERT_ENVIRONMENT = sql(
    "INSERT INTO environments (agent_id, slug, name, is_production, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $5) ON CONFLICT (agent_id, slug) DO NOTHING RETURNING id"
)

_FIND_KEY_BY_HASH = sql(
    "SELECT k.id, k.role, k.expires_at, k.revoked_at, a.id, a.uid, a.organisation_id, a.client_id,"
    " k.uid FROM api_keys k JOIN agents a ON a.id = k.agent_id JOIN clients c ON c.id = a.client_id"
    " WHERE k.key_sha256 = $1 AND a.deleted_at IS NULL AND c.deleted_at IS NULL"
)
_INSERT_KEY = sql(
    "INSERT INTO api_keys (uid, agent_id, role, name, key_sha256, hint, created_at, updated_at,"
    " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8) RETURNING id"
)
_KEY_COLUMNS = (
    "k.id, k.uid, a.slug, k.role, k.name, k.hint, k.created_at, k.expires_at, k.revoked_at"
)
_KEY_TABLES = "api_keys k JOIN agents a ON a.id = k.agent_id JOIN clients c ON c.id = a.client_id"
_LIST_KEYS = sql(
    f"SELECT {_KEY_COLUMNS} FROM {_KEY_TABLES} WHERE {_VISIBLE} AND ($4::text = '' OR a.slug = $4)"
    " ORDER BY k.id"
)
_FIND_KEY = sql(f"SELECT {_KEY_COLUMNS} FROM {_KEY_TABLES} WHERE {_VISIBLE} AND k.id = $4")
_FIND_KEY_ID = sql(f"SELECT k.id FROM {_KEY_TABLES} WHERE {_VISIBLE} AND k.key_sha256 = $4")
_REVOKE_KEY = sql(
    "UPDATE api_keys SET revoked_at = $5, updated_at = $6"
    " WHERE id = $4 AND (revoked_at IS NULL OR revoked_at > $5)"
    f" AND id IN (SELECT k.id FROM {_KEY_TABLES} WHERE {_VISIBLE})"
)
# Not `revoked_at > …`: of two rotations side by side, the second finds the key rotated.
_ROTATE_KEY = sql(
    "UPDATE api_keys SET revoked_at = $5, updated_at = $6 WHERE id = $4 AND revoked_at IS NULL"
    f" AND id IN (SELECT k.id FROM {_KEY_TABLES} WHERE {_VISIBLE})"
)


def _scope(access: Access) -> tuple[int, int, int]:
    return access.organisation_id, access.client_id or 0, access.agent_id


# --- Agents ---------------------------------------------------------------------------------------


async def list_agents(tx: Tx, access: Access) -> list[Agent]:
    """Return the agents the caller may see, oldest first."""
    return [Agent(*row) for row in await tx.rows(_LIST_AGENTS, *_scope(access))]


async def find_agent(tx: Tx, access: Access, slug: str) -> Agent | None:
    """Return the agent of that slug, if the caller may see it."""
    row = await tx.row(_FIND_AGENT, *_scope(access), slug)
    return None if row is None else Agent(*row)


async def insert_agent(
    tx: Tx, access: Access, *, client_id: ClientId, slug: str, name: str, uid: str, now_us: int
) -> AgentId:
    """Add an agent with its built-in environments.

    Raises:
        UniqueViolation: The slug is taken, maybe by an agent the caller cannot see.
    """
    row_id = await tx.value(
        _INSERT_AGENT, uid, access.organisation_id, client_id, slug, name, now_us
    )
    agent_id = AgentId(row_id)
    for environment in BUILT_IN_ENVIRONMENTS:
        is_production = int(environment == PRODUCTION)
        label = environment.capitalize()
        await tx.value(_INSERT_ENVIRONMENT, agent_id, environment, label, is_production, now_us)
    return agent_id


# --- Environments ---------------------------------------------------------------------------------


async def list_environments(tx: Tx, access: Access) -> list[Environment]:
    """Return the environments of the caller's agent, oldest first."""
    rows = await tx.rows(_LIST_ENVIRONMENTS, access.agent_id)
    return [Environment(r[0], r[1], r[2], bool(r[3]), r[4], r[5]) for r in rows]


async def environment_id(
    tx: Tx,
    access: Access,
    slug: str,
    now_us: int,
    create: bool = True,
    *,
    max_environments: int = contract.MAX_ENVIRONMENTS_PER_AGENT,
) -> EnvironmentId | None:
    """Return the id of the agent's environment `slug`, which it gets when it has none of that name.

    Args:
        slug: As `clean_environment` returns it.
        create: Whether to make it (never a production one); else None says there is none.
        max_environments: How many an agent may have, the built-in two counted.

    Raises:
        Problem: 400 `too_many_environments` when it would be one too many.
    """
    found = await tx.value(_FIND_ENVIRONMENT, access.agent_id, slug)
    if found is not None or not create:
        return found
    # One at a time for an agent, so that requests side by side cannot pass the limit.
    await tx.value(_LOCK_AGENT, access.agent_id)
    found = await tx.value(_FIND_ENVIRONMENT, access.agent_id, slug)
    if found is not None:
        return found
    if await tx.value(_COUNT_ENVIRONMENTS, access.agent_id) >= max_environments:
        text = f"The agent already has {max_environments} environments; use one of them."
        raise Problem(400, "too_many_environments", fields={"environment": [text]})
    return await tx.value(_INSERT_ENVIRONMENT, access.agent_id, slug, slug, 0, now_us)


# --- Keys -----------------------------------------------------------------------------------------


async def find_access(tx: Tx, key_sha256: str, now_us: int) -> tuple[Access, int | None] | None:
    """Return the access of the key with that hash and when it ends (µs), or None.

    The one store function without an `Access` before it: it is where they come from.
    """
    row = await tx.row(_FIND_KEY_BY_HASH, key_sha256)
    if row is None:
        return None
    key_id, role, expires_at, revoked_at, agent_id, agent_uid, organisation_id, client_id = row[:8]
    ends = [time for time in (expires_at, revoked_at) if time is not None]
    end_us = min(ends) if ends else None
    if end_us is not None and end_us <= now_us:
        return None
    access = Access(
        "key",
        ROLE_PERMISSIONS[role],
        organisation_id,
        client_id=client_id,
        agent_id=agent_id,
        agent_uid=agent_uid,
        key_id=key_id,
        principal_uid=row[8],
    )
    return access, end_us


async def insert_key(
    tx: Tx,
    agent_id: AgentId,
    *,
    uid: str,
    role: str,
    name: str,
    key_sha256: str,
    hint: str,
    now_us: int,
    expires_at: int | None,
) -> KeyId:
    """Add a key to an agent that the caller has been shown to own."""
    return await tx.value(
        _INSERT_KEY, uid, agent_id, role, name, key_sha256, hint, now_us, expires_at
    )


async def list_keys(tx: Tx, access: Access, agent_slug: str = "") -> list[Key]:
    """Return the keys the caller may see, oldest first; of one agent, or of all."""
    return [Key(*row) for row in await tx.rows(_LIST_KEYS, *_scope(access), agent_slug)]


async def find_key(tx: Tx, access: Access, key_id: KeyId) -> Key | None:
    """Return one key, if the caller may see its agent."""
    row = await tx.row(_FIND_KEY, *_scope(access), key_id)
    return None if row is None else Key(*row)


async def find_key_id(tx: Tx, access: Access, key_sha256: str) -> KeyId | None:
    """Return the id of the key with that hash, if the caller may see its agent."""
    return await tx.value(_FIND_KEY_ID, *_scope(access), key_sha256)


async def end_key(tx: Tx, access: Access, key_id: KeyId, *, end_us: int, now_us: int) -> bool:
    """Let a visible key end at `end_us`; an earlier end stays. Say whether anything changed."""
    return await tx.execute(_REVOKE_KEY, *_scope(access), key_id, end_us, now_us) == 1


async def rotate_key(tx: Tx, access: Access, key_id: KeyId, *, end_us: int, now_us: int) -> bool:
    """Let a visible key end at `end_us` if nothing has ended it yet; say whether that was so."""
    return await tx.execute(_ROTATE_KEY, *_scope(access), key_id, end_us, now_us) == 1
