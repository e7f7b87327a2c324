"""How long does a search inside 100,000 documents take, on SQLite and on PostgreSQL?

The time of whole answers over loopback, one at a time: a page of ten files in the list's order,
with the count where the list gives one. Beside it the CPU time of server and database together.
"""

from __future__ import annotations

from urllib.parse import urlencode

from benchmarks.dataset import ask
from benchmarks.documents import N_DOCUMENTS, Documents, document_servers
from benchmarks.lists import answer_ms
from benchmarks.measuring import cpu_ns, line, median, title, verdict

N_SEARCHES = 40
MOST_MS = 50
BOUNDED = {
    "a word of 5": {"text_contains": "zephyrquartz"},
    "a word of 5, its trigrams common": {"text_contains": "orderlatteness"},
    "a word of 300": {"text_contains": "mediumrareword"},
    "a word of none": {"text_contains": "xylophonist"},
    "a common word": {"text_contains": "please"},
    "a common word, page 50": {"text_contains": "please", "page": "50"},
    "two words of one sentence": {"text_contains": "latte please"},
    "name or text, rare": {"contains": "zephyrquartz"},
    "name or text, common": {"contains": "order"},
    "rare, of one customer": {"text_contains": "mediumrareword", "customer_id": "customer-7"},
    "common, of one customer": {"text_contains": "please", "customer_id": "customer-7"},
    "two letters": {"text_contains": "or"},
}
OTHERS = {
    "no filter": {},
    "no filter, not counted": {"count": "false"},
    "a type": {"type": "document"},
    "a name": {"filename_contains": "report 77"},
    "a common word, by size": {"text_contains": "please", "ordering": "-size_bytes"},
    "a common name": {"filename_contains": "report"},
    "a customer": {"customer_id": "customer-7"},
}


def _measure(name: str, documents: Documents) -> bool:
    server = documents.server
    title(f"{name}: files of {N_DOCUMENTS:,} documents, whole answers ({N_SEARCHES} each)")
    are_met: list[bool] = []
    for what, query in (BOUNDED | OTHERS).items():
        path = f"/api/v1/attachments/?{urlencode(query)}"
        found = ask(server, path)
        count = f"{found['count']}{'' if found['count_is_exact'] else '+'}"
        before = cpu_ns(*documents.pids)
        times = answer_ms(server, path, N_SEARCHES)
        cpu_ms = (cpu_ns(*documents.pids) - before) / N_SEARCHES / 1e6
        said = f"{what} ({count}), CPU {cpu_ms:.1f} ms"
        if what in BOUNDED:
            are_met.append(verdict(said, median(times), most=MOST_MS, unit=" ms"))
        else:
            line(said, f"{median(times):.1f} ms")
    for what, needle in (("rare", "zephyrquartz"), ("300", "mediumrareword")):
        path = f"/api/conversations/?full=false&attachment_contains={needle}"
        count = ask(server, path)["count"]
        times = answer_ms(server, path, N_SEARCHES)
        said = f"conversations by attachment_contains, {what} ({count})"
        are_met.append(verdict(said, median(times), most=MOST_MS, unit=" ms"))
    return all(are_met)


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    with document_servers() as servers:
        are_met = [_measure(name, documents) for name, documents in servers.items()]
    return all(are_met)
