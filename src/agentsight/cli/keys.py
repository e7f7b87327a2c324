"""`agentsight keys`: API keys. A key's text is printed once, alone, on standard output."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    Groups,
    add_command,
    add_group,
    add_json_flag,
    hand_out,
    now_us,
    print_rows,
    run_on_database,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.agents.model import Key
    from agentsight.server.agents.service import NewKey
    from agentsight.server.db import Database

_NO_KEY = "such key: see agentsight keys list"


def add_commands(groups: Groups) -> None:
    """Add `create`, `list`, `rotate`, `revoke` and `generate`."""
    commands = add_group(groups, "keys", "the API keys of agents")
    create = add_command(commands, "create", "make a key and print it, once", run_create)
    create.add_argument("--agent", required=True, metavar="SLUG", help="whose key it is")
    create.add_argument(
        "--role", required=True, choices=("read", "write"), help="write includes read"
    )
    create.add_argument("--name", default="", help="what lists show, to tell keys apart")
    create.add_argument("--expires-in-days", type=int, metavar="N", help="it never ends without")
    listing = add_command(commands, "list", "list the keys (never their text)", run_list)
    listing.add_argument("--agent", metavar="SLUG", help="of this agent only")
    add_json_flag(listing)
    rotate = add_command(commands, "rotate", "make a key's successor and print it", run_rotate)
    rotate.add_argument("key", metavar="KEY", help="its number (see list), or the key itself")
    rotate.add_argument(
        "--overlap-hours",
        type=int,
        default=24,
        metavar="N",
        help="how long the old key goes on working (24); 0 ends it now",
    )
    revoke = add_command(commands, "revoke", "end a key, everywhere within 5 seconds", run_revoke)
    revoke.add_argument("key", metavar="KEY", help="its number (see list), or the key itself")
    add_command(
        commands,
        "generate",
        "print a fresh key for AGENTSIGHT_INIT_KEY; it opens nothing yet",
        run_generate,
        on_database=False,
    )


def run_create(arguments: argparse.Namespace) -> int:
    """Make a key."""
    from agentsight.server.agents import service

    async def work(db: Database, access: Access) -> NewKey:
        return await service.create_key(
            db,
            access,
            arguments.agent,
            role=arguments.role,
            name=arguments.name,
            expires_in_days=arguments.expires_in_days,
            now_us=now_us(),
        )

    made = run_on_database(
        arguments, work, missing=f"agent '{arguments.agent}': see agentsight agents list"
    )
    say(f"made {_described(made)}")
    hand_out("it is shown this once", made.text, if_lost=_if_lost(made))
    return 0


def _described(made: NewKey) -> str:
    key = made.key
    end = "" if key.expires_at is None else f", until {shown_time(key.expires_at)}"
    return f"key {key.key_id} ({key.role}) of agent '{key.agent_slug}'{end}"


def run_list(arguments: argparse.Namespace) -> int:
    """List keys."""
    from agentsight.server.agents import service

    async def work(db: Database, access: Access) -> list[Key]:
        return await service.list_keys(db, access, arguments.agent)

    keys = run_on_database(
        arguments,
        work,
        missing=f"agent '{arguments.agent}': see agentsight agents list",
    )
    now = now_us()
    rows = [
        (
            k.key_id,
            k.agent_slug,
            k.role,
            k.hint,
            k.state(now),
            k.name,
            shown_time(k.created_at),
            shown_time(k.ends_at),
        )
        for k in keys
    ]
    names = ("id", "agent", "role", "hint", "state", "name", "created_at", "ends_at")
    print_rows(names, rows, as_json=arguments.json)
    return 0


def run_rotate(arguments: argparse.Namespace) -> int:
    """Make a key's successor."""
    from agentsight.server.agents import service

    async def work(db: Database, access: Access) -> NewKey:
        key_id = await service.find_key_id(db, access, arguments.key)
        return await service.rotate_key(
            db, access, key_id, overlap_hours=arguments.overlap_hours, now_us=now_us()
        )

    made = run_on_database(arguments, work, missing=_NO_KEY)
    say(f"made {_described(made)}; {_end_of_old(made)}")
    hand_out("it is shown this once", made.text, if_lost=_if_lost(made))
    return 0


def _if_lost(made: NewKey) -> str:
    return f"agentsight keys revoke {made.key.key_id} ends it; then make another"


def _end_of_old(made: NewKey) -> str:
    old = made.replaced
    if old is None or old.state(now_us()) != "active":
        return "the old one stopped working (every process refuses it in 5 s)"
    return f"the old one, key {old.key_id}, works until {shown_time(old.ends_at)}"


def run_revoke(arguments: argparse.Namespace) -> int:
    """End a key."""
    from agentsight.server.agents import service

    async def work(db: Database, access: Access) -> Key:
        key_id = await service.find_key_id(db, access, arguments.key)
        return await service.revoke_key(db, access, key_id, now_us=now_us())

    key = run_on_database(arguments, work, missing=_NO_KEY)
    say(f"key {key.key_id} of agent '{key.agent_slug}' is revoked; every process refuses it in 5 s")
    return 0


def run_generate(arguments: argparse.Namespace) -> int:
    """Print a fresh key that no database knows."""
    del arguments
    from agentsight.server.agents.model import generate_key

    print(generate_key())
    return 0
