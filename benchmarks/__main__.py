"""Run the benchmarks that are named, or all of them; exit 1 when one misses a floor."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path

NAMES = (
    "one_call", "earlier", "lists", "files", "uploads", "footprint", "database", "search_files",
    "zip", "previews",
)  # fmt: skip


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not there"
    return (done.stdout + done.stderr).strip().splitlines()[0]


def _print_machine() -> None:
    cpu = next(
        (text.partition(": ")[2] for text in Path("/proc/cpuinfo").read_text().splitlines()
         if text.startswith("model name")), platform.machine(),
    )  # fmt: skip
    packages = ("uvicorn", "uvloop", "httptools", "litestar", "msgspec", "python-multipart")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC")
    print(f"machine: {os.cpu_count()} cores of {cpu}, {platform.system()} {platform.release()}")
    print(f"Python {platform.python_version()}, {versions}")
    nginx = "/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else "nginx"
    print(f"load: {_said('wrk', '-v')[:40]}; {_said(nginx, '-v')}", flush=True)


def main() -> int:
    """Run, and return the exit code."""
    names = sys.argv[1:] or list(NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark is called {', '.join(unknown)}: there are {', '.join(NAMES)}")
        return 2
    _print_machine()
    results = [import_module(f"benchmarks.{name}").main() for name in names]
    print("\nall floors are met" if all(results) else "\na floor was MISSED", flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
