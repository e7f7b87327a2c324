"""Landlock: a process gives up, for good, all files but those that it names.

By the three system calls themselves, through `ctypes`; the numbers are those of Linux's
`include/uapi/linux/landlock.h` and `userspace-api/landlock` of its manual. What an older kernel
does not know is left out. Landlock guards opening, making and removing, not looking: names, sizes
and times may still be asked for, and modes changed, which `seccomp.py` refuses.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from typing import Final

# The same on every architecture (Linux 5.13, `asm-generic/unistd.h`).
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION_ONLY: Final = 1
_PATH_BENEATH: Final = 1

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BY_ABI: Final = {1: (1 << 13) - 1, 2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
"""Rights on files, by the version that brought them; 1: also making and removing of any kind."""
_NET_FROM_ABI: Final = 4
_BIND_AND_CONNECT_TCP: Final = 0b11
_SCOPES_FROM_ABI: Final = 6
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11

Rule = tuple[str, int]
READ: Final = _READ_FILE | _READ_DIR
WRITE: Final = _WRITE_FILE | _TRUNCATE


def abi() -> int:
    """Return which version of Landlock this kernel has; 0: none, or it may not be used here."""
    if sys.platform != "linux":
        return 0
    return max(0, _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_ONLY))


def open_rules(rules: Iterable[Rule], version: int) -> list[bytes]:
    """Open paths for `restrict`, each with the rights on it and below; absent ones are passed over.

    The descriptors stand in what is returned and stay open: a process that forks opens once what
    all its workers may use, and each worker closes them when it is restricted.
    """
    handled = _handled(version)
    found: list[bytes] = []
    for path, rights in rules:
        try:
            # Without opening it: a named pipe would be waited for.
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        # Others are refused for what is no folder.
        possible = rights if stat.S_ISDIR(os.fstat(place).st_mode) else rights & _FILE_RIGHTS
        found.append(struct.pack("=Qi", possible & handled, place))
    return found


def place_of(rule: bytes) -> int:
    """Return the descriptor that stands in a rule."""
    return int(struct.unpack("=Qi", rule)[1])


def restrict(rules: Iterable[bytes], version: int) -> None:
    """Leave this thread, and whatever it starts, these files and folders and nothing else.

    TCP, sockets and signals to processes outside are given up too, where the kernel can.
    `PR_SET_NO_NEW_PRIVS` must be set.

    Args:
        rules: From `open_rules`.
        version: What `abi` said; at least 1.

    Raises:
        OSError: The kernel refuses: nothing is given up.
    """
    net = _BIND_AND_CONNECT_TCP if version >= _NET_FROM_ABI else 0
    scopes = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPES_FROM_ABI else 0
    # An older kernel takes a longer structure, where what it does not know is zero.
    attributes = struct.pack("=QQQ", _handled(version), net, scopes)
    ruleset = _call(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    for rule in rules:
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _handled(version: int) -> int:
    return sum(rights for since, rights in _BY_ABI.items() if version >= since)


def _call(number: int, *arguments: object) -> int:
    found = _libc.syscall(number, *arguments)
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return found


_libc: Final = ctypes.CDLL(None, use_errno=True)
