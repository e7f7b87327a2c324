"""`agentsight scans`: what the malware scan has found, and scanning again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    add_json_flag,
    now_us,
    print_rows,
    read_settings,
    run_on_database,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.db import Database
    from agentsight.server.scans.store import Found

_MOST = 10_000


def add_commands(groups: Groups) -> None:
    """Add `list` and `start`."""
    commands = add_group(groups, "scans", "malware scans of files (needs AGENTSIGHT_CLAMD)")
    listing = add_command(commands, "list", "list infected files, and scans that failed", run_list)
    add_json_flag(listing)
    start = add_command(
        commands, "start", "let files that are not known to be clean be scanned", run_start
    )
    start.add_argument(
        "--all", action="store_true", help="clean ones too, after an update of the signatures"
    )


def run_list(arguments: argparse.Namespace) -> int:
    """List what was found."""
    from agentsight.server.scans import store

    async def work(db: Database, access: Access) -> list[Found]:
        return await db.read(lambda tx: store.list_found(tx, access, _MOST), slow=True)

    rows = [
        (
            row.agent_slug,
            row.scan,
            row.scan_detail,
            row.size_bytes,
            row.n_attachments,
            row.sha256,
            shown_time(row.scanned_at),
        )
        for row in run_on_database(arguments, work)
    ]
    names = ("agent", "scan", "detail", "size_bytes", "attachments", "sha256", "scanned_at")
    print_rows(names, rows, as_json=arguments.json)
    return 0


def run_start(arguments: argparse.Namespace) -> int:
    """Queue scans; the running server makes them."""
    from agentsight.server.scans import store

    if read_settings(arguments).clamd is None:
        raise CliError("AGENTSIGHT_CLAMD is not set, here and perhaps for the server too: set it")

    async def work(db: Database, access: Access) -> int:
        now = now_us()
        return await db.write(
            lambda tx: store.queue_scans(tx, access, also_clean=arguments.all, now_us=now)
        )

    n_queued = run_on_database(arguments, work)
    say(f"{n_queued} file{'s' * (n_queued != 1)} will be scanned by the running server")
    return 0
