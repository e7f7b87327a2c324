"""The counters that `GET /metrics` shows. Any room may count; nothing here knows a tenant.

A label takes one of a few words of ours, never a name, an id or anything that came from outside:
whoever may read the numbers learns nothing of whose they are.

With several workers each counts in a file of its own, in the directory that the environment names
(`agentsight serve` makes one before they start, and removes it); whichever worker is asked adds all
of them up. A file outlives its worker, so nothing is forgotten when one is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The library looks at it once, when it is imported: set it before."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4"  # the framework names the charset
_registry: Final = CollectorRegistry()
disable_created_metrics()  # twice the lines, for what the process says once


def _counter(name: str, text: str, **values_by_label: Sequence[str]) -> Counter:
    """Make a counter; the values of its label that are named begin as zeros.

    A series that is absent until something happens has no rate when it does.
    """
    counter = Counter(f"agentsight_{name}", text, tuple(values_by_label), registry=_registry)
    for values in values_by_label.values():
        for value in values:
            counter.labels(value)
    return counter


uploads: Final = _counter("uploads", "Files received whole and kept.")
upload_bytes: Final = _counter("upload_bytes", "Bytes of the files received.")
deduplicated_bytes: Final = _counter(
    "deduplicated_bytes",
    "Bytes of files that were here already: not sent at all, or stored once only.",
)
previews: Final = _counter(
    "previews", "Previews and playable copies made.", kind=("thumbnail", "playback")
)
extraction_failures: Final = _counter(
    "extraction_failures", "Files that could not be examined: damaged, too large or hostile."
)
links_refused: Final = _counter(
    "links_refused",
    "Signed links that were refused.",
    reason=("invalid", "expired", "unknown", "deleted", "quarantined", "infected"),
)
files_served: Final = _counter(
    "files_served", "Answers with the bytes of a file, or of a part, or of what was made of it."
)
served_bytes: Final = _counter(
    "served_bytes", "Bytes of files sent by this server itself, not by nginx or the object store."
)
scans: Final = _counter(
    "scans", "Malware scans that ended.", result=("clean", "infected", "failed")
)
erasures: Final = _counter("erasures", "Things that were erased for good, with their bytes.")
audit_reads_lost: Final = _counter(
    "audit_reads_lost", "Reads that the audit log has not recorded, as too many were waiting."
)


# --- Showing them ---------------------------------------------------------------------------------

Gauge = tuple[str, str, str, Mapping[str, float]]
"""Name, what it says, label, and values by label."""


def exposition(gauges: Iterable[Gauge] = ()) -> bytes:
    """Return all numbers in Prometheus' text format.

    Args:
        gauges: What the caller has just read elsewhere.
    """
    directory = os.environ.get(DIRECTORY_VARIABLE)
    shown = CollectorRegistry()
    if directory:
        MultiProcessCollector(shown, path=directory)  # pyright: ignore[reportArgumentType] # untyped
    else:
        shown.register(_Made(_registry.collect))
    pids = _workers(Path(directory)) if directory else [os.getpid()]
    shown.register(_Made(lambda: _processes(pids)))
    shown.register(_Made(lambda: [_family(gauge) for gauge in gauges]))
    return generate_latest(shown)


class _Made(Collector):
    """What a function makes."""

    def __init__(self, make: Callable[[], Iterable[Metric]]) -> None:
        self._make = make

    def collect(self) -> Iterable[Metric]:
        return self._make()


def _family(gauge: Gauge) -> Metric:
    name, text, label, values = gauge
    family = GaugeMetricFamily(f"agentsight_{name}", text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def _workers(directory: Path) -> list[int]:
    """Return the processes that count beside us: those of our parent that are alive."""
    parent = os.getppid()
    found = {int(path.stem.rpartition("_")[2]) for path in directory.glob("counter_*.db")}
    return sorted(pid for pid in found | {os.getpid()} if _parent_of(pid) in (parent, None))


def _parent_of(pid: int) -> int | None:
    """Return a process's parent; 0 when it is dead, None where the system does not tell."""
    if not Path("/proc/self/stat").exists():
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])  # proc(5): state, then ppid


def _processes(pids: Sequence[int]) -> Iterator[Metric]:
    """Add up what the system says of our processes (on Linux), under the customary names."""
    sums: dict[str, float] = {}
    for pid in pids:
        for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    yield GaugeMetricFamily("agentsight_workers", "Processes that serve.", value=len(pids))
    for name, text in (
        ("process_resident_memory_bytes", "Memory of all workers; what they share counts in each."),
        ("process_open_fds", "Open files and sockets of all workers."),
        ("process_max_fds", "How many of them all workers together may have."),
    ):
        if name in sums:
            yield GaugeMetricFamily(name, text, value=sums[name])
    if "process_cpu_seconds_total" in sums:
        text = "CPU time of the workers that are alive."
        yield CounterMetricFamily(
            "process_cpu_seconds", text, value=sums["process_cpu_seconds_total"]
        )
