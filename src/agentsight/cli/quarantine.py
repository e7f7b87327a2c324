"""`agentsight quarantine`: block files by their content, in the whole instance."""

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
    from agentsight.server.attachments.store_quarantine import Quarantined
    from agentsight.server.db import Database


def add_commands(groups: Groups) -> None:
    """Add `add`, `remove` and `list`."""
    commands = add_group(groups, "quarantine", "files that are blocked, by their content")
    add = add_command(commands, "add", "block a file, wherever it is and comes again", run_add)
    add.add_argument("sha256", metavar="SHA256", help="the SHA-256 of its bytes (see its row)")
    add.add_argument("--reason", required=True, metavar="TEXT", help="for the next operator")
    remove = add_command(commands, "remove", "let a blocked file through again", run_remove)
    remove.add_argument("sha256", metavar="SHA256", help="as `list` shows it")
    listing = add_command(commands, "list", "list what is blocked", run_list)
    add_json_flag(listing)


def run_add(arguments: argparse.Namespace) -> int:
    """Block a file."""
    from agentsight.server.scans import quarantine

    async def work(db: Database, access: Access) -> Quarantined:
        return await quarantine.quarantine(
            db, access, arguments.sha256, reason=arguments.reason, now_us=now_us()
        )

    row = run_on_database(arguments, work)
    n = row.n_blobs
    where = "no agent has it now" if n == 0 else f"{n} agent{'s have' if n > 1 else ' has'} it"
    say(f"blocked at once, and when it comes again: {row.sha256} ({where})")
    say("browsers and caches may still show what they keep, for an hour at most")
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    """Let a blocked file through."""
    from agentsight.server.scans import quarantine

    async def work(db: Database, access: Access) -> None:
        await quarantine.release(db, access, arguments.sha256, now_us=now_us())

    run_on_database(arguments, work, missing="such blocked file: see agentsight quarantine list")
    say(f"no longer blocked: {arguments.sha256.strip().lower()}")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """List what is blocked."""
    from agentsight.server.scans import quarantine

    async def work(db: Database, _access: Access) -> list[Quarantined]:
        return await quarantine.list_quarantined(db)

    rows = [
        (row.sha256, row.n_blobs, shown_time(row.created_at), row.reason)
        for row in run_on_database(arguments, work)
    ]
    print_rows(("sha256", "agents", "blocked_at", "reason"), rows, as_json=arguments.json)
    return 0
