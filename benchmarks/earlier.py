"""Does the one call cost more than it did in the foundation, whose answer knew less of a file?

The foundation's code is taken out of the repository's history and serves a database of its own
making, of the same conversations and files, by the same Python and the same libraries. Both take
turns under wrk. Its answer is a third shorter: eight of the keys of each file came later.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.dataset import HEADERS, Dataset, dataset
from benchmarks.measuring import (
    ROOT,
    SCRATCH,
    agentsight,
    free_port,
    line,
    median,
    program,
    ratio,
    running,
    take_turns,
    title,
    verdict,
)
from benchmarks.one_call import cpu_us, path_of

FOUNDATION = "01f36d0"
"""The last commit before files could be uploaded, searched and shown."""
N_ROUNDS = 21
N_CONVERSATIONS = 1000
_MAKE = "from benchmarks.dataset import dataset; print(dataset({n}).data)"


def _environment(checkout: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join((str(checkout / "src"), str(checkout)))}


def _take_out(commit: str) -> Path | None:
    """Put a commit's sources into the scratch directory; None where the history lacks it."""
    checkout = SCRATCH / f"earlier-{commit}"
    if (checkout / "src").exists():
        return checkout
    archive = subprocess.run(
        ["git", "archive", commit, "src", "benchmarks", "examples"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode:
        return None
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
    return checkout


def _make_dataset(checkout: Path) -> Dataset:
    """Let the earlier code make the database that the earlier code will serve."""
    made = subprocess.run(
        [sys.executable, "-c", _MAKE.format(n=N_CONVERSATIONS)],
        cwd=checkout,
        env={**os.environ, **_environment(checkout)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return Dataset(Path(made.splitlines()[-1]), N_CONVERSATIONS)


def main() -> bool:
    """Measure, and print; True when the floor is met."""
    title("The one call now, and as the foundation answered it (8 files, load: wrk)")
    checkout = _take_out(FOUNDATION)
    if checkout is None:
        line("not measured", f"the history has no {FOUNDATION}")
        return True
    before, now = _make_dataset(checkout), dataset(N_CONVERSATIONS)
    port = free_port()
    serve = [program("agentsight"), "serve", "--data", str(before.data), "--port", str(port)]
    earlier = running(serve, port, path="/healthz", env=_environment(checkout))
    with agentsight(now.data) as new, earlier as old:
        path = path_of(now.with_files[0])
        sizes = [len(server.get(path, HEADERS)[1]) for server in (old, new)]
        found = take_turns(
            N_ROUNDS, {"old": lambda: cpu_us(old, before), "new": lambda: cpu_us(new, now)}
        )
    line(f"the foundation, {sizes[0]} bytes, CPU", f"{median(found['old']):.1f} µs")
    line(f"now, {sizes[1]} bytes, CPU", f"{median(found['new']):.1f} µs")
    return verdict("now / the foundation", ratio(found, "new", "old"), most=1.0)
