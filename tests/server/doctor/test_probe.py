"""Probes: who may ask how a server is set up, and who may not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight.server.attachments.links import Links
from agentsight.server.doctor.api import PROBE_PATH
from agentsight.server.doctor.model import Finding, Hider, free_disk_finding, skew_finding
from agentsight.server.doctor.probe import LIFETIME_S, MAX_BODY_BYTES, Probes
from agentsight.server.instance.signing import keys_of_setting
from agentsight.server.settings import load_settings
from tests.support.server import LiveServer

NOW_US = 1_795_000_000_000_000
NONCE = "0123456789abcdef" * 2
KEYS = [("k2", b"b" * 32), ("k1", b"a" * 32)]


def test_a_probe_is_known_by_every_valid_key() -> None:
    """While keys rotate, server and doctor may each have another one first."""
    header = Probes(KEYS[1:]).sign(NONCE, NOW_US)
    assert Probes(KEYS).is_valid(header, NOW_US)
    assert not Probes(KEYS[:1]).is_valid(header, NOW_US)


def test_a_probe_expires() -> None:
    """What was written into some log is soon worth nothing."""
    probes = Probes(KEYS)
    header = probes.sign(NONCE, NOW_US)
    assert probes.is_valid(header, NOW_US + (LIFETIME_S - 1) * 1_000_000)
    assert not probes.is_valid(header, NOW_US + LIFETIME_S * 1_000_000)


@given(position=st.integers(0, 200), character=st.sampled_from("0a.Z é\n"))
def test_an_altered_probe_is_refused(position: int, character: str) -> None:
    """No character of it can be another one."""
    header = Probes(KEYS).sign(NONCE, NOW_US)
    position %= len(header)
    altered = header[:position] + character + header[position + 1 :]
    assert Probes(KEYS).is_valid(altered, NOW_US) == (altered == header)


@given(st.text() | st.none())
def test_anything_else_is_refused(header: str | None) -> None:
    """No text makes the check break."""
    assert not Probes(KEYS).is_valid(header, NOW_US)


def test_a_links_signature_is_no_probe() -> None:
    """The same keys sign links, for another purpose."""
    url, _ = Links(KEYS).file_url(1, "u" * 36, "a.txt", "http://x", NOW_US)
    token = url.split("/")[-2]
    assert not Probes(KEYS).is_valid(f"Probe {token}", NOW_US)


@pytest.mark.slow
def test_a_stranger_learns_nothing_at_the_door(tmp_path: Path) -> None:
    """Without a probe it is 401, for a key too, and a body is not read."""
    with LiveServer(tmp_path) as server:
        agent = server.make_agent()
        for answer in (
            server.ask("GET", PROBE_PATH),
            server.ask("GET", PROBE_PATH, key=agent.write_key),
            server.ask("POST", PROBE_PATH, body=b"x" * 100),
            server.ask(
                "GET", PROBE_PATH, headers={"Authorization": Probes(KEYS).sign(NONCE, NOW_US)}
            ),
        ):
            assert (answer.status, answer.json["code"]) == (401, "not_authenticated")
            assert "instance" not in answer.json


@pytest.mark.slow
def test_a_probe_counts_bodies_up_to_its_limit(tmp_path: Path) -> None:
    """It reads and forgets, and stops at the byte that passes the limit."""
    secret = "a-secret-of-this-test"
    with LiveServer(tmp_path, settings={"AGENTSIGHT_SECRET_KEY": secret}) as server:
        header = Probes(keys_of_setting((secret,))).sign(NONCE, time.time_ns() // 1000)
        headers = {"Authorization": header, "Content-Type": "application/octet-stream"}
        small = server.ask("POST", PROBE_PATH, body=b"x" * 1000, headers=headers)
        assert (small.status, small.json["n_bytes"]) == (200, 1000)
        large = server.ask("POST", PROBE_PATH, body=bytes(MAX_BODY_BYTES + 1), headers=headers)
        assert (large.status, large.json["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("postgresql://u:p%40ssword@h/d", "p@ssword"),
        ("postgresql://u:p%40ssword@h/d", "p%40ssword"),
        ("postgresql://h/d?password=hunter22", "hunter22"),
        ("postgresql://u:pass:word/more@h/d", "pass:word/more"),
    ],
)
def test_a_password_is_hidden_in_every_form(url: str, secret: str) -> None:
    """Quoted or not, whoever repeats it in an error."""
    hider = Hider.of(load_settings({"AGENTSIGHT_DATABASE_URL": url}), {})
    said = hider.clean(Finding("database", "fail", f"cannot open {secret}!", f"mend {secret}"))
    assert secret not in said.text + said.remedy


def test_disks_and_clocks_are_judged_in_three_steps() -> None:
    """Fine, look at it, mend it."""
    settings = load_settings({})
    frees = (0, 200 << 20, 500 << 20, 2 << 30)
    found = [free_disk_finding("x", free, "d", settings) for free in frees]
    assert [one.state for one in found] == ["fail", "fail", "warn", "ok"]
    assert "files are refused (AGENTSIGHT_MIN_FREE_DISK_BYTES=268435456)" in found[1].text
    lax = load_settings({"AGENTSIGHT_MIN_FREE_DISK_BYTES": "1"})
    assert [free_disk_finding("x", n, "d", lax).state for n in frees] == [
        "fail", "warn", "warn", "ok"
    ]  # fmt: skip
    states = [skew_finding("x", skew_s).state for skew_s in (0.5, -4.9, 5, -59, 60, -1e6)]
    assert states == ["ok", "ok", "warn", "warn", "fail", "fail"]
