"""Limits that the examining process lays on itself, and hands down to its workers.

What Linux alone offers is left out elsewhere; the time limit, which the server keeps from outside,
holds everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Final

from agentsight.server.media.model import MAX_OUTPUT_BYTES

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_OPEN_FILES: Final = 64
_OOM_SCORE: Final = b"800"
"""Of 1000: when the machine runs out of memory, this process goes before the database does."""


def confine(*, memory_bytes: int, niceness: int, parent_pid: int) -> None:
    """Limit this process for good; end it when its parent is gone already."""
    follow(parent_pid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "wb") as file:
            file.write(_OOM_SCORE)
    _limit(resource.RLIMIT_CORE, 0)  # a core would hold what files hold
    _limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    _limit(resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES)
    _limit(resource.RLIMIT_AS, memory_bytes)
    os.nice(niceness)


def follow(parent_pid: int) -> None:
    """End this process when its parent ends, and at once if it has; forks forget (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before it was asked to tell
        os._exit(1)


def allow_cpu(seconds: float) -> None:
    """Let this process use so much more processor time; more ends it with SIGXCPU.

    Where that is ignored, with SIGKILL, a second later. Elsewhere than on Linux one process does
    all jobs, and the limit must be able to grow.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    if sys.platform == "linux":
        hard = soft + 1 if hard == resource.RLIM_INFINITY else min(soft + 1, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some; the others still hold
        resource.setrlimit(kind, (value, value))
