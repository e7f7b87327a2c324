"""One real server for all tests of pages, with its key and the way to its data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import run_command, serving


@dataclass(frozen=True)
class Site:
    """A running server."""

    url: str
    key: str
    data: Path

    def new_link(self, email: str) -> str:
        """Make an account and return the address of its one-time link on this server."""
        at = ("--data", str(self.data))
        made = run_command("users", "create", email, "--role", "viewer", *at)
        assert made.returncode == 0, made.stderr
        return f"{self.url}/app/set-password/{made.stdout.strip().rpartition('/')[2]}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve a fresh instance."""
    data = tmp_path_factory.mktemp("site")
    with serving("--data", str(data)) as server:
        text = (data / "first-start.txt").read_text()
        key = re.search(r"ags_\w+", text)
        assert key is not None
        yield Site(server.url, key[0], data)
