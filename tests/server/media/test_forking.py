"""A worker for each job: nothing of one reaches the next, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agentsight.server.media import Examiner, ExaminerDied
from agentsight.server.media.forking import serve
from agentsight.server.media.protocol import Ended, Job, Reply, frame
from tests.server.media.conftest import FILES
from tests.server.media.takeover import Takeover
from tests.server.media.test_examiner import gone, read_note

pytestmark = pytest.mark.anyio

LASTING = "import time\ntime.sleep(600)\n"


@pytest.fixture
async def fresh(faulty: Examiner) -> AsyncIterator[Examiner]:
    """Give an examiner that has no process yet, and whose PDFs run as code."""
    made = Examiner(memory_bytes=1 << 30, timeout_s=600)
    yield made
    await made.close()


async def worker_of(examiner: Examiner) -> tuple[int, int]:
    """Wait until a worker lives; return the ids of its process' parent and its own."""
    async with asyncio.timeout(30):
        while True:
            for pid in examiner.processes():
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                if children:
                    return pid, int(children[0])
            await asyncio.sleep(0.01)


async def test_nothing_that_a_file_changes_outlives_it(taken: Takeover) -> None:
    """Neither in modules, as here, nor anywhere else in memory: it was a copy."""
    code = """
import sys
import agentsight.server.media.protocol as protocol
from agentsight.server.media import kinds
said = [getattr(sys, "was_here", False), kinds.PDF]
sys.was_here = True
kinds.PDF = "text/plain"
protocol.Reply = None
"""
    assert await taken.run(code) == [False, "application/pdf"]
    assert await taken.run(code) == [False, "application/pdf"]
    await read_note(taken.examiner)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT", "SIGXCPU"])
async def test_a_worker_that_is_ended_costs_no_restart(taken: Takeover, name: str) -> None:
    """The signal is told, and the process that makes workers is the same as before."""
    assert await taken.run("said = 1") == 1
    before = taken.examiner.processes()
    with pytest.raises(ExaminerDied, match=f"application/pdf of [0-9]+ bytes: ended by {name}"):
        await taken.run(f"import os, signal\nos.kill(os.getpid(), signal.{name})")
    assert await taken.run("said = 2") == 2
    assert taken.examiner.processes() == before


async def test_a_worker_that_leaves_is_told(taken: Takeover) -> None:
    """With its code; without an answer there is none."""
    with pytest.raises(ExaminerDied, match="ended with exit code 3"):
        await taken.run("import os\nos._exit(3)")


async def test_a_worker_that_wants_too_much_memory_is_answered(taken: Takeover) -> None:
    """The next one finds what it would have found."""
    path = taken.folder / "code.pdf"
    path.write_text("x = bytearray(2 << 30)")
    facts = await taken.examiner.examine(path, mime_type="application/pdf", filename="a.pdf")
    assert facts.note == "needs more memory than is allowed"
    assert await taken.run("said = len(bytearray(256 << 20))") == 256 << 20
    assert 256 << 20 < taken.examiner.peak_bytes() < 1 << 30


@pytest.mark.parametrize(
    "forged",
    ["bytes(4) + b'\\0\\0\\0\\2{}' * 9", "b'\\xff' * 100", "b'{}' * (40 << 20)"],
)
async def test_a_worker_cannot_answer_for_the_next(taken: Takeover, forged: str) -> None:
    """Whatever it writes, as often as it likes, is its own answer."""
    code = f"""
import os, stat
for number in range(3, 64):
    try:
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            data = {forged}
            while data:
                data = data[os.write(number, data):]
    except OSError:
        pass
"""
    with pytest.raises(ExaminerDied, match="it answered nonsense"):
        await taken.run(code)
    await read_note(taken.examiner)
    assert await taken.run("said = 3") == 3


async def test_a_worker_does_not_outlive_who_made_it(fresh: Examiner, tmp_path: Path) -> None:
    """Even when that is killed from outside."""
    path = tmp_path / "a.pdf"
    path.write_text(LASTING)
    asking = asyncio.create_task(fresh.examine(path, mime_type="application/pdf", filename="a.pdf"))
    parent, worker = await worker_of(fresh)
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(ExaminerDied, match="ended by SIGKILL"):
        await asking
    assert await gone(worker)


async def test_who_stops_waiting_ends_the_worker(fresh: Examiner, tmp_path: Path) -> None:
    """As does a job that takes too long: it is the same call."""
    path = tmp_path / "a.pdf"
    path.write_text(LASTING)
    asking = asyncio.create_task(fresh.examine(path, mime_type="application/pdf", filename="a.pdf"))
    parent, worker = await worker_of(fresh)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await gone(worker)
    assert await gone(parent)


async def test_what_makes_workers_keeps_no_name_and_no_text(tmp_path: Path) -> None:
    """They would lie in the memory of the next worker, which may be another tenant's."""
    marks = {what: f"{what}-{os.urandom(8).hex()}" for what in ("name", "text", "folder")}
    folder = tmp_path / marks["folder"]
    folder.mkdir()
    path = folder / "body"
    path.write_text(f"{marks['text']} " * 1000)
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=60)
    try:
        name = marks["name"] + ".txt"
        facts = await examiner.examine(path, mime_type="text/plain", filename=name)
        assert facts.text
        memory = memory_of(examiner.processes()[0])
    finally:
        await examiner.close()
    assert b"agentsight.server.media" in memory
    assert {what for what, mark in marks.items() if mark.encode() in memory} == set()


def memory_of(pid: int) -> bytes:
    """Read all that a process has in its memory."""
    found = bytearray()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(text, 16) for text in span.split("-"))
                memory.seek(start)
                found += memory.read(end - start)
    return bytes(found)


@pytest.mark.parametrize("name", ["sample.heic", "sample.mp4", "sample.pdf", "sample.docx"])
async def test_what_makes_workers_has_one_thread(examiner: Examiner, name: str) -> None:
    """A fork would leave the others behind, with the locks that they hold."""
    kinds = {"heic": "image/heic", "mp4": "video/mp4", "pdf": "application/pdf"}
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    mime_type = kinds.get(name.rpartition(".")[2], word)
    await examiner.examine(FILES / name, mime_type=mime_type, filename=name)
    for pid in examiner.processes():
        assert os.listdir(f"/proc/{pid}/task") == [str(pid)]


def test_where_a_fork_is_unsafe_jobs_are_done_in_place() -> None:
    """As before there were workers; the answer looks the same."""
    jobs, asking = os.pipe()
    answering, replies = os.pipe()
    job = Job(task="examine", path="/x", mime_type="text/plain", timeout_s=1)
    os.write(asking, frame(job) + frame(job))
    os.close(asking)
    seen: list[int] = []

    def work(body: bytearray, answer_at: int) -> bytes:
        seen.append(os.getpid())
        return msgspec.json.encode(Reply(note=msgspec.json.decode(body, type=Job).path))

    serve(jobs, replies, load=lambda _: None, work=work, is_forking=False)
    os.close(replies)
    one = b'\0\0\0\x0d{"note":"/x"}' + bytes(4) + frame(Ended())
    with open(answering, "rb") as file:
        assert file.read() == one + one
    os.close(jobs)
    assert seen == [os.getpid()] * 2
