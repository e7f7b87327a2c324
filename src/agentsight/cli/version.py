"""`agentsight version`."""

from __future__ import annotations

import argparse

from agentsight.cli._support import Groups, add_command


def add_commands(groups: Groups) -> None:
    """Add the command."""
    add_command(groups, "version", "print the version", run, on_database=False, needs_server=False)


def run(arguments: argparse.Namespace) -> int:
    """Print the version alone, for programs to read."""
    del arguments
    from agentsight import __version__

    print(__version__)
    return 0
