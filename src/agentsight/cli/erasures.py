"""`agentsight erasures`: finish what was begun, erase again what a backup brought back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from agentsight.cli._instance import add_instance_flags, run_on_instance
from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    add_json_flag,
    print_rows,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.parts import Parts
    from agentsight.server.removals.service_replay import Replayed
    from agentsight.server.removals.store_receipts import Work


def add_commands(groups: Groups) -> None:
    """Add `list`, `show`, `finish` and `replay`."""
    commands = add_group(groups, "erasures", "what was erased, and that it stays so")
    listing = add_command(
        commands, "list", "list the receipts, the latest first", run_list, on_database=False
    )
    add_json_flag(listing)
    show = add_command(commands, "show", "print a receipt", run_show, on_database=False)
    show.add_argument("uid", metavar="UID", help="see `list`")
    finish = add_command(
        commands, "finish", "carry on what is not complete (a server does it by itself)",
        run_finish, on_database=False,
    )  # fmt: skip
    replay = add_command(
        commands, "replay", "erase again what a restored backup brought back (`serve` does it too)",
        run_replay, on_database=False,
    )  # fmt: skip
    for command in (listing, show, finish, replay):
        add_instance_flags(command)


def run_list(arguments: argparse.Namespace) -> int:
    """List the receipts."""
    from agentsight.server.removals.service import list_receipts

    works = run_on_instance(arguments, list_receipts)
    rows = [
        (
            work.uid,
            work.receipt.kind,
            "complete" if work.stage == "complete" else "running",
            shown_time(work.receipt.asked_at),
            work.receipt.rows.conversations,
            work.receipt.rows.attachments,
            work.receipt.objects,
            work.receipt.bytes,
        )
        for work in works
    ]
    names = ("uid", "kind", "state", "asked_at", "conversations", "files", "objects", "bytes")
    print_rows(names, rows, as_json=arguments.json)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """Print a receipt."""
    from agentsight.cli.customers import print_receipt
    from agentsight.server.removals.service import read_receipt
    from agentsight.server.removals.shapes import ReceiptShape, shape_receipt

    async def work(parts: Parts, access: Access) -> ReceiptShape:
        receipt = await read_receipt(parts, access, arguments.uid)
        return shape_receipt(receipt, parts.db.dialect)

    missing = f"receipt {arguments.uid!r}: see agentsight erasures list"
    print_receipt(run_on_instance(arguments, work, missing=missing))
    return 0


def run_finish(arguments: argparse.Namespace) -> int:
    """Carry on all erasures that are not complete; 1 where one is not complete then."""
    from agentsight.server.removals.service import finish_all

    async def work(parts: Parts, access: Access) -> list[Work]:
        del access
        return await finish_all(parts)

    works = run_on_instance(arguments, work)
    left = [work for work in works if work.stage != "complete"]
    say(f"{len(works) - len(left)} erasures were completed")
    if left:
        raise CliError(f"{len(left)} erasures cannot be completed now: try again")
    return 0


def run_replay(arguments: argparse.Namespace) -> int:
    """Erase again what came back; 1 where an entry cannot be read."""
    from agentsight.server.removals.service_replay import replay

    async def work(parts: Parts, access: Access) -> Replayed:
        del access
        return await replay(parts)

    done = run_on_instance(arguments, work)
    for line in told(done):
        say(line)
    for uid in done.receipt_uids:
        print(uid)
    return 1 if done.n_foreign else 0


def told(done: Replayed) -> list[str]:
    """Say in words what a replay did."""
    lines: list[str] = []
    if done.n_learned:
        lines.append(
            f"erasures: the database did not know of {done.n_learned}; erased again"
            f" {done.n_conversations} conversations and {done.n_attachments} files"
        )
    if done.n_written:
        lines.append(f"erasures: wrote {done.n_written} into the store, which did not know of them")
    if done.n_foreign:
        lines.append(
            f"erasures: {done.n_foreign} in the store cannot be read with this database's key;"
            " what they name may be back (see the log)"
        )
    return lines or ["erasures: database and store know of the same"]
