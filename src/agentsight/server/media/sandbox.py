"""What a worker gives up before it opens a file of a stranger: see `docs/decisions/0031`.

It is left the libraries, the one file it was asked about, and the one that it may write. None of
PyPI's libraries does it: `landlock` is a development release, `pyseccomp` is of 2021 and needs
libseccomp, `py-landlock`, `landlockpy` and `seccompy` are of this year and have few users,
`sandlock` runs commands and needs Linux 6.7. What is used here is five system calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentsight.server.media import landlock, seccomp
from agentsight.server.media.landlock import READ, WRITE, Rule

_PR_SET_DUMPABLE: Final = 4
# linux/capability.h; the numbers of both calls are from the tables that `syscalls.py` names.
_CAPABILITY_VERSION: Final = 0x20080522
_CAPGET_AND_CAPSET: Final = {"x86_64": (125, 126), "aarch64": (90, 91)}
_CAP_DAC_OVERRIDE: Final = 1 << 1
"""Kept where it is: root's server reads files whose owner is another, after a restore for one."""

# All readers were run on all of `tests/data/files` to see what they open: beside these nothing, and
# nothing below /proc. Each is there for every user of the machine.
_SYSTEM: Final = (
    # Libraries that libraries load when they need them, as libgcc when a thread ends.
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    # pdfium draws texts whose fonts are not in the document with what is here.
    "/usr/share/fonts",
    "/usr/share/X11/fonts",
    "/usr/local/share/fonts",
)
_SITES: Final = ("site-packages", "dist-packages")
_OUR_PACKAGE: Final = "agentsight"


class NotLaid(Exception):
    """The kernel offers a layer and then refuses it: no file is opened without it."""


def gaps() -> list[str]:
    """Name the layers that this machine does not offer; none where all hold."""
    found = [] if landlock.abi() else ["Landlock"]
    return found if seccomp.is_available() else [*found, "seccomp"]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The layers of this machine, made ready once for all workers: each has only to put them on."""

    landlock_version: int
    rules: list[bytes]
    seccomp_filter: bytes
    capabilities: tuple[int, bytes, bytes] | None

    @classmethod
    def prepare(cls) -> Sandbox:
        """Look at the machine, and at what is loaded: again whenever something was."""
        version = landlock.abi()
        allowed = [(path, READ) for path in [*_SYSTEM, *_library_folders()]]
        allowed.append((os.devnull, READ | WRITE))
        rules = landlock.open_rules(allowed, version) if version else []
        return cls(version, rules, seccomp.prepare(), _fewest_capabilities())

    def enter(self, *, source: str, out: str, answer_at: int) -> None:
        """Give up everything else, for good, and close all descriptors but one.

        Args:
            source: The file to read; absent or not.
            out: The file to write, if any. It is made here, empty: only what is there can be
                allowed by name, and who may make files in a folder could fill the disk with them.
            answer_at: The descriptor that stays.

        Raises:
            NotLaid: A layer that this machine offers was refused.
        """
        if sys.platform != "linux":
            return
        # Others of the same user look into it no more; its own files below /proc are root's.
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        try:
            if self.landlock_version:
                own = landlock.open_rules(_own_rules(source, out), self.landlock_version)
                landlock.restrict([*self.rules, *own], self.landlock_version)
            if self.capabilities and _libc.syscall(*self.capabilities):
                raise OSError(ctypes.get_errno(), "capset")
            os.closerange(3, answer_at)
            os.closerange(answer_at + 1, os.sysconf("SC_OPEN_MAX"))
            if self.seccomp_filter:
                seccomp.restrict(self.seccomp_filter)
        except OSError as exc:
            raise NotLaid(str(exc)) from exc

    def close(self) -> None:
        """Close what `prepare` opened, when another takes its place."""
        for rule in self.rules:
            os.close(landlock.place_of(rule))


def _own_rules(source: str, out: str) -> list[Rule]:
    if not out:
        return [(source, READ)]
    with contextlib.suppress(OSError):  # the reader will meet the same, and tell
        os.close(os.open(out, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return [(source, READ), (out, READ | WRITE)]


def _library_folders() -> list[str]:
    """Return where Python's and our own modules are, of those of other people only what is used.

    Not `sys.prefix`, nor every folder of `sys.path`: a server may keep its data below either.
    """
    paths = sysconfig.get_paths()
    sites = [entry for entry in sys.path if Path(entry).name in _SITES]
    folders = [paths["stdlib"], paths["platstdlib"], *sites, str(Path(__file__).parent)]
    for name, module in list(sys.modules.items()):
        if "." in name or name == _OUR_PACKAGE:
            continue
        for place in map(str, getattr(module, "__path__", ())):
            if not any(Path(place).is_relative_to(folder) for folder in folders):
                # Wheels keep libraries in a folder beside the package.
                folders += [place, *map(str, Path(place).parent.glob("*.libs"))]
    return folders


def _fewest_capabilities() -> tuple[int, bytes, bytes] | None:
    """Return the call that leaves a worker of root's powers the one to read files of others.

    No more than what is had is asked for, which the kernel grants everybody (capabilities(7)).
    """
    numbers = _CAPGET_AND_CAPSET.get(os.uname().machine)
    if sys.platform != "linux" or numbers is None or sys.maxsize <= 2**32:
        return None
    head = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    if _libc.syscall(numbers[0], head, held):
        return None
    kept = [word & _CAP_DAC_OVERRIDE for word in struct.unpack("=6I", held.raw)[:2]]
    return numbers[1], head, struct.pack("=6I", *kept, 0, 0, 0, 0)


_libc: Final = ctypes.CDLL(None, use_errno=True)
