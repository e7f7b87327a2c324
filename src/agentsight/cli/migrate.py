"""`agentsight migrate`: make the database, or bring it up to this version."""

from __future__ import annotations

import argparse

from agentsight.cli._support import (
    Groups,
    add_command,
    explained,
    name_database,
    read_settings,
    say,
)

_TEXTS = {
    "created": "made a new, empty database",
    "migrated": "brought the database up to this version",
    "current": "nothing to do: the database is up to date",
}


def add_commands(groups: Groups) -> None:
    """Add the command."""
    add_command(groups, "migrate", "make the database, or bring it up to date", run)


def run(arguments: argparse.Namespace) -> int:
    """Migrate, and say what was done."""
    settings = read_settings(arguments)
    name_database(settings)
    with explained():
        from agentsight.cli._places import prepare_database_place
        from agentsight.server.db.migrate import ensure_schema

        prepare_database_place(settings)
        say(_TEXTS[ensure_schema(settings.database_url)])
    return 0
