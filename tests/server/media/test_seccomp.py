"""The filter of system calls, run by hand for both machines: what it answers to what."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from agentsight.server.media import seccomp, syscalls

PID = 4242
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
ALLOWED, REFUSED, UNKNOWN, KILLED = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
HEADERS = {
    0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    1: Path("/usr/include/asm-generic/unistd.h"),
}


def answer(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """Run the filter as the kernel does, which checks that it ends (bpf(2), classic)."""
    program = seccomp.program(machine, PID)
    audit = ARCHITECTURES[machine][0] if audit is None else audit
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, audit, 0, *padded)
    at = loaded = 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        if code == 0x20:
            loaded = struct.unpack_from("=I", data, value)[0]
        elif code == 0x06:
            return value
        else:
            is_so = {0x15: loaded == value, 0x25: loaded > value, 0x45: bool(loaded & value)}[code]
            at += yes if is_so else no


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request: pytest.FixtureRequest) -> str:
    """Give each machine whose numbers are known."""
    return str(request.param)


def number_of(machine: str, name: str) -> int:
    """Look a number up."""
    column = ARCHITECTURES[machine][1]
    numbers = syscalls.numbers(syscalls.CHECKED + syscalls.REFUSED, column)
    return numbers[name]


def test_every_number_is_answered(machine: str) -> None:
    """Those of the list with EPERM, those that are newer with ENOSYS, all others go on."""
    column = ARCHITECTURES[machine][1]
    refused = set(syscalls.numbers(syscalls.REFUSED, column).values())
    checked = set(syscalls.numbers(syscalls.CHECKED, column).values())
    assert len(refused) > 100
    assert not refused & checked
    for number in set(range(600)) - checked:
        wanted = REFUSED if number in refused else ALLOWED
        assert answer(machine, number) == (UNKNOWN if number > syscalls.NEWEST else wanted)


def test_the_calls_of_another_architecture_end_the_process(machine: str) -> None:
    """Their numbers mean something else: 32-bit calls, and those of the other machine."""
    for audit in (0x40000003, 0x40000028, 0):
        assert answer(machine, 1, audit=audit) == KILLED
    assert answer(machine, 0x40000000 | 59) == UNKNOWN  # x32


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("clone", (0x003D0F00,), ALLOWED),  # pthread_create of glibc
        ("clone", (0x007D0F00,), ALLOWED),  # of musl
        ("clone", (0x01200011,), REFUSED),  # fork
        ("clone", (0x00004111,), REFUSED),  # vfork
        ("clone", (0x003D0F00 | 0x40000000,), REFUSED),  # a thread in a network of its own
        ("clone3", (), UNKNOWN),
        ("kill", (PID, 9), ALLOWED),
        ("kill", (1, 9), REFUSED),
        ("kill", (0xFFFFFFFF, 9), REFUSED),
        ("tgkill", (PID, PID + 1, 6), ALLOWED),
        ("tgkill", (PID - 1, PID - 1, 6), REFUSED),
        ("tkill", (PID, 6), ALLOWED),
        ("prctl", (15,), ALLOWED),
        ("prctl", (1, 0), REFUSED),
        ("prctl", (4, 1), REFUSED),
        ("prctl", (0x59616D61, 0xFFFFFFFF), REFUSED),
        ("fcntl", (3, 3), ALLOWED),
        ("fcntl", (3, 8, 1), REFUSED),
        ("prlimit64", (0, 7, 0, 1 << 40), ALLOWED),
        ("prlimit64", (0, 7, 1 << 12, 0), REFUSED),
        ("prlimit64", (0, 7, 1 << 40, 0), REFUSED),
    ],
)
def test_what_is_allowed_for_some_arguments(
    machine: str, name: str, arguments: tuple[int, ...], wanted: int
) -> None:
    """Threads yes, processes no; itself yes, others no; reading limits yes, setting them no."""
    assert answer(machine, number_of(machine, name), *arguments) == wanted


@pytest.mark.parametrize("column", [0, 1])
def test_the_numbers_are_the_kernels(column: int) -> None:
    """By its headers, where they are installed."""
    if not HEADERS[column].exists():
        pytest.skip("the headers of Linux are not installed")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[column].read_text())
    known = {name: int(number) for name, number in defined}
    found = syscalls.numbers(syscalls.CHECKED + syscalls.REFUSED, column)
    assert found == {name: known[name] for name in found}
