"""How a command of ours is written for a person to run: program, words, and which database.

Rooms name commands in their plain form (`agentsight migrate`). Where a text is shown, these say
how the program is called on this machine: a clone's `.venv/bin/agentsight` is on nobody's PATH.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from agentsight.server.settings import Settings, hide_password

NAME = "agentsight"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def program(called_as: str | None = None) -> str:
    """Return what to type for the program that runs: its name, or its path off the PATH.

    Args:
        called_as: How it was called; None takes `sys.argv[0]`. Anything but our own program (a test
            run, another server) gives the plain name.
    """
    path = sys.argv[0] if called_as is None else called_as
    if Path(path).stem != NAME:
        return NAME
    found = shutil.which(NAME)
    if found is not None and os.path.realpath(found) == os.path.realpath(path):
        return NAME
    absolute, relative = os.path.abspath(path), os.path.relpath(path)
    if os.sep not in relative:
        relative = os.path.join(os.curdir, relative)
    return shlex.quote(min(relative, absolute, key=len))


def command(words: str, settings: Settings) -> str:
    """Return the command on this instance's database, from wherever it is run.

    A password in the database's address is shown as `***`.
    """
    if _is_in_data_dir(settings):
        return f"{program()} {words} --data {shlex.quote(str(settings.data_dir))}"
    return f"{program()} {words} --database-url {shlex.quote(hide_password(settings.database_url))}"


def public_command(words: str, settings: Settings) -> str:
    """Return the command for a page that strangers may see: no path of a server that they reach."""
    if _is_for_this_machine(settings):
        return command(words, settings)
    return f"{NAME} {words} {'--data DIR' if _is_in_data_dir(settings) else '--database-url URL'}"


def _is_in_data_dir(settings: Settings) -> bool:
    return settings.database_url == f"sqlite:///{settings.data_dir / 'agentsight.db'}"


def _is_for_this_machine(settings: Settings) -> bool:
    """Say whether nobody from elsewhere is expected: nothing is set that lets them in."""
    opened = settings.public_url or settings.allowed_hosts or settings.trusted_proxies
    return settings.host in _LOOPBACK and not opened
