"""Commands are written so that a person can run them where they read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentsight.server.commands import command, program, public_command
from agentsight.server.settings import Settings, load_settings


def _settings(**flags: str) -> Settings:
    return load_settings({}, {"data_dir": "/srv/data", **flags})


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a clone whose program is not on the PATH."""
    path = tmp_path / ".venv" / "bin" / "agentsight"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return path


@pytest.mark.parametrize("called_as", [".venv/bin/agentsight", "absolute"])
def test_off_the_path_it_is_the_shorter_way(clone: Path, called_as: str) -> None:
    """From the clone, the relative path, however it was called."""
    assert program(str(clone) if called_as == "absolute" else called_as) == ".venv/bin/agentsight"


def test_from_far_away_it_is_the_whole_path(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of dots helps nobody."""
    monkeypatch.chdir("/usr/share")
    if len(os.path.relpath(clone)) > len(str(clone)):
        assert program(str(clone)) == str(clone)


def test_in_its_own_directory_it_is_called_with_a_dot(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare name would be looked for on the PATH."""
    monkeypatch.chdir(clone.parent)
    assert program(str(clone)) == "./agentsight"


def test_on_the_path_it_is_its_name(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everybody types it."""
    monkeypatch.setenv("PATH", str(clone.parent))
    assert program(str(clone)) == "agentsight"


@pytest.mark.parametrize("called_as", ["/usr/bin/pytest", "", "-c", "/x/uvicorn"])
def test_another_program_is_not_named(called_as: str) -> None:
    """Under a test run or another server, the plain name stands."""
    assert program(called_as) == "agentsight"


def test_a_command_names_its_database_without_a_password() -> None:
    """By the data directory, or by the address where that is elsewhere."""
    assert command("keys list", _settings()).endswith("agentsight keys list --data /srv/data")
    elsewhere = command("keys list", _settings(database_url="postgresql://me:hush@db/x"))
    assert elsewhere.endswith("keys list --database-url 'postgresql://me:***@db/x'")


@pytest.mark.parametrize(
    "flags",
    [
        {"public_url": "https://x.example"},
        {"host": "0.0.0.0"},
        {"allowed_hosts": "x.example"},
        {"trusted_proxies": "10.0.0.1"},
    ],
)
def test_strangers_see_no_path(flags: dict[str, str]) -> None:
    """A page of a server that others reach shows a place to fill in."""
    assert public_command("keys list", _settings(**flags)) == "agentsight keys list --data DIR"
    database = {"database_url": "postgresql://me@db/x", **flags}
    shown = public_command("keys list", _settings(**database))
    assert shown == "agentsight keys list --database-url URL"
    assert "--data /srv/data" in public_command("keys list", _settings())
