"""The PostgreSQL that tests run on: it never outlives them, and never runs as root."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow

OWNER = """
import sys
from tests.support.postgres import PostgresServer
server = PostgresServer()
postmaster = (server.scratch / "data" / "postmaster.pid").read_text().split()[0]
print(server.scratch, postmaster, server.supervisor_pid, flush=True)
sys.stdin.read()
"""


def test_the_server_dies_with_its_test_process() -> None:
    """Even SIGKILL leaves no server and no directory behind."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert owner.stdout is not None
    scratch, *pids = owner.stdout.readline().split()
    handles = [os.pidfd_open(int(pid)) for pid in pids]
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    for handle in handles:
        ended, _, _ = select.select([handle], [], [], 30)
        assert ended, "still running"
        os.close(handle)
    assert not Path(scratch).exists()


def test_the_server_is_not_root(postgres_server: PostgresServer) -> None:
    """PostgreSQL would refuse; and nothing here needs it."""
    pid = (postgres_server.scratch / "data" / "postmaster.pid").read_text().split()[0]
    status = Path(f"/proc/{pid}/status").read_text()
    uid = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1]
    assert uid != "0"


def test_the_port_is_below_the_ephemeral_range(postgres_server: PostgresServer) -> None:
    """An outgoing connection of another test can never take it."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert 1024 < postgres_server.port < int(text.split()[0])
