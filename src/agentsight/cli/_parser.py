"""Join the groups of commands to one parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the words of one command; exits with 2 where they are wrong.

    What nobody knows is a complaint of the command that was named, and not of the program: it has
    the help that is wanted then.
    """
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        named: argparse.ArgumentParser = vars(arguments).get("parser", parser)
        named.error(f"unrecognized arguments: {' '.join(unknown)}")
    return arguments


def _without_command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if arguments.version:
        return version.run(arguments)
    parser.print_help(sys.stderr)
    return 2
