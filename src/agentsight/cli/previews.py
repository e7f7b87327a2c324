"""`agentsight previews`: let old files be looked at again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    now_us,
    read_settings,
    run_on_database,
    say,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.db import Database


def add_commands(groups: Groups) -> None:
    """Add `retry`."""
    commands = add_group(groups, "previews", "previews, facts and texts of files")
    retry = add_command(
        commands,
        "retry",
        "let files be examined again that lack a preview, text or copy which their type can have:"
        " after an upgrade, or when a media library was installed",
        run_retry,
    )
    retry.add_argument(
        "--all", action="store_true", help="files that lack nothing, too: all are read again"
    )


def run_retry(arguments: argparse.Namespace) -> int:
    """Queue examinations; the running server makes them."""
    from agentsight.server.previews.retrying import retry_previews

    settings = read_settings(arguments)
    if not settings.examine:
        raise CliError("AGENTSIGHT_EXAMINE is off, here and perhaps for the server too: turn it on")

    async def work(db: Database, access: Access) -> int:
        return await retry_previews(
            db,
            access,
            max_examined_bytes=settings.max_examined_bytes,
            also_complete=arguments.all,
            now_us=now_us(),
        )

    n_queued = run_on_database(arguments, work)
    say(f"{n_queued} file{'s' * (n_queued != 1)} will be examined by the running server")
    return 0
