"""What code of a stranger cannot do in the process that parses: all of it tried, for real."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentsight.server.media import Examiner, examiner, landlock, sandbox_gaps, seccomp, syscalls
from tests.server.media.conftest import FILES, told
from tests.server.media.takeover import Takeover

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(sandbox_gaps()), reason=f"no {sandbox_gaps()} on this machine"),
]

REFUSED = {errno.EPERM, errno.EACCES}

ON_FILES = {
    "read the database": "open(SECRET).read()",
    "read another tenant's file in the same folder": "open(BESIDE).read()",
    "list the store": "os.listdir(os.path.dirname(BESIDE))",
    "read a file of the system": "open('/etc/passwd').read()",
    "read the server's environment": "open(f'/proc/{SERVER}/environ').read()",
    "read the server's memory": "open(f'/proc/{SERVER}/mem', 'rb').close()",
    "read the parent's environment": "open(f'/proc/{os.getppid()}/environ').read()",
    "list the server's descriptors": "os.listdir(f'/proc/{SERVER}/fd')",
    "list the processes": "os.listdir('/proc')",
    "write a new file beside its own": "open(BESIDE + '.new', 'w').close()",
    "write a new file in the folder for temporary ones": "open('/tmp/' + UNIQUE, 'w').close()",
    "overwrite its source": "open(SOURCE, 'r+').close()",
    "overwrite another file": "open(BESIDE, 'r+').close()",
    "cut another file off": "os.truncate(BESIDE, 1)",
    "remove a file": "os.unlink(BESIDE)",
    "rename a file": "os.rename(BESIDE, BESIDE + '.x')",
    "link a file into reach": "os.link(SECRET, SOURCE + '.link')",
    "make a link to a file": "os.symlink(SECRET, SOURCE + '.symlink')",
    "make a folder": "os.mkdir(BESIDE + '.folder')",
    "make a pipe": "os.mkfifo(BESIDE + '.pipe')",
    "lock others out": "os.chmod(SECRET, 0)",
    "let others in": "os.chmod(os.path.dirname(SECRET), 0o777)",
    "change a file's times": "os.utime(BESIDE)",
}
ON_NETWORKS = {
    "connect by TCP": "socket.create_connection(('127.0.0.1', PORT))",
    "listen by TCP": "socket.create_server(('127.0.0.1', 0))",
    "send by UDP": "socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "connect to a socket with a path": "socket.socket(socket.AF_UNIX).connect(UNIX)",
    "connect to a socket without one": "socket.socket(socket.AF_UNIX).connect('\\0' + UNIQUE)",
    "make a pair of sockets": "socket.socketpair()",
}
ON_PROCESSES = {
    "run a program": "subprocess.run([sys.executable, '-c', ''], check=True)",
    "become a program": "os.execv(sys.executable, [sys.executable, '-c', 'print(0)'])",
    "make a process": "os.fork() or os._exit(0)",
    "signal the server": "os.kill(SERVER, 0)",
    "signal its parent": "os.kill(os.getppid(), 0)",
    "signal everybody": "os.kill(-1, 0)",
    "take hold of the server": "os.pidfd_open(SERVER)",
    "outlive its parent": "call(libc.prctl, 1, 0, 0, 0, 0)",
    "be looked into again": "call(libc.prctl, 4, 1, 0, 0, 0)",
    "send signals by a descriptor": "fcntl.fcntl(0, fcntl.F_SETOWN, SERVER)",
    "read its memory by a call": "call(libc.process_vm_readv, SERVER, None, 0, None, 0, 0)",
    "trace the server": "call(libc.ptrace, 0x4206, SERVER, None, None)",
    "slow the server down": "os.setpriority(os.PRIO_PROCESS, SERVER, 0)",
    "change its limits": "call(libc.setrlimit, 1, (ctypes.c_ulong * 2)(1, 1))",
    "limit the server": "resource.prlimit(SERVER, 4, resource.prlimit(SERVER, 4))",
    "share memory by number": "call(libc.shmget, 0, 4096, 0o1600)",
}
_PRELUDE = """
import ctypes, fcntl, os, resource, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
try:
    {attempt}
    said = None
except OSError as error:
    said = error.errno
"""


@dataclass
class Scene:
    """What there is to attack."""

    values: dict[str, str | int]

    def code_of(self, attempt: str) -> str:
        """Return what tries it, and says None when it could, or the number of the error."""
        names = "".join(f"{name} = {value!r}\n" for name, value in self.values.items())
        return names + _PRELUDE.replace("{attempt}", attempt)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Set up a database, a neighbour and listeners."""
    store = tmp_path / "desk"
    store.mkdir(exist_ok=True)
    values: dict[str, str | int] = {
        "SECRET": str(tmp_path / "data" / "agentsight.db"),
        "BESIDE": str(store / "other"),
        "SOURCE": str(store / "code.pdf"),
        "UNIX": str(tmp_path / "unix"),
        "UNIQUE": f"agentsight-{os.getpid()}-{tmp_path.name}",
        "SERVER": os.getpid(),
    }
    for name in ("SECRET", "BESIDE", "SOURCE"):
        path = Path(str(values[name]))
        path.parent.mkdir(exist_ok=True)
        path.write_text("keys and rows")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        unix.bind(str(values["UNIX"]))
        abstract.bind("\0" + str(values["UNIQUE"]))
        unix.listen()
        abstract.listen()
        yield Scene({**values, "PORT": tcp.getsockname()[1]})
    Path("/tmp", str(values["UNIQUE"])).unlink(missing_ok=True)


def run_outside(code: str) -> str:
    """Run it in a process like any other of this user."""
    command = [sys.executable, "-c", code + "\nprint(0 if said is None else said)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("what", [*ON_FILES, *ON_NETWORKS, *ON_PROCESSES])
async def test_code_in_a_parser_cannot(what: str, taken: Takeover, scene: Scene) -> None:
    """It can, as any process of this user, everywhere but in a worker."""
    code = scene.code_of((ON_FILES | ON_NETWORKS | ON_PROCESSES)[what])
    assert await taken.run(code) in REFUSED
    if what in ("signal everybody", "trace the server"):
        return  # not done here for the comparison's sake
    outside = await asyncio.to_thread(run_outside, code)
    if outside in map(str, REFUSED) and os.geteuid():
        pytest.skip("only root could do so anyway")
    assert outside == "0"


NEEDED_BY_NOBODY = [
    "mount", "umount2", "pivot_root", "chroot", "setns", "unshare", "bpf", "perf_event_open",
    "userfaultfd", "io_uring_setup", "io_uring_enter", "add_key", "request_key", "keyctl",
    "init_module", "finit_module", "kexec_load", "open_by_handle_at", "process_vm_writev", "ptrace",
    "execveat", "vfork", "socket", "personality", "setuid", "reboot", "seccomp",
]  # fmt: skip


async def test_calls_that_no_reader_needs_are_refused(taken: Takeover) -> None:
    """Each is answered before the kernel looks at what it was asked."""
    column = 0 if os.uname().machine == "x86_64" else 1
    numbers = syscalls.numbers(syscalls.REFUSED, column)
    chosen = {name: numbers[name] for name in NEEDED_BY_NOBODY if name in numbers}
    newer = {"cachestat": 451, "a call of tomorrow": 999, "clone3": 435}
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
said = {{}}
for name, number in {chosen | newer!r}.items():
    found = libc.syscall(number, 0, 0, 0, 0, 0, 0)
    said[name] = ctypes.get_errno() if found < 0 else 0
"""
    said = await taken.run(code)
    assert said == dict.fromkeys(chosen, errno.EPERM) | dict.fromkeys(newer, errno.ENOSYS)


async def test_threads_and_signals_to_itself_go_on_working(taken: Takeover) -> None:
    """Decoders have threads; a library that gives up does so by a signal to itself."""
    code = """
import os, signal, threading
said = []
thread = threading.Thread(target=lambda: said.append(1))
thread.start()
thread.join()
signal.signal(signal.SIGUSR1, lambda *_: said.append(2))
signal.raise_signal(signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR1)
"""
    assert await taken.run(code) == [1, 2, 2]


async def test_a_worker_has_its_answer_and_nothing_else_open(taken: Takeover) -> None:
    """No pipe of the process that made it, and no file."""
    code = """
import os, stat
said = {}
for number in range(64):
    try:
        said[number] = stat.S_ISFIFO(os.fstat(number).st_mode)
    except OSError:
        pass
said = list(said.values())
"""
    # 0, 1 and 2 are /dev/null; then the pipe, and the file that is being read.
    assert sorted(await taken.run(code)) == [False, False, False, False, True]


async def test_only_the_output_can_be_written(taken: Takeover, tmp_path: Path) -> None:
    """Neither the folder around it nor its name; what is written stays."""
    out = tmp_path / "scratch" / "made"
    out.parent.mkdir()
    code = f"""
import os
out = {str(out)!r}
for step in (
    lambda: open(out + ".more", "w"),
    lambda: os.unlink(out),
    lambda: os.rename(out, out + ".x"),
    lambda: os.listdir(os.path.dirname(out)),
    lambda: os.symlink("/etc/passwd", out + ".link"),
):
    try:
        step()
        raise SystemExit("it could")
    except PermissionError:
        pass
with open(out, "w") as file:
    file.write("written")
"""
    await taken.run_with_output(code, out)
    assert out.read_text() == "written"
    assert os.listdir(out.parent) == ["made"]


async def test_root_is_no_more_than_anybody(taken: Takeover) -> None:
    """What is kept is reading files of others, among those that it may read at all."""
    code = """
import ctypes
head, held = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).capget(head, held)
said = list(held)
"""
    assert await taken.run(code) == ([2, 2, 0, 0, 0, 0] if not os.geteuid() else [0] * 6)


async def test_what_is_missing_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the first file, by name; nothing where all layers hold."""
    caplog.set_level(logging.WARNING, logger="agentsight.server")
    for missing in ([], ["Landlock", "seccomp"]):
        monkeypatch.setattr(examiner, "gaps", lambda missing=missing: missing)
        asked = Examiner(memory_bytes=1 << 30, timeout_s=30)
        for _ in range(2):
            path = FILES / "note.txt"
            await asked.examine(path, mime_type="text/plain", filename="note.txt")
        await asked.close()
    assert [record.getMessage() for record in told(caplog)] == [
        "files are parsed without Landlock and seccomp: see `doctor`"
    ]


def test_a_machine_without_layers_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other systems, and other processors, have none that we know."""
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    assert sandbox_gaps() == ["Landlock", "seccomp"]
