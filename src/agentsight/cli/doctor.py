"""`agentsight doctor`: look at the instance from inside and outside, and say what to change."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_database_flags,
    add_json_flag,
    now_us,
    read_settings,
)

if TYPE_CHECKING:
    from agentsight.server.doctor.model import Finding
    from agentsight.server.settings import Settings

_TEXT = (
    "look at the instance from inside and outside, and say what to change; give it the environment"
    " that the server runs in"
)


def add_commands(groups: Groups) -> None:
    """Add the command."""
    parser = add_command(groups, "doctor", _TEXT, run, on_database=False)
    add_database_flags(parser, also_files=True)
    parser.add_argument(
        "--storage-url", metavar="URL", help="file:///directory, on a disk of this host"
    )
    parser.add_argument(
        "--url", "--public-url", dest="public_url", metavar="URL",
        help="the address that people and bots reach the server at",
    )  # fmt: skip
    add_json_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check everything; 1 when something must be mended, else 0."""
    import asyncio  # `--help` does not need it

    as_json: bool = arguments.json
    try:
        settings = read_settings(arguments)
    except CliError as error:
        if not as_json:
            raise
        print(json.dumps([_finding_of(error)], indent=2))
        return 1
    findings = asyncio.run(_examine(settings, as_json=as_json))
    if as_json:
        from msgspec.structs import asdict

        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        print(_summary(findings))
    return 1 if any(finding.state == "fail" for finding in findings) else 0


def _finding_of(error: CliError) -> dict[str, str]:
    return {"check": "settings", "state": "fail", "text": str(error), "remedy": ""}


async def _examine(settings: Settings, *, as_json: bool) -> list[Finding]:
    """Collect what is found, and print it as it comes."""
    from agentsight.server.doctor.model import Finding
    from agentsight.server.doctor.service import examine

    findings: list[Finding] = []
    try:
        async for finding in examine(settings, environ=os.environ, clock=now_us):
            findings.append(finding)
            if not as_json:
                print(_shown(finding), flush=True)
    except Exception as error:  # noqa: BLE001 - whatever broke, a person asked what is wrong
        # Only its kind: a text that no check has cleaned may hold a secret.
        text = f"the doctor itself broke off ({type(error).__name__})"
        findings.append(Finding("doctor", "fail", text, "Report this, please."))
        if not as_json:
            print(_shown(findings[-1]), flush=True)
    return findings


def _shown(finding: Finding) -> str:
    line = f"{finding.state:4}  {finding.check:13}  {finding.text}"
    return f"{line}\n{'':21}-> {finding.remedy}" if finding.remedy else line


def _summary(findings: list[Finding]) -> str:
    counts = {
        state: sum(finding.state == state for finding in findings)
        for state in ("fail", "warn", "skip")
    }
    if not counts["fail"] and not counts["warn"]:
        skipped = f", {counts['skip']} not asked" if counts["skip"] else ""
        return f"\nAll is well{skipped}."
    return f"\n{counts['fail']} to mend, {counts['warn']} to look at, {counts['skip']} not asked."
