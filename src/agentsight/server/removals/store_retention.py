"""Rules of how long conversations are kept, and which ones are past their time."""

from __future__ import annotations

from dataclasses import dataclass

from agentsight.server.access import Access
from agentsight.server.db import Tx, sql
from agentsight.server.ids import AgentId, ConversationPk, EnvironmentId, OrganisationId

_SET = sql(
    "INSERT INTO retention_rules (agent_id, environment_id, retention_days, created_at, updated_at)"
    " VALUES ($1, $2::bigint, $3, $4, $4)"
    " ON CONFLICT (agent_id, coalesce(environment_id, 0)) DO UPDATE SET"
    " retention_days = excluded.retention_days, updated_at = excluded.updated_at"
)
_UNSET = sql(
    "DELETE FROM retention_rules"
    " WHERE agent_id = $1 AND coalesce(environment_id, 0) = coalesce($2::bigint, 0)"
)
_LIST = sql(
    "SELECT g.slug, e.slug, r.retention_days, r.updated_at FROM retention_rules r"
    " JOIN agents g ON g.id = r.agent_id"
    " LEFT JOIN environments e ON e.agent_id = r.agent_id AND e.id = r.environment_id"
    " WHERE g.organisation_id = $1 AND ($2::bigint = 0 OR g.id = $2)"
    " ORDER BY g.slug, e.slug NULLS FIRST, r.id"
)
_ALL = sql(
    "SELECT r.agent_id, g.organisation_id, r.environment_id, r.retention_days"
    " FROM retention_rules r JOIN agents g ON g.id = r.agent_id ORDER BY r.agent_id, r.id"
)
# started_at is never after ended_at: the index by start finds whatever can be due.
_DUE = (
    "SELECT c.id FROM conversations c WHERE c.agent_id = $1 AND c.started_at < $2"
    " AND coalesce(c.ended_at, c.started_at) < $2 AND c.erased_by IS NULL"
)
_DUE_IN_ENVIRONMENT = sql(
    f"{_DUE} AND c.environment_id = $3 ORDER BY c.started_at, c.id LIMIT $4::bigint"
)
_DUE_ELSEWHERE = sql(
    f"{_DUE} AND $3::bigint IS NULL AND c.environment_id NOT IN (SELECT r.environment_id"
    " FROM retention_rules r WHERE r.agent_id = $1 AND r.environment_id IS NOT NULL)"
    " ORDER BY c.started_at, c.id LIMIT $4::bigint"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it is shown; `environment` None is all that have no rule of their own."""

    agent: str
    environment: str | None
    retention_days: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class DueRule:
    """A rule as the chore needs it."""

    agent_id: AgentId
    organisation_id: OrganisationId
    environment_id: EnvironmentId | None
    retention_days: int


async def set_rule(
    tx: Tx, access: Access, environment_id: EnvironmentId | None, days: int, *, now_us: int
) -> None:
    """Make or change a rule of the caller's agent."""
    await tx.execute(_SET, access.agent_id, environment_id, days, now_us)


async def unset_rule(tx: Tx, access: Access, environment_id: EnvironmentId | None) -> bool:
    """Remove a rule of the caller's agent; False when there was none."""
    return await tx.execute(_UNSET, access.agent_id, environment_id) == 1


async def list_rules(tx: Tx, access: Access) -> list[Rule]:
    """Return the rules that the caller may see."""
    rows = await tx.rows(_LIST, access.organisation_id, access.agent_id)
    return [Rule(*row) for row in rows]


async def all_rules(tx: Tx) -> list[DueRule]:
    """Return all rules. No access: the chore keeps them for everybody."""
    return [DueRule(*row) for row in await tx.rows(_ALL)]


async def due(
    tx: Tx, access: Access, environment_id: EnvironmentId | None, before_us: int, limit: int
) -> list[ConversationPk]:
    """Return some of the agent's conversations whose last message is older, oldest start first."""
    statement = _DUE_ELSEWHERE if environment_id is None else _DUE_IN_ENVIRONMENT
    rows = await tx.rows(statement, access.agent_id, before_us, environment_id, limit)
    return [ConversationPk(row[0]) for row in rows]
