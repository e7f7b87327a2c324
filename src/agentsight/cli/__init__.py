"""The command line: `agentsight COMMAND …`.

Here stand the entry point and the list of groups; each group of commands is one file. Whatever a
command needs of the server is imported when it runs, so that help is quick and an installation
without the extra `server` can say what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 used wrongly.

    Args:
        argv: The words after the program's name; None takes them from the process.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        _close_output()
        return 130
    except BrokenPipeError:  # who reads us (`| head`) has seen enough
        _close_output()
        return 0
    except OSError as error:
        _close_output()
        where = error.filename or "the output cannot be written"
        print(f"agentsight: {where}: {error.strerror or error}", file=sys.stderr)
        return 1


def _run(argv: Sequence[str] | None) -> int:
    # Imported here: Ctrl-C while they are, too, is to end without a traceback.
    from agentsight.cli._parser import parse
    from agentsight.cli._support import CliError, as_run

    arguments = parse(argv)
    try:
        code: int = arguments.run(arguments)
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - `>&-`
            sys.stdout.flush()
    except CliError as error:
        print(f"agentsight: {as_run(str(error), arguments)}", file=sys.stderr)
        _close_output()
        return error.exit_code
    return code


def _close_output() -> None:
    """Write what waits, or let it go: nothing may fail at exit, where nobody catches it."""
    import os

    try:
        sys.stdout.flush()
    except (OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
