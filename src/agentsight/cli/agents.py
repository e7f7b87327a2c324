"""`agentsight agents`: the bots that record."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    Groups,
    add_command,
    add_group,
    add_json_flag,
    as_run,
    now_us,
    print_rows,
    run_on_database,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.agents.model import Agent
    from agentsight.server.db import Database


def add_commands(groups: Groups) -> None:
    """Add `create` and `list`."""
    commands = add_group(groups, "agents", "the agents that record conversations")
    create = add_command(commands, "create", "make an agent", run_create)
    create.add_argument("slug", metavar="SLUG", help="its name on the command line: a-z 0-9 - _ .")
    create.add_argument("--client", default="default", metavar="SLUG", help="whom it is for")
    create.add_argument("--name", default="", help="what people read (the slug)")
    add_json_flag(add_command(commands, "list", "list the agents", run_list))


def run_create(arguments: argparse.Namespace) -> int:
    """Make an agent; its slug goes to standard output."""
    from agentsight.server.agents import service

    async def work(db: Database, access: Access) -> Agent:
        return await service.create_agent(
            db,
            access,
            arguments.slug,
            client_slug=arguments.client,
            name=arguments.name,
            now_us=now_us(),
        )

    agent = run_on_database(
        arguments,
        work,
        create_organisation=True,
        missing=f"client '{arguments.client}': see agentsight clients list",
    )
    next_words = f"agentsight keys create --agent {agent.slug} --role write"
    say(
        f"made the agent '{agent.slug}' of client '{agent.client_slug}';"
        f" next: {as_run(next_words, arguments)}"
    )
    print(agent.slug)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """List the agents."""
    from agentsight.server.agents import service

    agents = run_on_database(arguments, service.list_agents)
    rows = [(a.slug, a.name, a.client_slug, a.uid, shown_time(a.created_at)) for a in agents]
    print_rows(("slug", "name", "client", "uid", "created_at"), rows, as_json=arguments.json)
    return 0
