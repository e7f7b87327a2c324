"""Run the real command in processes of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = str(Path(sys.executable).parent / "agentsight")
PATIENCE_S = 60
"""How long a process may take before the test gives up on it; none comes near."""


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this environment without settings, and with these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTSIGHT_", "COV_"))}
    return kept | variables


def run_command(
    *words: str, stdin: str = "", cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [COMMAND, *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=cwd,
        env=clean_environment(**variables),
    )


@dataclass
class Serving:
    """A running server: its address and process, and after the end what it said."""

    url: str
    process: subprocess.Popen[str]
    ready_line: str = ""
    stderr: str = ""
    exit_code: int | None = None

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, wait for it, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        _, self.stderr = self.process.communicate(timeout=PATIENCE_S)
        self.exit_code = self.process.returncode
        return self.exit_code


def start_server(*words: str, **variables: str) -> Serving:
    """Start `serve` on a free port and wait until it says that it is ready."""
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", "0", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(**variables),
    )
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    before, _, url = line.strip().partition(" ready at ")
    if before != "AgentSight is":
        process.kill()
        _, stderr = process.communicate(timeout=PATIENCE_S)
        raise AssertionError(f"serve said {line!r} and {stderr}")
    # With a public URL the address on this machine stands behind it, in brackets.
    return Serving(url.partition("listening at ")[2].rstrip(")") or url, process, line)


@contextmanager
def serving(*words: str, **variables: str) -> Iterator[Serving]:
    """Serve for the length of a `with` block."""
    server = start_server(*words, **variables)
    try:
        yield server
    finally:
        if server.exit_code is None:
            server.stop()
