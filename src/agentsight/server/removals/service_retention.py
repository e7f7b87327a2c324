"""What the operator can do with retention: set a rule, list the rules, unset one."""

from __future__ import annotations

import json

from agentsight.server.access import Access
from agentsight.server.agents import store as agents
from agentsight.server.agents.model import clean_environment
from agentsight.server.audits import store as audits
from agentsight.server.db import Database, Tx
from agentsight.server.ids import EnvironmentId
from agentsight.server.problems import Problem, invalid, not_found
from agentsight.server.removals import store_retention as store
from agentsight.server.removals.store_retention import Rule

MAX_DAYS = 36_500


async def set_rule(
    db: Database,
    access: Access,
    agent_slug: str,
    environment: str | None,
    days: int,
    *,
    now_us: int,
) -> None:
    """Keep an agent's conversations for so many days after their last message, and no longer.

    Args:
        environment: The one it is about; None is all that have no rule of their own.
        days: From 1.

    Raises:
        Problem: 400 for days out of range; 404 for an agent or environment that is not there.
    """
    if not 1 <= days <= MAX_DAYS:
        raise invalid("days", f"Keep conversations for 1 to {MAX_DAYS} days.")

    async def unit(tx: Tx) -> None:
        agent, environment_id = await _place(tx, access, agent_slug, environment, now_us)
        await store.set_rule(tx, agent, environment_id, days, now_us=now_us)
        await _audit(tx, agent, environment, days, now_us)

    await db.write(unit)


async def unset_rule(
    db: Database, access: Access, agent_slug: str, environment: str | None, *, now_us: int
) -> None:
    """Remove a rule: what it was about is kept for ever, or as the agent's other rule says.

    Raises:
        Problem: 404 for an agent, environment or rule that is not there.
    """

    async def unit(tx: Tx) -> None:
        agent, environment_id = await _place(tx, access, agent_slug, environment, now_us)
        if not await store.unset_rule(tx, agent, environment_id):
            raise not_found()
        await _audit(tx, agent, environment, None, now_us)

    await db.write(unit)


async def list_rules(db: Database, access: Access, agent_slug: str | None = None) -> list[Rule]:
    """Return the rules, by agent and environment.

    Raises:
        Problem: 404 for an agent that is not there.
    """

    async def query(tx: Tx) -> list[Rule]:
        scope = access
        if agent_slug is not None:
            agent = await agents.find_agent(tx, access, agent_slug)
            if agent is None:
                raise _no_agent(agent_slug)
            scope = access.within(agent.agent_id)
        return await store.list_rules(tx, scope)

    return await db.read(query)


async def _place(
    tx: Tx, access: Access, agent_slug: str, environment: str | None, now_us: int
) -> tuple[Access, EnvironmentId | None]:
    agent = await agents.find_agent(tx, access, agent_slug)
    if agent is None:
        raise _no_agent(agent_slug)
    scope = access.within(agent.agent_id)
    if environment is None:
        return scope, None
    slug = clean_environment(environment)
    environment_id = await agents.environment_id(tx, scope, slug, now_us, create=False)
    if environment_id is None:
        raise Problem(404, "not_found", f"agent '{agent_slug}' has no environment '{slug}'")
    return scope, environment_id


def _no_agent(agent_slug: str) -> Problem:
    return Problem(
        404, "not_found", f"there is no agent '{agent_slug}': see agentsight agents list"
    )


async def _audit(
    tx: Tx, access: Access, environment: str | None, days: int | None, now_us: int
) -> None:
    """Write down who changed where how long things live: it deletes as surely as a deletion."""
    slug = None if environment is None else clean_environment(environment)
    detail = json.dumps({"environment": slug, "days": days})
    await audits.add(tx, access, "retain", "agent", None, detail=detail, now_us=now_us)
