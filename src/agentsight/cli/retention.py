"""`agentsight retention`: how long conversations are kept."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    Groups,
    add_command,
    add_group,
    add_json_flag,
    now_us,
    print_rows,
    run_on_database,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.db import Database
    from agentsight.server.removals.store_retention import Rule


def add_commands(groups: Groups) -> None:
    """Add `set`, `list` and `unset`."""
    commands = add_group(groups, "retention", "how long conversations are kept")
    setting = add_command(
        commands, "set", "erase conversations so long after their last message", run_set
    )
    setting.add_argument("--days", required=True, type=int, metavar="N", help="from 1")
    unset = add_command(commands, "unset", "keep conversations for ever again", run_unset)
    for command in (setting, unset):
        command.add_argument("--agent", required=True, metavar="SLUG", help="whose they are")
        command.add_argument(
            "--environment", metavar="NAME", help="of this one (all that have no rule of their own)"
        )
    listing = add_command(commands, "list", "list the rules", run_list)
    listing.add_argument("--agent", metavar="SLUG", help="of this agent only")
    add_json_flag(listing)


def run_set(arguments: argparse.Namespace) -> int:
    """Make or change a rule."""
    from agentsight.server.removals import service_retention

    async def work(db: Database, access: Access) -> None:
        await service_retention.set_rule(
            db, access, arguments.agent, arguments.environment, arguments.days, now_us=now_us()
        )

    run_on_database(arguments, work)
    say(
        f"conversations of {_place(arguments)} are erased {arguments.days} days after their last"
        " message, where the server runs, beginning within a minute"
    )
    return 0


def run_unset(arguments: argparse.Namespace) -> int:
    """Remove a rule."""
    from agentsight.server.removals import service_retention

    async def work(db: Database, access: Access) -> None:
        await service_retention.unset_rule(
            db, access, arguments.agent, arguments.environment, now_us=now_us()
        )

    run_on_database(arguments, work, missing="such rule: see agentsight retention list")
    say(f"there is no rule any more for {_place(arguments)}")
    return 0


def _place(arguments: argparse.Namespace) -> str:
    where = f" in '{arguments.environment}'" if arguments.environment is not None else ""
    return f"'{arguments.agent}'{where}"


def run_list(arguments: argparse.Namespace) -> int:
    """List the rules."""
    from agentsight.server.removals import service_retention

    async def work(db: Database, access: Access) -> list[Rule]:
        return await service_retention.list_rules(db, access, arguments.agent)

    rules = run_on_database(arguments, work)
    rows = [(r.agent, r.environment, r.retention_days, shown_time(r.updated_at)) for r in rules]
    names = ("agent", "environment", "days", "changed_at")
    print_rows(names, rows, as_json=arguments.json)
    return 0
