"""seccomp: a process gives up, for good, the system calls that parsing a file never takes.

A list of what is refused and not of what is allowed: what FFmpeg, pdfium and their successors take
to decode a file changes with every version, and a call that is missing then would be a preview that
is missing. What is refused answers EPERM, so that a library goes on without. The filter is made
here and not by libseccomp, which would have to be installed on every machine.

Only for machines whose numbers stand in `syscalls.py`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from typing import Final

from agentsight.server.media import syscalls

_PR_GET_SECCOMP: Final = 21
_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

# linux/audit.h: AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64; and the column of `syscalls.py`.
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# linux/seccomp.h
_KILL_PROCESS: Final = 0x80000000
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_UNKNOWN: Final = 0x00050000 | errno.ENOSYS
# linux/bpf_common.h
_LOAD: Final = 0x20
_IS_EQUAL: Final = 0x15
_IS_ABOVE: Final = 0x25
_HAS_BITS: Final = 0x45
_RETURN: Final = 0x06
# struct seccomp_data: number, architecture, address, six arguments; both machines: low word first.
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

_CLONE_THREAD: Final = 0x00010000
_CLONE_NAMESPACES: Final = 0x7E020000
# linux/prctl.h: get dumpable, set and get a thread's name, name a range of memory. Not among them:
# outliving one's parent (PDEATHSIG), being looked into (DUMPABLE, PTRACER).
_PRCTL_ALLOWED: Final = (3, 15, 16, 0x53564D41)
# asm-generic/fcntl.h: SETOWN, SETSIG, SETOWN_EX send signals to others; SETLEASE, NOTIFY.
_FCNTL_REFUSED: Final = (8, 10, 15, 1024, 1026)

_ANY_PID: Final = 0x7EADBEEF
"""Stands in a prepared filter for a worker's own id; no id is so large (proc(5), pid_max)."""
_libc: Final = ctypes.CDLL(None, use_errno=True)

Instruction = tuple[int, int, int, int]
"""Code, how many to skip when it is so, when it is not, and the value."""


def is_available() -> bool:
    """Tell whether this kernel takes filters, and whether this machine's numbers are known."""
    if sys.platform != "linux" or _architecture() is None:
        return False
    if _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return False
    # Without a filter: EFAULT says that one could have been read (seccomp(2)).
    _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0)
    return ctypes.get_errno() == errno.EFAULT


def prepare() -> bytes:
    """Assemble the filter for processes that are yet to come; empty where there can be none."""
    architecture = _architecture()
    return program(architecture, _ANY_PID) if architecture and is_available() else b""


def restrict(prepared: bytes) -> None:
    """Give the calls up, for this thread and the threads that it starts.

    `PR_SET_NO_NEW_PRIVS` must be set.

    Args:
        prepared: From `prepare`; not empty.

    Raises:
        OSError: The kernel refuses: nothing is given up.
    """
    filters = prepared.replace(struct.pack("=I", _ANY_PID), struct.pack("=I", os.getpid()))
    code = ctypes.create_string_buffer(filters, len(filters))
    fprog = struct.pack("@HP", len(filters) // 8, ctypes.addressof(code))
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, fprog, 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def program(architecture: str, own_pid: int) -> bytes:
    """Assemble the filter of a process, as `struct sock_filter`s.

    Args:
        architecture: As `platform.machine` names it.
        own_pid: Signals to others are refused.
    """
    audit_number, column = _ARCHITECTURES[architecture]
    checked = syscalls.numbers(syscalls.CHECKED, column)
    refused = syscalls.numbers(syscalls.REFUSED, column).values()
    to_itself = _only(0, [own_pid])
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IS_EQUAL, 1, 0, audit_number),
        (_RETURN, 0, 0, _KILL_PROCESS),  # 32-bit calls have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IS_ABOVE, 0, 1, syscalls.NEWEST),  # the calls of x32, too: they have bit 30
        (_RETURN, 0, 0, _UNKNOWN),
    ]
    for name, answer in (
        ("clone3", [(_RETURN, 0, 0, _UNKNOWN)]),  # its flags are out of sight; libraries use clone
        ("clone", _THREADS_ONLY),
        ("prctl", _only(0, _PRCTL_ALLOWED)),
        ("fcntl", _but(1, _FCNTL_REFUSED)),
        ("prlimit64", _NOTHING_NEW),
        ("kill", to_itself),
        ("tkill", to_itself),
        ("tgkill", to_itself),
    ):
        steps += [(_IS_EQUAL, 0, len(answer), checked[name]), *answer]
    steps += _choose(sorted(refused), _REFUSE, _ALLOW)
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _argument(index: int, *, high: bool = False) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index + 4 * high)


def _choose(values: Iterable[int], chosen: int, other: int) -> list[Instruction]:
    """Return `chosen` for what was loaded when it is one of the values."""
    listed = list(values)
    jumps = [(_IS_EQUAL, len(listed) - at, 0, value) for at, value in enumerate(listed)]
    return [*jumps, (_RETURN, 0, 0, other), (_RETURN, 0, 0, chosen)]


def _only(index: int, values: Iterable[int]) -> list[Instruction]:
    return [_argument(index), *_choose(values, _ALLOW, _REFUSE)]


def _but(index: int, values: Iterable[int]) -> list[Instruction]:
    return [_argument(index), *_choose(values, _REFUSE, _ALLOW)]


_THREADS_ONLY: Final = (
    _argument(0),
    (_HAS_BITS, 1, 0, _CLONE_NAMESPACES),
    (_HAS_BITS, 1, 0, _CLONE_THREAD),
    (_RETURN, 0, 0, _REFUSE),
    (_RETURN, 0, 0, _ALLOW),
)
_NOTHING_NEW: Final = (
    _argument(2),
    (_IS_EQUAL, 0, 2, 0),
    _argument(2, high=True),
    (_IS_EQUAL, 1, 0, 0),
    (_RETURN, 0, 0, _REFUSE),
    (_RETURN, 0, 0, _ALLOW),
)
"""Limits may be read, for which the pointer to new ones is null."""


def _architecture() -> str | None:
    machine = platform.machine()
    # A 32-bit Python on such a machine speaks the other set of calls.
    return machine if machine in _ARCHITECTURES and sys.maxsize > 2**32 else None
