"""Join the groups of commands to one parser."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import NoReturn

from agentsight.cli import (
    agents,
    attachments,
    audit,
    clients,
    customers,
    doctor,
    erasures,
    fsck,
    keys,
    migrate,
    previews,
    quarantine,
    retention,
    scans,
    serve,
    users,
    version,
)

# To add a group: one file with `add_commands(groups)`, and its name here.
GROUPS = (
    serve,
    migrate,
    clients,
    agents,
    keys,
    users,
    attachments,
    customers,
    retention,
    erasures,
    audit,
    quarantine,
    scans,
    previews,
    doctor,
    fsck,
    version,
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is; exit with 2."""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="agentsight",
        description="Keep the conversations of AI agents and the files in them.",
        epilog="Every setting is also an environment variable: see docs/settings.md.",
    )
    parser.add_argument("--version", action="store_const", const=True, help=argparse.SUPPRESS)
    parser.set_defaults(run=partial(_without_command, parser))
    groups = parser.add_subparsers(metavar="COMMAND", title="commands")
    for group in GROUPS:
        group.add_commands(groups)
    return parser


def _without_command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.version:
        return version.run(arguments)
    parser.print_help(sys.stderr)
    return 2
