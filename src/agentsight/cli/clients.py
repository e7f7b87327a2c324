"""`agentsight clients`: whom agents are built for."""

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
    from agentsight.server.accounts.model import Client
    from agentsight.server.db import Database


def add_commands(groups: Groups) -> None:
    """Add `create` and `list`."""
    commands = add_group(groups, "clients", "the clients that agents are built for")
    create = add_command(commands, "create", "make a client", run_create)
    create.add_argument("slug", metavar="SLUG", help="its name on the command line: a-z 0-9 - _ .")
    create.add_argument("--name", default="", help="what people read (the slug)")
    add_json_flag(add_command(commands, "list", "list the clients", run_list))


def run_create(arguments: argparse.Namespace) -> int:
    """Make a client; its slug goes to standard output."""
    from agentsight.server.accounts import service

    async def work(db: Database, access: Access) -> Client:
        return await service.create_client(
            db, access, arguments.slug, name=arguments.name, now_us=now_us()
        )

    client = run_on_database(arguments, work, create_organisation=True)
    next_words = f"agentsight agents create SLUG --client {client.slug}"
    say(f"made the client '{client.slug}'; next: {as_run(next_words, arguments)}")
    print(client.slug)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """List the clients."""
    from agentsight.server.accounts import service

    clients = run_on_database(arguments, service.list_clients)
    rows = [(c.slug, c.name, c.uid, shown_time(c.created_at)) for c in clients]
    print_rows(("slug", "name", "uid", "created_at"), rows, as_json=arguments.json)
    return 0
