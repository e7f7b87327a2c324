"""What the commands share: flags, the open database, errors in one line, lists.

What a program reads goes to standard output; what a person reads beside it, to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.db import Database
    from agentsight.server.settings import Settings

T = TypeVar("T")
_NAMED = re.compile(
    r"\bagentsight ((?:serve|migrate"
    r"|(?:agents|audit|clients|customers|erasures|keys|quarantine|retention|scans|users)"
    r" [a-z]+)\b)(?! --d)"
)
_SERVER_PACKAGES = ("msgspec", "litestar", "uvicorn", "jinja2", "argon2", "asyncpg")


class CliError(Exception):
    """A command cannot go on; the text is the one line that says why and what to do."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Groups(Protocol):
    """What `add_subparsers` returns."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add a command."""
        ...


class Command(Protocol):
    """Runs one command and returns its exit code."""

    def __call__(self, arguments: argparse.Namespace) -> int:
        """Run."""
        ...


def say(text: str) -> None:
    """Tell a person something beside the output."""
    print(text, file=sys.stderr, flush=True)


def hand_out(what: str, text: str, *, if_lost: str) -> None:
    """Print a secret alone on standard output; say beside it what it is.

    Where standard output is kept or read by a program, the sentence stands for itself.

    Args:
        if_lost: What to do where it cannot be printed: it is shown once.

    Raises:
        CliError: It could not be printed.
    """
    try:
        is_shown = sys.stdout.isatty()
        say(f"{what}:" if is_shown else f"{what} (on standard output)")
        print(text, flush=True)
    except (OSError, AttributeError) as error:  # AttributeError: there is no standard output
        reason = getattr(error, "strerror", None) or "there is no standard output"
        raise CliError(f"it could not be printed ({reason}): {if_lost}") from error


def as_run(text: str, arguments: argparse.Namespace) -> str:
    """Return a text whose commands can be run here: by this program, on the database just used.

    Texts name commands in their plain form, `agentsight keys list`; what the environment says is
    not repeated, as it is there for the next command too.
    """
    try:
        from agentsight.server.commands import program
    except ImportError:  # the SDK alone is installed
        return text
    given = vars(arguments)
    at = ""
    if given.get("database_url"):
        from agentsight.server.settings import hide_password

        at = f" --database-url {shlex.quote(hide_password(given['database_url']))}"
    elif given.get("data_dir"):
        at = f" --data {shlex.quote(given['data_dir'])}"

    def write(found: re.Match[str]) -> str:
        words = found[1]
        return f"{program()} {words}{'' if words == 'keys generate' else at}"

    return _NAMED.sub(write, text)


def now_us() -> int:
    """Return the time in µs since 1970 UTC."""
    return time.time_ns() // 1000


def require_server() -> None:
    """Make sure that the packages of the extra `server` are there.

    Raises:
        CliError: One is missing; says how to install them.
    """
    missing = [name for name in _SERVER_PACKAGES if find_spec(name) is None]
    if missing:
        from agentsight import __version__

        wheel = f"agentsight-open/agentsight_open-{__version__}-py3-none-any.whl"
        raise CliError(
            "this command needs the server, which is not installed here"
            f" ({', '.join(missing)} missing): run `make serve` in a clone, or, where a server runs"
            f" already, pip install 'agentsight-open[server] @ http://SERVER:8000/sdk/{wheel}'"
        )


# --- Parsers --------------------------------------------------------------------------------------


def add_group(groups: Groups, name: str, text: str) -> Groups:
    """Add a group like `keys`, whose commands follow it; alone it prints its help."""
    parser = groups.add_parser(name, help=text, description=text)

    def help_only(_arguments: argparse.Namespace) -> int:
        parser.print_help(sys.stderr)
        return 2

    parser.set_defaults(run=help_only, parser=parser)
    return parser.add_subparsers(metavar="COMMAND", title="commands")


def add_command(
    groups: Groups,
    name: str,
    text: str,
    run: Command,
    *,
    on_database: bool = True,
    needs_server: bool = True,
) -> argparse.ArgumentParser:
    """Add one command.

    Args:
        on_database: Add the flags that name its database.
        needs_server: Where the extra `server` is missing, say so before it runs.
    """
    parser = groups.add_parser(name, help=text, description=text)

    def run_with_server(arguments: argparse.Namespace) -> int:
        require_server()
        return run(arguments)

    parser.set_defaults(run=run_with_server if needs_server else run, parser=parser)
    if on_database:
        add_database_flags(parser)
    return parser


def add_database_flags(parser: argparse.ArgumentParser, *, also_files: bool = False) -> None:
    """Add `--data` and `--database-url`; both at once only where files count too (`also_files`)."""
    which = parser if also_files else parser.add_mutually_exclusive_group()
    which.add_argument(
        "--data", dest="data_dir", metavar="DIR", help="the data directory (./agentsight-data)"
    )
    which.add_argument(
        "--database-url",
        metavar="URL",
        help="sqlite:///… or postgresql://… in place of "
        + ("the data directory's" if also_files else "--data"),
    )


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--json` to a command that lists."""
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")


def positive_number(text: str) -> int:
    """Read a number from 1 on, as the `type` of a flag."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def not_a_time(flag: str, text: str) -> CliError:
    """Make the error of a flag that should be a date or time."""
    return CliError(
        f"{flag} {text!r}: give a date or time like 2026-01-31 or 2026-01-31T12:00:00Z (UTC)",
        exit_code=2,
    )


# --- Work -----------------------------------------------------------------------------------------


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Load the settings from flags and environment.

    Raises:
        CliError: A setting is wrong.
    """
    from agentsight.server.settings import Settings, SettingsError, load_settings

    given = vars(arguments)
    flags = {name: given.get(name) for name in Settings.__struct_fields__}
    try:
        return load_settings(os.environ, flags)
    except SettingsError as error:
        raise CliError(str(error), exit_code=2) from None


def run_on_database(
    arguments: argparse.Namespace,
    work: Callable[[Database, Access], Coroutine[Any, Any, T]],
    *,
    create_organisation: bool = False,
    missing: str = "what you name",
) -> T:
    """Open the database that is named, run `work` on it as the operator, and close it.

    Args:
        work: Gets the database and the operator's access.
        create_organisation: Whether the first organisation is made where there is none yet.
        missing: What a 404 of the work is about, for the message.

    Raises:
        CliError: Whatever goes wrong, in one line.
    """
    import asyncio

    settings = read_settings(arguments)

    async def session() -> T:
        from agentsight.server.accounts.service import operator_access
        from agentsight.server.db import open_database

        async with await open_database(settings.database_url) as db:
            access = await operator_access(db, now_us=now_us(), create=create_organisation)
            return await work(db, access)

    with explained(missing):
        name_database(settings)
        from agentsight.server.db.migrate import check_schema

        check_schema(settings.database_url)
        return asyncio.run(session())


def name_database(settings: Settings) -> None:
    """Say on standard error which database is used, without its password."""
    from agentsight.server.db import describe_url

    say(f"database: {describe_url(settings.database_url)}")


class explained:  # noqa: N801 - reads as a word of the `with` statement
    """Turn the errors of the server's rooms into a `CliError` of one line."""

    def __init__(self, missing: str = "what you name") -> None:
        self._missing = missing

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        told = _explain(error, self._missing)
        if told is not None:
            raise told from error


def _explain(error: Exception, missing: str) -> CliError | None:
    from agentsight.server.blobs import StrangerStore
    from agentsight.server.db import DatabaseError
    from agentsight.server.problems import Problem, not_found

    match error:
        case Problem(status=404) if error.detail == not_found().detail:
            return CliError(f"there is no {missing}")
        case Problem(status=400):
            return CliError(error.detail, exit_code=2)
        case Problem(code="storage_unavailable" | "storage_full"):
            return CliError(f"the file store does not work: {error.detail}")
        case Problem():
            return CliError(error.detail)
        case DatabaseError() | StrangerStore():
            return CliError(str(error))
        case OSError():
            return CliError(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
        case _:
            return None


# --- Output ---------------------------------------------------------------------------------------


def print_rows(
    names: Sequence[str], rows: Iterable[Sequence[str | int | None]], *, as_json: bool
) -> None:
    """Print a list on standard output, as a table or as JSON."""
    listed = [list(row) for row in rows]
    if as_json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in listed], indent=2))
        return
    texts = [[name.upper() for name in names]]
    texts += [
        ["-" if value is None or value == "" else str(value) for value in row] for row in listed
    ]
    widths = [max(len(row[column]) for row in texts) for column in range(len(names))]
    for row in texts:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def shown_time(time_us: int | None) -> str | None:
    """Return a time as people and programs read it, or None."""
    from agentsight.server.times import to_text

    return None if time_us is None else to_text(time_us - time_us % 1_000_000)
