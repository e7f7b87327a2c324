"""Directories that `serve` and `migrate`, and only they, make."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from agentsight.cli._support import CliError
from agentsight.server.db import DatabaseUrl, DatabaseUrlError
from agentsight.server.db.sqlite_connection import refuse_network_filesystem
from agentsight.server.settings import Settings


def prepare_database_place(settings: Settings) -> None:
    """Make the directory of a SQLite file, readable by nobody else.

    Raises:
        CliError: It cannot be made.
    """
    path = DatabaseUrl.parse(settings.database_url).path
    if path is not None:
        make_private_directory(path.parent)


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory where something is going to be kept in it.

    Raises:
        CliError: It cannot be made.
    """
    prepare_database_place(settings)
    make_private_directory(settings.data_dir)


def make_private_directory(path: Path) -> None:
    """Make a directory (mode 0700) with its parents; one that is there stays as it is.

    Raises:
        CliError: It cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CliError(
            f"cannot make the directory {path} ({error.strerror}): choose another by --data"
        ) from error


def prepare_file_storage(settings: Settings, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Make the directory of `file://` storage, where other hosts cannot write it too.

    Raises:
        CliError: It is on a network file system, on which nothing keeps hosts apart, or it cannot
            be made.
    """
    place = urlsplit(settings.storage_url)
    if place.scheme != "file":
        return
    directory = Path(unquote(place.path))
    try:
        refuse_network_filesystem(directory / "any", mounts)
    except DatabaseUrlError as error:
        raise CliError(
            f"{settings.storage_url} is on a network file system: use a disk of this host, or"
            " object storage (s3://bucket), which several hosts may share"
        ) from error
    make_private_directory(directory)
