"""What does a page of ten full transcripts cost, beside the one call? And a search for a rare word?

Three filters that each match 1,000 of 100,000 conversations: by customer and by device, which have
an index, and by a leaf of the metadata, which looks at every document and has no bound here. CPU of
the server a request, under wrk; for searches the time of the whole answer, one at a time over
loopback.
"""

from __future__ import annotations

import functools
import http.client
import time
from collections.abc import Callable

from benchmarks.dataset import CUSTOMER, DEVICE, HEADERS, PLAN, RARE_WORDS, dataset
from benchmarks.measuring import (
    Server,
    agentsight,
    line,
    median,
    ratio,
    take_turns,
    title,
    verdict,
    wrk,
)
from benchmarks.one_call import SECONDS, cpu_us

N_ROUNDS = 5
N_SEARCHES = 200
_LIST = "/api/conversations/"
FILTERS = {
    "customer_id": f"customer_id={CUSTOMER}",
    "device": f"device={DEVICE}",
    "metadata": f"metadata=plan:{PLAN}",
    "no filter": "",
}


def _page_us(server: Server, query: str) -> float:
    return wrk(server, f"{_LIST}?{query}", headers=HEADERS, seconds=SECONDS, connections=4).cpu_us


def answer_ms(server: Server, path: str, n_times: int) -> list[float]:
    """Time whole answers one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    found: list[float] = []
    for _ in range(n_times):
        started = time.perf_counter()
        connection.request("GET", path, headers=HEADERS)
        answer = connection.getresponse()
        answer.read()
        found.append((time.perf_counter() - started) * 1000)
        if answer.status != 200:
            raise SystemExit(f"{path} answered {answer.status}")
    connection.close()
    return found


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    made = dataset(100_000)
    with agentsight(made.data) as server:
        measures: dict[str, Callable[[], float]] = {"the one call": lambda: cpu_us(server, made)}
        for name, query in FILTERS.items():
            measures[name] = functools.partial(_page_us, server, query)
        found = take_turns(N_ROUNDS, measures)
        answers = {
            word: answer_ms(server, f"{_LIST}?message_contains={word}", N_SEARCHES)
            for word in RARE_WORDS
        }
    title("A page of 10 full transcripts (100 messages) of 100,000 conversations (load: wrk, 4)")
    for name in measures:
        line(f"{name}, CPU", f"{median(found[name]):.0f} µs")
    are_met = [
        verdict(f"{name} / the one call", ratio(found, name, "the one call"), most=10)
        for name in FILTERS
        if name != "metadata"
    ]
    line("metadata / the one call", f"{ratio(found, 'metadata', 'the one call'):.0f}", "(a scan)")
    title("message_contains in 1,000,000 messages, five found, with their full transcripts")
    for word, times in answers.items():
        line(f"{word!r}, slowest of {N_SEARCHES}", f"{max(times):.1f} ms")
        are_met.append(verdict(f"{word!r}, median", median(times), most=10, unit=" ms"))
    return all(are_met)
