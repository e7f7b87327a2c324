"""`agentsight fsck`: compare rows with objects, and on request mend what can be mended."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from agentsight.cli._instance import add_instance_flags, run_on_instance
from agentsight.cli._support import Groups, add_command, add_json_flag, now_us

if TYPE_CHECKING:
    from agentsight.server.access import Access
    from agentsight.server.fsck.model import Fault, Report
    from agentsight.server.parts import Parts

_TEXT = (
    "compare the database's rows with the store's objects in both directions; --repair mends what"
    " can be mended. May run beside a server"
)
_MAX_HOURS = 24 * 3650


def add_commands(groups: Groups) -> None:
    """Add the command."""
    parser = add_command(groups, "fsck", _TEXT, run, on_database=False)
    add_instance_flags(parser)
    parser.add_argument("--repair", action="store_true", help="mend what can be mended")
    parser.add_argument(
        "--read", action="store_true", help="read every byte and compare the hashes (slow)"
    )
    parser.add_argument(
        "--older-than", type=_hours, default=24, metavar="HOURS",
        help="leave objects without a row alone that are younger (24); 0 only while no server runs",
    )  # fmt: skip
    add_json_flag(parser)


def _hours(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:9]) <= _MAX_HOURS):
        raise argparse.ArgumentTypeError(f"must be a whole number of hours from 0 to {_MAX_HOURS}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Check everything; 1 when something is wrong and was not mended, else 0."""
    report = run_on_instance(arguments, lambda parts, access: _check(parts, access, arguments))
    if arguments.json:
        import msgspec

        print(json.dumps(msgspec.to_builtins(report), indent=2))
    else:
        print(_shown(report))
    return 0 if report.is_clean else 1


async def _check(parts: Parts, _access: Access, arguments: argparse.Namespace) -> Report:
    from agentsight.server.fsck.model import Options
    from agentsight.server.fsck.service import check_instance_files

    options = Options(arguments.repair, arguments.read, arguments.older_than * 3600)
    return await check_instance_files(parts, options, now_us=now_us())


def _shown(report: Report) -> str:
    from agentsight.server.fsck.model import counted

    lines = [
        f"{counted(report.n_blobs, 'file', 'files')} with"
        f" {counted(report.size_bytes, 'byte', 'bytes')},"
        f" {counted(report.n_objects, 'object', 'objects')} looked at."
    ]
    for fault in report.faults.values():
        lines += _lines(fault)
    if not report.faults:
        lines.append("All is well.")
    return "\n".join(lines)


def _lines(fault: Fault) -> list[str]:
    from agentsight.server.fsck.model import REMEDIES, TEXTS, counted

    mended = f", {fault.n_repaired} mended" if fault.n_repaired else ""
    size = f", {counted(fault.size_bytes, 'byte', 'bytes')}" if fault.size_bytes else ""
    lines = [f"{counted(fault.n_found, *TEXTS[fault.kind])}{size}{mended}"]
    if fault.n_repaired < fault.n_found:
        lines.append(f"  -> {REMEDIES[fault.kind]}")
    lines += [f"     {example}" for example in fault.examples]
    hidden = fault.n_found - len(fault.examples)
    if fault.examples and hidden:
        lines.append(f"     and {hidden} more")
    return lines
