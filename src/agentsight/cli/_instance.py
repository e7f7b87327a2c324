"""Open a whole instance from the command line: database, store of bytes, and their parts."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from agentsight.cli._support import CliError, explained, name_database, now_us, read_settings, say

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.parts import Parts
    from agentsight.server.settings import Settings

T = TypeVar("T")


def add_instance_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a database and a store of bytes."""
    from agentsight.cli._support import add_database_flags

    add_database_flags(parser, also_files=True)
    parser.add_argument(
        "--storage-url", metavar="URL", help="file:///directory or s3://bucket[/prefix]"
    )


def run_on_instance(
    arguments: argparse.Namespace,
    work: Callable[[Parts, Access], Coroutine[Any, Any, T]],
    *,
    missing: str = "what you name",
) -> T:
    """Open database and store, run `work` on them as the operator, and close them.

    Args:
        work: Gets the joined parts and the operator's access.
        missing: What a 404 of the work is about, for the message.

    Raises:
        CliError: Whatever goes wrong, in one line: also where database and store do not belong
            together.
    """
    settings = read_settings(arguments)
    with explained(missing):
        name_database(settings)
        import asyncio

        from agentsight.server.db.migrate import check_schema
        from agentsight.server.settings import hide_password

        say(f"files: {hide_password(settings.storage_url)}")
        check_schema(settings.database_url)
        with _named_directory(settings):
            return asyncio.run(_session(settings, work))


@contextlib.contextmanager
def _named_directory(settings: Settings) -> Generator[None]:
    """Where the store fails since its directory is not there, say which directory that is."""
    from agentsight.server.problems import Problem

    try:
        yield
    except Problem as error:
        place = urlsplit(settings.storage_url)
        directory = unquote(place.path)
        if place.scheme == "file" and not os.path.isdir(directory):
            raise CliError(
                f"the directory of the files is not there: {directory} (is a disk not mounted?"
                " --storage-url names another)"
            ) from error
        raise


async def _session(
    settings: Settings, work: Callable[[Parts, Access], Coroutine[Any, Any, T]]
) -> T:
    from agentsight.server.accounts.service import operator_access
    from agentsight.server.opening import open_parts

    async with open_parts(settings) as parts:
        access = await operator_access(parts.db, now_us=now_us(), create=False)
        return await work(parts, access)
