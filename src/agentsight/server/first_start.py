"""The first start: an organisation, a client, an agent with a key, an owner; and how they are told.

All of it is one unit of work, claimed by one row: of many processes starting on an empty database,
one makes the set. Secrets are shown on the terminal or, away from one, in a file that only its
owner may read; they are never logged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from agentsight.server.access import Access
from agentsight.server.accounts import service as accounts
from agentsight.server.accounts import store as accounts_store
from agentsight.server.accounts.model import DEFAULT_SLUG, check_password, generate_token
from agentsight.server.accounts.passwords import hash_password
from agentsight.server.agents import service as agents
from agentsight.server.agents import store as agents_store
from agentsight.server.agents.model import generate_key
from agentsight.server.commands import command
from agentsight.server.db import Database, Tx
from agentsight.server.db.errors import UniqueViolation
from agentsight.server.ids import new_uid
from agentsight.server.instance import store as instance
from agentsight.server.settings import Settings

FILE_NAME = "first-start.txt"
DEFAULT_EMAIL = "owner@localhost"
SET_PASSWORD_PATH = "/app/set-password/"  # noqa: S105 - a path, not a password


@dataclass(frozen=True, slots=True)
class FirstStart:
    """What a first start has made.

    Attributes:
        key: The agent's write key; None when the operator gave one (they know it).
        email: The owner's address; None when the instance had an owner already.
        token: The secret of the owner's one-time link; None when a password was given.
    """

    agent_slug: str
    key: str | None
    email: str | None
    token: str | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be made; all that is random, slow or read from outside is done by now."""

    key: str
    email: str
    password_hash: str | None
    token: str
    now_us: int


async def run_first_start(db: Database, settings: Settings, *, now_us: int) -> FirstStart | None:
    """Make the first set, once in an instance's life; None when that was before.

    Whole or not at all, and at most once, however many processes start together. What is there
    already (made by the command line before the first start) is kept and used.

    Raises:
        Problem: `AGENTSIGHT_INIT_PASSWORD` is refused as a password.
    """
    if await db.read(lambda tx: instance.read_value(tx, instance.FIRST_START)) is not None:
        return None
    password = settings.init_password
    if password is not None:
        check_password(password)
    wanted = _Wanted(
        key=settings.init_key or generate_key(),
        email=settings.init_email or DEFAULT_EMAIL,
        password_hash=None if password is None else await hash_password(password),
        token=generate_token(),
        now_us=now_us,
    )
    try:
        made = await db.write(lambda tx: _make(tx, wanted))
    except UniqueViolation:
        # PostgreSQL: the command line made the organisation meanwhile; now it is there to be used.
        made = await db.write(lambda tx: _make(tx, wanted))
    if made is None:
        return None
    return FirstStart(
        agent_slug=DEFAULT_SLUG,
        key=None if settings.init_key else wanted.key,
        email=wanted.email if made else None,
        token=wanted.token if made and password is None else None,
    )


async def _make(tx: Tx, wanted: _Wanted) -> bool | None:
    """Make the set; None when another process was first, else whether an owner was made."""
    now_us = wanted.now_us
    if not await instance.claim_value(tx, instance.FIRST_START, str(now_us), now_us):
        return None
    access = await accounts.ensure_defaults(tx, now_us)
    await _make_agent(tx, access, wanted)
    if await accounts_store.count_owners(tx, access) > 0:
        return False
    owner = await accounts.add_user(
        tx,
        access,
        wanted.email,
        role="owner",
        client_id=None,
        password_hash=wanted.password_hash,
        now_us=now_us,
    )
    if wanted.password_hash is None:
        await accounts.add_token(tx, owner.user_id, wanted.token, now_us=now_us)
    return True


async def _make_agent(tx: Tx, access: Access, wanted: _Wanted) -> None:
    agent = await agents_store.find_agent(tx, access, DEFAULT_SLUG)
    if agent is not None:
        agent_id = agent.agent_id
    else:
        agent_id = await agents_store.insert_agent(
            tx,
            access,
            client_id=await accounts.ensure_client(tx, access, wanted.now_us),
            slug=DEFAULT_SLUG,
            name="Default",
            uid=new_uid(wanted.now_us),
            now_us=wanted.now_us,
        )
    await agents.add_key(
        tx, access, agent_id, wanted.key, "write", name="first start", now_us=wanted.now_us
    )


# --- Telling it -----------------------------------------------------------------------------------


def shown_base_url(settings: Settings, port: int) -> str:
    """Return the address to print: the public one, or where a browser on this machine finds us."""
    if settings.public_url:
        return settings.public_url
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(  # noqa: S104 - read, not bound
        settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host
    )
    return f"http://{host}:{port}"


def first_start_text(made: FirstStart, base_url: str, install_line: str, settings: Settings) -> str:
    """Return what the operator is told: each thing that was made, and how to use it."""
    lines = [
        "AgentSight's first start made an organisation, a client and an agent, all named"
        f" '{DEFAULT_SLUG}'.",
        "",
    ]
    if made.key is None:
        lines += ["The agent's write key is the one in AGENTSIGHT_INIT_KEY.", ""]
    else:
        lines += [f"The agent's write key (shown this once):\n\n    {made.key}", ""]
    lines += [
        "Use it from your bot:\n",
        f"    {install_line}",
        f"    export AGENTSIGHT_API_ENDPOINT={base_url}",
        f"    export AGENTSIGHT_API_KEY={made.key or '(your key)'}",
        "",
    ]
    if made.email is None:
        lines += ["The instance has an owner already."]
    elif made.token is None:
        lines += [f"The owner is {made.email}, with the password in AGENTSIGHT_INIT_PASSWORD."]
    else:
        lines += [
            f"The owner is {made.email}. Set the password by this link, once, within 7 days:\n",
            f"    {base_url}{SET_PASSWORD_PATH}{made.token}",
        ]
    if made.email is not None:
        lines += ["", "Pages to sign in come with a later version; until then it opens nothing."]
    who = made.email or "EMAIL"
    lines += [
        "",
        f"What next: see {base_url}/",
        "Lost them? These make new ones:\n",
        f"    {command(f'keys create --agent {made.agent_slug} --role write', settings)}",
        f"    {command(f'users link {who}', settings)}",
        "",
    ]
    return "\n".join(lines)


def tell_first_start(text: str, *, terminal: TextIO, data_dir: Path) -> Path | None:
    """Show the text on the terminal or, where there is none, keep it in a file of mode 0600.

    Returns:
        The file, or None when the terminal was told.
    """
    if terminal.isatty():
        terminal.write(f"\n{text}\n")
        terminal.flush()
        return None
    path = data_dir / FILE_NAME
    # Never through an existing file or link, whose mode and owner would be somebody else's choice.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path
