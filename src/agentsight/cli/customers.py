"""`agentsight customers`: what is kept of a customer, in all agents, and its erasure."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from agentsight.cli._instance import add_instance_flags, run_on_instance
from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    add_json_flag,
    as_run,
    print_rows,
    say,
    shown_time,
)

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.parts import Parts
    from agentsight.server.removals.service_customers import Export, Found
    from agentsight.server.removals.shapes import ReceiptShape

_ID_HELP = "exactly as the agents have sent it"


def add_commands(groups: Groups) -> None:
    """Add `find`, `export` and `erase`."""
    commands = add_group(groups, "customers", "what is kept of a customer, in all agents")
    find = add_command(commands, "find", "say where a customer is", run_find, on_database=False)
    export = add_command(
        commands, "export", "write all that is kept of a customer into a ZIP", run_export,
        on_database=False,
    )  # fmt: skip
    export.add_argument("--to", required=True, metavar="FILE.zip", help="must not be there yet")
    erase = add_command(
        commands, "erase", "erase a customer with all files; without --yes, say what it would do",
        run_erase, on_database=False,
    )  # fmt: skip
    erase.add_argument("--yes", action="store_true", help="do it; nothing brings it back")
    for command in (find, export, erase):
        command.add_argument("customer_id", metavar="CUSTOMER_ID", help=_ID_HELP)
        add_instance_flags(command)
    add_json_flag(find)


def run_find(arguments: argparse.Namespace) -> int:
    """Say where a customer is; 1 where nothing is kept of them."""
    from agentsight.server.removals.service_customers import find_customer

    async def work(parts: Parts, access: Access) -> Found:
        return await find_customer(parts, access, arguments.customer_id)

    found = run_on_instance(arguments, work)
    names = ("agent", "conversations", "deleted", "messages", "files", "bytes", "first_at",
             "last_at")  # fmt: skip
    rows = [
        (
            held.agent,
            held.n_conversations,
            held.n_hidden,
            held.n_messages,
            held.n_files,
            held.n_bytes,
            shown_time(held.first_at),
            shown_time(held.last_at),
        )
        for held in found.holdings
    ]
    print_rows(names, rows, as_json=arguments.json)
    if not found.holdings:
        say(_nothing_kept(arguments.customer_id, found))
    elif found.alike:
        say(f"written otherwise: {_listed(found)}")
    return 0 if found.holdings else 1


def _nothing_kept(customer_id: str, found: Found) -> str:
    alike = f"; written otherwise: {_listed(found)}" if found.alike else ""
    return f"nothing is kept of {customer_id!r}{alike}"


def _listed(found: Found) -> str:
    return ", ".join(map(repr, found.alike))


def run_export(arguments: argparse.Namespace) -> int:
    """Write a customer's ZIP; its name goes to standard output."""
    from agentsight.server.removals.service_customers import export_customer

    if arguments.to == "-":
        raise CliError("--to names a file, which appears when it is whole: give one", exit_code=2)
    to = Path(arguments.to)

    async def work(parts: Parts, access: Access) -> Export:
        return await export_customer(parts, access, arguments.customer_id, to)

    missing = f"customer {arguments.customer_id!r}: see agentsight customers find"
    export = run_on_instance(arguments, work, missing=missing)
    say(
        f"wrote {sum(export.rows.values())} rows and {export.n_files} files"
        f" ({export.n_bytes} bytes)"
    )
    print(to)
    if export.missing:
        raise CliError(
            f"of {len(export.missing)} files the bytes are not, or not all, in the store (see the"
            " manifest); agentsight fsck says more"
        )
    return 0


def run_erase(arguments: argparse.Namespace) -> int:
    """Erase a customer, or say what that would do; the receipt goes to standard output.

    Raises:
        CliError: Nothing is kept of them: a receipt would look like a proof that there was.
    """
    from agentsight.server.removals import service
    from agentsight.server.removals.service_customers import find_customer
    from agentsight.server.removals.shapes import shape_dry_run, shape_receipt

    if not arguments.customer_id:
        raise CliError("name the customer: an empty CUSTOMER_ID is nobody's", exit_code=2)

    async def work(parts: Parts, access: Access) -> ReceiptShape:
        found = await find_customer(parts, access, arguments.customer_id)
        if not found.holdings:
            raise CliError(_nothing_kept(arguments.customer_id, found))
        if not arguments.yes:
            would = await service.would_erase_customer(parts, access, arguments.customer_id)
            return shape_dry_run(would, parts.db.dialect)
        done = await service.erase_customer(parts, access, arguments.customer_id)
        return shape_receipt(done, parts.db.dialect)

    receipt = run_on_instance(arguments, work)
    print_receipt(receipt)
    if receipt.dry_run:
        say(f"nothing was done; to erase it: {as_run(_again(arguments), arguments)}")
    elif receipt.state == "running":
        say("what is left goes on where the server runs (or by agentsight erasures finish)")
    return 0


def _again(arguments: argparse.Namespace) -> str:
    import shlex

    customer_id = shlex.quote(arguments.customer_id)
    if arguments.customer_id.startswith("-"):  # else it would be taken for a flag
        return f"agentsight customers erase --yes -- {customer_id}"
    return f"agentsight customers erase {customer_id} --yes"


def print_receipt(receipt: ReceiptShape) -> None:
    """Print a receipt as JSON."""
    import msgspec

    print(json.dumps(msgspec.to_builtins(receipt), indent=2))
