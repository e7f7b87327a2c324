"""Who asks, and what they may see and do: the first argument of every store function.

An `Access` is made at the door (a key, a link, a command, a job) and never widened. Whoever may not
see a thing gets the same 404 as for a thing that does not exist, so stores ask only for what the
caller may see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Flag, auto
from functools import lru_cache
from typing import Literal

from agentsight.server.ids import AgentId, ClientId, KeyId, OrganisationId

NO_AGENT = AgentId(0)
"""No row has it: a store function that forgets a wider scope shows nothing, not everything."""

PrincipalKind = Literal["key", "user", "share", "embed", "link", "operator", "job"]


class Permission(Flag):
    """What a principal may do. A key's role `write` includes `read`; `ingest` is reserved."""

    NONE = 0
    READ = auto()
    WRITE = auto()
    ADMIN = auto()


ROLE_PERMISSIONS: dict[str, Permission] = {
    "read": Permission.READ,
    "write": Permission.READ | Permission.WRITE,
    "ingest": Permission.WRITE,
}


@dataclass(frozen=True, slots=True)
class Access:
    """One caller's reach: a principal, its scope, its permissions.

    `agent_id` is the scope of keys, links and jobs; users of an organisation or client have none.
    `principal_uid` names the key or user in the audit log; links, the operator and jobs have none.
    """

    principal: PrincipalKind
    permissions: Permission
    organisation_id: OrganisationId
    client_id: ClientId | None = None
    agent_id: AgentId = NO_AGENT
    agent_uid: str = ""
    key_id: KeyId | None = None
    principal_uid: str | None = None

    def may(self, permission: Permission) -> bool:
        """Say whether every flag of `permission` is granted."""
        return permission in self.permissions

    def within(self, agent_id: AgentId) -> Access:
        """Narrow the scope to one agent, of those that a store found under this access."""
        return replace(self, agent_id=agent_id, agent_uid="")


def job_access(
    organisation_id: OrganisationId,
    agent_id: AgentId = NO_AGENT,
    *,
    principal: Literal["job", "operator"] = "job",
) -> Access:
    """Make the access of our own background work or command line, within one organisation."""
    return Access(
        principal,
        Permission.READ | Permission.WRITE | Permission.ADMIN,
        organisation_id,
        agent_id=agent_id,
    )


@lru_cache(maxsize=1024)
def link_access(agent_id: AgentId) -> Access:
    """Make the access of whoever holds a signed link to a file of this agent.

    The link names one file and no organisation: it is of use to say who read, not to ask for more.
    """
    return Access("link", Permission.NONE, OrganisationId(0), agent_id=agent_id)
