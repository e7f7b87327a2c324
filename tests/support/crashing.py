"""A server that dies, by SIGKILL, before or after one step of its work: which one, a test says."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support import dying
from tests.support.server import LiveServer


class CrashingServer(LiveServer):
    """One `agentsight serve` that dies at the step it is told."""

    @property
    def order_path(self) -> Path:
        """Say where the order stands; `steps_path` beside it lists the steps since then."""
        return self.directory / "crash"

    @property
    def steps_path(self) -> Path:
        """Say where the steps are listed."""
        return self.directory / "crash.steps"

    def crash_at(self, name: str, nth: int = 1) -> None:
        """Order its death at the nth step whose name holds a text; all hold the empty one."""
        self.steps_path.unlink(missing_ok=True)
        half = self.order_path.with_suffix(".half")
        half.write_text(f"{nth} {name}")
        half.rename(self.order_path)

    def crash_no_more(self) -> list[str]:
        """Take the order back; return the steps since it was given, in their order."""
        self.order_path.unlink()
        return self.steps_path.read_text().splitlines() if self.steps_path.exists() else []

    def _program(self) -> list[str]:
        # Without the directory of the script, which has an `http.py`, on its path.
        return [sys.executable, "-P", str(Path(dying.__file__))]

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"CRASH_ORDER": str(self.order_path)}
