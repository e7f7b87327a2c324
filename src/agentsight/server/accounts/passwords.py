"""Hash and check passwords with argon2id, in threads, two at a time.

One hash takes 64 MiB and tens of milliseconds (RFC 9106, second recommended option, the library's
default): on the event loop it would stop everything else, and without a limit a few requests would
take all memory.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from argon2 import PasswordHasher

T = TypeVar("T")
_SLOTS = threading.BoundedSemaphore(2)


@functools.cache
def _hasher() -> PasswordHasher:
    # Imported on first use: most processes never see a password.
    from argon2 import PasswordHasher

    return PasswordHasher()


async def hash_password(password: str) -> str:
    """Return the argon2id text that is kept in place of the password."""
    return await _in_thread(lambda: _hasher().hash(password))


async def verify_password(password_hash: str | None, password: str) -> bool:
    """Say whether the password fits; no hash at all takes as long and is False."""
    return await _in_thread(lambda: _verify(password_hash, password))


def _verify(password_hash: str | None, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        fits = _hasher().verify(password_hash or _decoy(), password)
    except (VerificationError, InvalidHashError):
        return False
    return fits and password_hash is not None


@functools.cache
def _decoy() -> str:
    """Return a hash that fits nothing anyone types, so that the unknown takes as long."""
    return _hasher().hash("no account has this password")


async def _in_thread(work: Callable[[], T]) -> T:
    def limited() -> T:
        with _SLOTS:
            return work()

    return await asyncio.to_thread(limited)
