"""`agentsight users`: the people who will sign in, by pages of a later version."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    add_json_flag,
    hand_out,
    now_us,
    print_rows,
    read_settings,
    run_on_database,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.accounts.model import User
    from agentsight.server.db import Database


def add_commands(groups: Groups) -> None:
    """Add `create`, `list` and `link`."""
    commands = add_group(
        groups, "users", "the accounts of people (pages to sign in come with a later version)"
    )
    create = add_command(commands, "create", "make an account", run_create)
    create.add_argument("email", metavar="EMAIL")
    create.add_argument("--role", required=True, choices=("owner", "member", "viewer"))
    create.add_argument("--client", metavar="SLUG", help="they see this client only")
    create.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input; without it a one-time link is printed",
    )
    add_json_flag(add_command(commands, "list", "list the accounts", run_list))
    link = add_command(commands, "link", "print a one-time link that sets a password", run_link)
    link.add_argument("email", metavar="EMAIL")


def run_create(arguments: argparse.Namespace) -> int:
    """Make an account, with a password or a one-time link to set one."""
    read_settings(arguments)  # what is wrong there should be heard before a password is typed
    password = _read_password() if arguments.password_stdin else None
    from agentsight.server.accounts import service

    async def work(db: Database, access: Access) -> tuple[User, str | None]:
        user = await service.create_user(
            db,
            access,
            arguments.email,
            role=arguments.role,
            client_slug=arguments.client,
            password=password,
            now_us=now_us(),
        )
        if password is not None:
            return user, None
        return user, await service.create_token(db, access, user.email, now_us=now_us())

    user, token = run_on_database(
        arguments,
        work,
        create_organisation=True,
        missing=f"client '{arguments.client}': see agentsight clients list",
    )
    say(f"made the account {user.email} ({user.role})")
    if token is not None:
        _print_link(arguments, token)
    return 0


def _read_password() -> str:
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("Password: ")
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CliError("there is no password on standard input", exit_code=2)
    return password


def run_list(arguments: argparse.Namespace) -> int:
    """List the accounts."""
    from agentsight.server.accounts import service

    users = run_on_database(arguments, service.list_users)
    rows = [
        (
            u.email,
            u.role,
            u.client_slug,
            "set" if u.has_password else None,
            shown_time(u.created_at),
        )
        for u in users
    ]
    print_rows(("email", "role", "client", "password", "created_at"), rows, as_json=arguments.json)
    return 0


def run_link(arguments: argparse.Namespace) -> int:
    """Print a fresh one-time link; the ones before it work until one of them is used."""
    from agentsight.server.accounts import service

    async def work(db: Database, access: Access) -> str:
        return await service.create_token(db, access, arguments.email, now_us=now_us())

    missing = f"account {arguments.email}: see agentsight users list"
    _print_link(arguments, run_on_database(arguments, work, missing=missing))
    return 0


def _print_link(arguments: argparse.Namespace, token: str) -> None:
    from agentsight.server.first_start import SET_PASSWORD_PATH, shown_base_url

    settings = read_settings(arguments)
    base_url = shown_base_url(settings, settings.port)
    if settings.public_url is None:
        say(
            f"AGENTSIGHT_PUBLIC_URL is not set: where the server is not at {base_url}, put its"
            " address in place of that"
        )
    hand_out(
        "this link sets the password, once, within 7 days",
        f"{base_url}{SET_PASSWORD_PATH}{token}",
        if_lost=f"agentsight users link {arguments.email} makes another",
    )
