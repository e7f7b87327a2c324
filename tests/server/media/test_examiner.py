"""The examining processes themselves: confined, ended when they must be, never in the way."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import agentsight.server.media
from agentsight.server.media import Examiner, ExaminerDied
from agentsight.server.media.model import MAX_OUTPUT_BYTES
from tests.server.media.conftest import FILES, told

pytestmark = pytest.mark.anyio

NOTE = FILES / "note.txt"
PARSERS = {"PIL", "_pillow_heif", "av", "email.parser", "html.parser", "pillow_heif", "pypdfium2"}


@pytest.fixture
async def fresh(anyio_backend: str) -> AsyncIterator[Examiner]:
    """Give an examiner that has no process yet."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=600)
    yield examiner
    await examiner.close()


@pytest.fixture
async def impatient(anyio_backend: str) -> AsyncIterator[Examiner]:
    """Give an examiner that waits for a second."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=1)
    yield examiner
    await examiner.close()


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """Give a file that whoever opens it waits for, for ever."""
    path = tmp_path / "stuck"
    os.mkfifo(path)
    return path


async def read_note(examiner: Examiner) -> None:
    """Prove that the examiner works."""
    facts = await examiner.examine(NOTE, mime_type="text/plain", filename="note.txt")
    assert facts.text


async def started(examiner: Examiner) -> int:
    """Wait until a process lives, and return its id."""
    async with asyncio.timeout(30):
        while not examiner.processes():  # noqa: ASYNC110 - a thread starts it
            await asyncio.sleep(0.01)
    return examiner.processes()[0]


async def gone(pid: int) -> bool:
    """Wait until a process is no more, or a zombie whose parent is another's."""
    async with asyncio.timeout(30):
        while True:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                return True
            if stat.rpartition(")")[2].split()[0] in "ZX":
                return True
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_a_file_that_takes_too_long_ends_the_process_not_the_server(
    impatient: Examiner, stuck: Path
) -> None:
    """The error tells type and reason, and the next file is examined as if nothing had been."""
    with pytest.raises(ExaminerDied, match="text/plain of 0 bytes: took more than 1 s") as died:
        await impatient.examine(stuck, mime_type="text/plain", filename="a.txt")
    assert died.value.mime_type == "text/plain"
    assert not impatient.processes()
    await read_note(impatient)


async def test_a_crash_is_told_and_survived(fresh: Examiner, stuck: Path) -> None:
    """A library that breaks takes its process along, nothing else."""
    asking = asyncio.create_task(fresh.examine(stuck, mime_type="text/plain", filename="a.txt"))
    os.kill(await started(fresh), signal.SIGSEGV)
    with pytest.raises(ExaminerDied, match="ended by SIGSEGV"):
        await asking
    await read_note(fresh)


async def test_a_process_that_was_ended_while_idle_is_replaced(fresh: Examiner) -> None:
    """The kernel may take its memory back at any time."""
    await read_note(fresh)
    pid = fresh.processes()[0]
    os.kill(pid, signal.SIGKILL)
    assert await gone(pid)
    await read_note(fresh)
    assert fresh.processes() != [pid]


async def test_who_stops_waiting_stops_the_work(fresh: Examiner, stuck: Path) -> None:
    """A cut connection frees the process, and no answer reaches the wrong question."""
    asking = asyncio.create_task(fresh.examine(stuck, mime_type="text/plain", filename="a.txt"))
    waiting = asyncio.create_task(fresh.examine(stuck, mime_type="text/plain", filename="b.txt"))
    pid = await started(fresh)
    waiting.cancel()
    asking.cancel()
    for task in (asking, waiting):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await gone(pid)
    await read_note(fresh)


async def test_a_thumbnail_does_not_wait_behind_a_document(
    fresh: Examiner, stuck: Path, tmp_path: Path
) -> None:
    """Somebody looks at a page while something large is read in the background."""
    asking = asyncio.create_task(fresh.examine(stuck, mime_type="text/plain", filename="a.txt"))
    await started(fresh)
    made = await fresh.thumbnail(
        FILES / "sample.png", mime_type="image/png", max_edge=128, out=tmp_path / "out"
    )
    assert made
    assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_many_questions_at_once_each_get_their_own_answer(
    examiner: Examiner, tmp_path: Path
) -> None:
    """Answers are not mixed up."""
    for n in range(20):
        (tmp_path / str(n)).write_text(f"text {n}")
    questions = [
        examiner.examine(tmp_path / str(n), mime_type="text/plain", filename="a") for n in range(20)
    ]
    answers = await asyncio.gather(*questions)
    assert [facts.text for facts in answers] == [f"text {n}" for n in range(20)]


async def test_an_idle_process_is_ended(anyio_backend: str) -> None:
    """A server that is not asked for previews holds no memory for them."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=30, idle_s=0.01)
    try:
        await read_note(examiner)
        async with asyncio.timeout(30):
            while examiner.processes():  # noqa: ASYNC110 - a thread ends it
                await asyncio.sleep(0.01)
        await read_note(examiner)
    finally:
        await examiner.close()


async def test_closing_ends_the_process_and_what_waits(stuck: Path) -> None:
    """A server that stops does not wait for a hostile file."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=600)
    asking = asyncio.create_task(examiner.examine(stuck, mime_type="text/plain", filename="a.txt"))
    waiting = asyncio.create_task(examiner.examine(stuck, mime_type="text/plain", filename="b.txt"))
    pid = await started(examiner)
    await examiner.close()
    assert await gone(pid)
    for task in (asking, waiting):
        with pytest.raises(ExaminerDied):
            await task
    with pytest.raises(RuntimeError, match="closed"):
        await read_note(examiner)


async def test_closing_what_was_never_used_starts_nothing() -> None:
    """Most runs of the command line never examine a file."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=30)
    await examiner.close()
    assert not examiner.processes()


async def test_the_process_has_no_secrets_and_no_privileges(
    fresh: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes it over by a hostile file finds nothing, and cannot grow."""
    monkeypatch.setenv("AGENTSIGHT_SECRET_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    await read_note(fresh)
    folder = Path(f"/proc/{fresh.processes()[0]}")
    names = {
        entry.partition(b"=")[0].decode()
        for entry in (folder / "environ").read_bytes().split(b"\0")
    }
    assert not {name for name in names if name.startswith(("AGENTSIGHT", "AWS"))}
    assert "NoNewPrivs:\t1" in (folder / "status").read_text()
    limits = {
        line[:26].strip(): line[26:].split()[1]
        for line in (folder / "limits").read_text().splitlines()[1:]
    }
    assert limits["Max address space"] == str(1 << 30)
    assert limits["Max core file size"] == "0"
    assert limits["Max file size"] == str(MAX_OUTPUT_BYTES)
    assert int(limits["Max open files"]) <= 64
    for entry in (folder / "fd").iterdir():
        if os.readlink(entry).partition(":")[0] not in ("/dev/null", "pipe"):
            # The folders that its workers may read: named, not opened.
            flags = (folder / "fdinfo" / entry.name).read_text().partition("flags:")[2].split()[0]
            assert int(flags, 8) & os.O_PATH


async def test_a_process_that_cannot_start_is_told_as_such(
    fresh: Examiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation is the operator's to mend, and no file's fault."""
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(ExaminerDied, match="the process did not start: ended with exit code 1"):
        await read_note(fresh)
    monkeypatch.delenv("PYTHONHOME")
    await read_note(fresh)


_ORPHAN = """
import asyncio, json, os, signal, sys
from pathlib import Path
from agentsight.server.media import Examiner

async def main():
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=600)
    asyncio.ensure_future(
        examiner.examine(Path(sys.argv[1]), mime_type="text/plain", filename="a")
    )
    while not examiner.processes():
        await asyncio.sleep(0.01)
    print(examiner.processes()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_process_does_not_outlive_a_server_that_was_killed(stuck: Path) -> None:
    """Not even in the middle of a file."""
    command = [sys.executable, "-c", _ORPHAN, str(stuck)]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    assert await gone(int(ended.stdout))


_CLEAN = """
import asyncio, json, sys
from pathlib import Path
import agentsight.server.app
from agentsight.server.media import Examiner
from agentsight.server.blobs import detect_mime_type

async def main():
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=30)
    for path in sorted(Path(sys.argv[1]).iterdir()):
        body = path.read_bytes()
        mime_type = detect_mime_type(body, len(body)) or ""
        out = Path(sys.argv[2])
        await examiner.examine(path, mime_type=mime_type, filename=path.name)
        await examiner.thumbnail(path, mime_type=mime_type, max_edge=128, out=out)
        await examiner.playback(path, mime_type=mime_type, out=out)
    await examiner.close()

before = set(sys.modules)
asyncio.run(main())
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.slow
async def test_the_server_never_loads_what_parses_files(tmp_path: Path) -> None:
    """Every real file examined, shown and copied: the libraries are in the other process only."""
    arguments = ["-W", "error", "-c", _CLEAN, str(FILES), str(tmp_path / "out")]
    command = [sys.executable, *arguments]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert ended.stderr == ""
    loaded = set(json.loads(ended.stdout))
    assert not loaded & (PARSERS - {"email.parser", "html.parser"})
    assert not {name for name in loaded if ".media.readers" in name}


def test_only_the_process_imports_the_readers() -> None:
    """The wall between what is trusted and what parses, by the sources."""
    folder = Path(agentsight.server.media.__file__).parent
    for path in folder.parent.rglob("*.py"):
        if path == folder / "child.py" or path.parent == folder / "readers":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.partition(".")[0] not in PARSERS, path
                assert ".media.readers" not in name, path


@pytest.mark.parametrize(
    ("library", "file", "mime_type"),
    [
        ("PIL", "sample.png", "image/png"),
        ("av", "sample.mp4", "video/mp4"),
        ("pypdfium2", "sample.pdf", "application/pdf"),
    ],
)
async def test_a_library_that_is_not_installed_is_missed_once_in_the_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    library: str,
    file: str,
    mime_type: str,
) -> None:
    """No preview, no error, one line."""
    absent = f"raise ImportError('not here', name={library!r})"
    (tmp_path / f"{library}.py").write_text(absent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=30)
    caplog.set_level(logging.INFO, logger="agentsight.server")
    try:
        for _ in range(2):
            facts = await examiner.examine(FILES / file, mime_type=mime_type, filename=file)
            assert (facts.has_preview, facts.note) == (False, f"{library} is not installed")
            assert await examiner.thumbnail(
                FILES / file, mime_type=mime_type, max_edge=128, out=tmp_path / "out"
            ) is None  # fmt: skip
        await read_note(examiner)
    finally:
        await examiner.close()
    assert [record.getMessage() for record in told(caplog)] == [
        f"{library} is not installed: such files get no preview"
    ]


async def test_a_file_that_cannot_be_shown_is_a_line_in_the_log(
    examiner: Examiner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its type and the reason, and nothing of its name or content."""
    path = tmp_path / "NameWord"
    path.write_bytes(b"\x89PNG\r\n\x1a\nContentWord")
    caplog.set_level(logging.INFO, logger="agentsight.server")
    made = await examiner.thumbnail(path, mime_type="image/png", max_edge=128, out=tmp_path / "out")
    assert made is None
    (record,) = told(caplog)
    fields = vars(record)
    assert (fields["task"], fields["mime_type"]) == ("thumbnail", "image/png")
    assert fields["note"].startswith("not readable as image/png")
    assert "Word" not in str(fields)


async def test_what_is_not_there_is_an_answer_too(examiner: Examiner, tmp_path: Path) -> None:
    """The file was removed between two steps."""
    facts = await examiner.examine(tmp_path / "gone", mime_type="text/plain", filename="a.txt")
    assert facts.note == "not readable as text/plain: FileNotFoundError"
    assert not facts.has_preview


async def test_types_that_nobody_reads_start_no_process(tmp_path: Path) -> None:
    """A ZIP archive or a program is not opened at all."""
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=30)
    path = FILES / "sample.zip"
    facts = await examiner.examine(path, mime_type="application/zip", filename="a.docx")
    assert (facts.text, facts.has_preview) == (None, False)
    out = tmp_path / "out"
    assert not await examiner.thumbnail(path, mime_type="text/html", max_edge=128, out=out)
    assert not await examiner.playback(path, mime_type="image/png", out=out)
    assert not examiner.processes()
    await examiner.close()
