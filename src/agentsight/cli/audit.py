"""`agentsight audit`: who read, shared, deleted and erased what."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    add_json_flag,
    not_a_time,
    positive_number,
    print_rows,
    run_on_database,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.audits.model import AuditRecord
    from agentsight.server.db import Database


def add_commands(groups: Groups) -> None:
    """Add `list`."""
    commands = add_group(groups, "audit", "the audit log, which is only ever added to")
    listing = add_command(commands, "list", "list who did what, the latest first", run_list)
    add = listing.add_argument
    add("--agent", default="", metavar="SLUG", help="of this agent only")
    add("--subject", default="", metavar="UID", help="what was done to this thing, by its uid")
    add("--action", default="", metavar="WORD", help="read, open, delete, erase, …")
    add(
        "--since", metavar="TIME", help="from this time on, like 2026-01-31 or 2026-01-31T12:00:00Z"
    )
    add("--limit", type=positive_number, default=1000, metavar="N", help="at most so many (1000)")
    add_json_flag(listing)


def run_list(arguments: argparse.Namespace) -> int:
    """List records."""
    from agentsight.server.agents.service import require_agent
    from agentsight.server.audits import service
    from agentsight.server.audits.model import ACTIONS

    if arguments.action and arguments.action not in ACTIONS:
        known = ", ".join(ACTIONS)
        raise CliError(f"--action {arguments.action!r}: give one of {known}", exit_code=2)
    since_us = _since(arguments.since)

    async def work(db: Database, access: Access) -> list[AuditRecord]:
        if arguments.agent:
            await db.read(lambda tx: require_agent(tx, access, arguments.agent))
        return await service.list_records(
            db,
            access,
            agent_slug=arguments.agent,
            subject_uid=arguments.subject,
            action=arguments.action,
            since_us=since_us,
            limit=min(arguments.limit, 1_000_000),
        )

    missing = f"agent '{arguments.agent}': see agentsight agents list"
    records = run_on_database(arguments, work, missing=missing)
    rows = [
        (
            shown_time(r.created_at),
            r.principal,
            r.principal_uid,
            r.action,
            r.subject_kind,
            r.subject_uid,
            r.n,
            r.agent_slug,
            r.detail and json.dumps(json.loads(r.detail), ensure_ascii=False),
        )
        for r in records
    ]
    names = ("at", "who", "who_uid", "action", "what", "uid", "n", "agent", "detail")
    print_rows(names, rows, as_json=arguments.json)
    return 0


def _since(text: str | None) -> int:
    if text is None:
        return 0
    from agentsight.server.times import parse_time

    time_us = parse_time(text)
    if time_us is None:
        raise not_a_time("--since", text)
    return max(0, time_us)
