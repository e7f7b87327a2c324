"""The first start makes one set, whoever is first, and tells it to nobody else."""

from __future__ import annotations

import asyncio
import io
import stat
from pathlib import Path

import pytest

from agentsight.server.accounts import service as accounts
from agentsight.server.agents import service as agents
from agentsight.server.agents.model import generate_key
from agentsight.server.db import Database
from agentsight.server.first_start import (
    FirstStart,
    first_start_text,
    run_first_start,
    shown_base_url,
    tell_first_start,
)
from agentsight.server.problems import Problem
from agentsight.server.settings import Settings, load_settings
from tests.server.agents.world import NOW_US

BASE = "http://127.0.0.1:8000"


def _settings(tmp_path: Path, **environ: str) -> Settings:
    variables = {f"AGENTSIGHT_{name}": value for name, value in environ.items()}
    return load_settings(variables, {"data_dir": str(tmp_path)})


@pytest.mark.anyio
async def test_a_first_start_makes_a_key_and_an_owner(db: Database, tmp_path: Path) -> None:
    """The key writes for the agent `default`, the link is the owner's, and both work."""
    made = await run_first_start(db, _settings(tmp_path), now_us=NOW_US)
    assert made is not None
    assert made.key is not None
    assert made.token is not None
    access = await agents.authenticate_key(db, made.key, NOW_US)
    assert access is not None
    operator = await accounts.operator_access(db, now_us=NOW_US, create=False)
    assert [a.slug for a in await agents.list_agents(db, operator)] == ["default"]
    assert [c.slug for c in await accounts.list_clients(db, operator)] == ["default"]
    holder = await accounts.find_token(db, made.token, NOW_US)
    assert holder is not None
    assert holder.email == made.email == "owner@localhost"
    assert [u.role for u in await accounts.list_users(db, operator)] == ["owner"]


@pytest.mark.anyio
async def test_it_happens_once(db: Database, tmp_path: Path) -> None:
    """A second start makes nothing and tells nothing."""
    settings = _settings(tmp_path)
    await run_first_start(db, settings, now_us=NOW_US)
    assert await run_first_start(db, settings, now_us=NOW_US + 1) is None
    operator = await accounts.operator_access(db, now_us=NOW_US, create=False)
    assert len(await agents.list_keys(db, operator)) == 1


@pytest.mark.anyio
async def test_starts_side_by_side_make_one_set(db: Database, tmp_path: Path) -> None:
    """Of eight at once, one makes the set and is the only one to know its key."""
    settings = _settings(tmp_path)
    made = await asyncio.gather(*(run_first_start(db, settings, now_us=NOW_US) for _ in range(8)))
    assert sum(one is not None for one in made) == 1
    operator = await accounts.operator_access(db, now_us=NOW_US, create=False)
    assert len(await agents.list_keys(db, operator)) == 1
    assert len(await accounts.list_users(db, operator)) == 1


@pytest.mark.anyio
async def test_settings_make_it_unattended(db: Database, tmp_path: Path) -> None:
    """The operator's key, address and password are used, and not told back."""
    key = generate_key()
    settings = _settings(
        tmp_path, INIT_KEY=key, INIT_EMAIL="Alice@example.com", INIT_PASSWORD="correct horse"
    )
    made = await run_first_start(db, settings, now_us=NOW_US)
    assert made == FirstStart("default", None, "Alice@example.com", None)
    assert await agents.authenticate_key(db, key, NOW_US) is not None
    assert await accounts.check_credentials(db, "alice@example.com", "correct horse") is not None


@pytest.mark.anyio
async def test_what_is_there_already_is_used(db: Database, tmp_path: Path) -> None:
    """An agent and an owner made before by the command line are kept."""
    operator = await accounts.operator_access(db, now_us=NOW_US, create=True)
    await agents.create_agent(db, operator, "default", client_slug="default", now_us=NOW_US)
    await accounts.create_user(db, operator, "me@example.com", role="owner", now_us=NOW_US)
    made = await run_first_start(db, _settings(tmp_path), now_us=NOW_US)
    assert made is not None
    assert made.key is not None
    assert made.email is None
    assert await agents.authenticate_key(db, made.key, NOW_US) is not None
    assert len(await accounts.list_users(db, operator)) == 1


@pytest.mark.anyio
async def test_a_poor_password_makes_nothing(db: Database, tmp_path: Path) -> None:
    """The start is refused whole, and the next one with a better password makes the set."""
    with pytest.raises(Problem):
        await run_first_start(db, _settings(tmp_path, INIT_PASSWORD="x" * 12), now_us=NOW_US)
    assert await run_first_start(db, _settings(tmp_path), now_us=NOW_US) is not None


class Terminal(io.StringIO):
    """A stream that a person is watching."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def _text(tmp_path: Path) -> str:
    made = FirstStart("default", "ags_key", "owner@localhost", "secret-token")
    return first_start_text(made, BASE, "pip install x", _settings(tmp_path))


def test_the_text_says_how_to_use_each_thing(tmp_path: Path) -> None:
    """Key, install line, endpoint and link, each with its use."""
    text = _text(tmp_path)
    assert "export AGENTSIGHT_API_KEY=ags_key" in text
    assert f"{BASE}/app/set-password/secret-token" in text
    assert "pip install x" in text
    assert f"export AGENTSIGHT_API_ENDPOINT={BASE}" in text
    assert f"agentsight users link owner@localhost --data {tmp_path}" in text
    assert "Pages to sign in come with a later version" in text


def test_a_terminal_is_told_and_no_file_is_left(tmp_path: Path) -> None:
    """Who watches needs no file with a secret in it."""
    terminal = Terminal()
    assert tell_first_start(_text(tmp_path), terminal=terminal, data_dir=tmp_path) is None
    assert "ags_key" in terminal.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_away_from_a_terminal_it_is_a_private_file(tmp_path: Path) -> None:
    """Mode 0600, even where a file or link with that name lay in wait."""
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "first-start.txt").symlink_to(tmp_path / "elsewhere")
    log = io.StringIO()
    path = tell_first_start(_text(tmp_path), terminal=log, data_dir=tmp_path)
    assert path == tmp_path / "first-start.txt"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert "ags_key" in path.read_text()
    assert (tmp_path / "elsewhere").read_text() == ""
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "http://127.0.0.1:9"),
        ("0.0.0.0", "http://127.0.0.1:9"),
        ("::", "http://[::1]:9"),
        ("::1", "http://[::1]:9"),
        ("bots.local", "http://bots.local:9"),
    ],
)
def test_the_printed_address_can_be_opened(tmp_path: Path, host: str, shown: str) -> None:
    """An address to bind to is not always one to open."""
    assert shown_base_url(_settings(tmp_path, HOST=host), 9) == shown
    public = _settings(tmp_path, HOST=host, PUBLIC_URL="https://bots.example")
    assert shown_base_url(public, 9) == "https://bots.example"


def test_lost_things_are_made_anew_on_the_right_database(tmp_path: Path) -> None:
    """On PostgreSQL the data directory holds no database: its address is named, no password."""
    made = FirstStart("default", "ags_key", "owner@localhost", "secret-token")
    settings = _settings(tmp_path, DATABASE_URL="postgresql://me:hush@db/x")
    text = first_start_text(made, BASE, "pip install x", settings)
    assert "users link owner@localhost --database-url 'postgresql://me:***@db/x'" in text
    assert "hush" not in text
