"""Runs `agentsight doctor` for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from agentsight.cli import main
from tests.proxies.house import House


class Report(NamedTuple):
    """What the doctor said, and its exit code."""

    code: int
    findings: list[dict[str, str]]
    text: str

    def of(self, check: str, state: str) -> str:
        """Return all texts and remedies of a check in that state."""
        return "\n".join(
            f"{one['text']} -> {one['remedy']}"
            for one in self.findings
            if (one["check"], one["state"]) == (check, state)
        )

    def states(self) -> set[str]:
        """Return the states that occur."""
        return {one["state"] for one in self.findings}


class Doctor:
    """Runs the command in this process, with an environment of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str, environ: Mapping[str, str] | None = None) -> Report:
        with self._monkeypatch.context() as patch:
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            self._capsys.readouterr()
            code = main(["doctor", *words, "--json"])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Report(code, json.loads(said.out), said.out + said.err)

    def for_people(self, *words: str) -> tuple[int, str]:
        """Run it without --json and return what a person reads."""
        self._capsys.readouterr()
        code = main(["doctor", *words])
        return code, self._capsys.readouterr().out


def visit(doctor: Doctor, house: House, **more: str) -> Report:
    """Run the doctor as the operator of a house: same data, same public address, trusting it."""
    return doctor(
        "--database-url", house.server.database_url, "--storage-url", house.files.as_uri(),
        "--url", house.base_url,
        environ={"SSL_CERT_FILE": str(house.certificate.certificate), **more},
    )  # fmt: skip
