"""What does `GET …/{id}/attachments/` cost, beside a bare ASGI answer, and as the data grows?

Eight files in four messages; the load goes over all conversations that have files (25,000 of
100,000), in no order, so that nothing is warm that would not be warm in life. CPU of the server a
request, under wrk; the bare application answers a body of the same size. And what does a file cost
in a conversation of ten thousand, beside one in a conversation of eight?
"""

from __future__ import annotations

import shutil

from benchmarks.dataset import HEADERS, Dataset, dataset
from benchmarks.measuring import (
    SCRATCH,
    Server,
    agentsight,
    bare_app,
    line,
    median,
    ratio,
    take_turns,
    title,
    verdict,
    wrk,
    wrk_paths,
)
from benchmarks.zip import make_conversations

N_ROUNDS = 7
SECONDS = 2
N_PATHS = 5000
N_MANY = 10_000


def path_of(pk: int) -> str:
    """Return the path of the one call."""
    return f"/api/conversations/{pk}/attachments/"


def cpu_us(server: Server, made: Dataset) -> float:
    """Measure the one call over many conversations."""
    script = wrk_paths([path_of(pk) for pk in made.with_files[:N_PATHS]])
    return wrk(server, "/", headers=HEADERS, seconds=SECONDS, script=script).cpu_us


def _many_files() -> bool:
    data = SCRATCH / "many-files"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    # A hundred of eight, so that the load meets as many rows as it does in the large one's turn.
    few = {f"eight-{n}": (8, 8) for n in range(100)}
    make_conversations(data, {"many": (N_MANY, 8)} | few, per_message=2)
    eights = wrk_paths([path_of(pk) for pk in range(2, 102)])
    with agentsight(data, examine="off") as server:

        def per_file(path: str, n_files: int, script: str | None = None) -> float:
            # One at a time: eight answers of five megabytes would still be made in the next turn.
            load = wrk(server, path, headers=HEADERS, seconds=4, connections=1, script=script)
            return load.cpu_us / n_files

        found = take_turns(
            5,
            {
                "many": lambda: per_file(path_of(1), N_MANY),
                "eight": lambda: per_file("/", 8, eights),
            },
        )
    title("The one call by the file: 10,000 files in one conversation, and 8")
    line("a file of 10,000, CPU", f"{median(found['many']):.1f} µs")
    line("a file of 8, CPU", f"{median(found['eight']):.1f} µs")
    return verdict("10,000 / 8, CPU a file", ratio(found, "many", "eight"), most=1.0)


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    big, small = dataset(100_000), dataset(100)
    with agentsight(big.data) as large, agentsight(small.data) as little:
        size = len(large.get(path_of(big.with_files[0]), HEADERS)[1])
        with bare_app(BARE_BODY_BYTES=str(size)) as bare:
            alone = path_of(big.with_files[0])
            found = take_turns(
                N_ROUNDS,
                {
                    "bare": lambda: wrk(bare, "/", headers=HEADERS, seconds=SECONDS).cpu_us,
                    "large": lambda: cpu_us(large, big),
                    "little": lambda: cpu_us(little, small),
                    "one": lambda: wrk(large, alone, headers=HEADERS, seconds=SECONDS).cpu_us,
                },
            )
    title(f"The one call: 8 files in 4 messages, {size} bytes of JSON (load: wrk, 8 connections)")
    line("a bare ASGI answer of that size, CPU", f"{median(found['bare']):.1f} µs")
    line("1,000,000 messages, 200,000 files, CPU", f"{median(found['large']):.1f} µs")
    line("1,000 messages, 200 files, CPU", f"{median(found['little']):.1f} µs")
    line("1,000,000 messages, one conversation again and again", f"{median(found['one']):.1f} µs")
    are_met = [_many_files()]
    return all([
        *are_met,
        verdict("bare / the one call", ratio(found, "bare", "large"), least=0.15),
        verdict("1,000 times the rows", ratio(found, "large", "little"), most=1.2),
    ])  # fmt: skip
