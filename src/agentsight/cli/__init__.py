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
    from agentsight.cli._parser import build_parser
    from agentsight.cli._support import CliError, as_run

    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except CliError as error:
        print(f"agentsight: {as_run(str(error), arguments)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who reads us (`| head`) has seen enough; nothing may be written at exit any more.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    return code
