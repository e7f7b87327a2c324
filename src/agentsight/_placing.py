"""Which file of a conversation goes where in a directory, and which is there already."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from agentsight._names import bases_of, fold_name, free_name, safe_name
from agentsight._operations import Json
from agentsight.exceptions import ConversationNetworkException
from agentsight.types import DownloadedFile

_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class Row(NamedTuple):
    """One file as the server lists it."""

    uid: str
    filename: str
    size_bytes: int
    sha256: str
    message_id: int

    @classmethod
    def read(cls, row: Json) -> Row:
        """Read a row, believing nothing of it.

        Raises:
            ConversationNetworkException: it is not a row of our server.
        """
        uid, sha256, size = row.get("uid"), row.get("sha256"), row.get("size_bytes")
        is_whole = isinstance(uid, str) and isinstance(sha256, str) and isinstance(size, int)
        if not is_whole or not _UID.fullmatch(str(uid)) or not _SHA256.fullmatch(str(sha256)):
            raise ConversationNetworkException(
                "The server lists a file without uid, sha256 or size: is it an AgentSight server?"
            )
        name, message = row.get("filename"), row.get("message")
        message_id = message if isinstance(message, int) else 0
        return cls(str(uid), str(name), cast("int", size), str(sha256), message_id)


class Job(NamedTuple):
    """One file and where it goes."""

    row: Row
    path: Path
    is_present: bool

    @property
    def part(self) -> Path:
        """Where it is written before it is whole."""
        return self.path.with_name(f".agentsight-{self.row.uid}.part")

    def result(self, status: Any, error: str | None = None) -> DownloadedFile:
        """Say what became of it."""
        row = self.row
        return DownloadedFile(
            self.path, status, error, row.filename, row.uid, row.message_id, row.size_bytes,
            row.sha256,
        )  # fmt: skip


def plan(rows: Sequence[Row], directory: Path, *, overwrite: bool) -> list[Job]:
    """Give each row a name in the directory, and find what is there already, by its SHA-256.

    A name is the row's own, made safe; where it is taken, `name (2).ext` and so on. What is there
    and is none of these files is left alone, unless `overwrite`.

    Raises:
        OSError: the directory cannot be made or read.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        reason = os.strerror(errno.ENOTDIR)
        raise NotADirectoryError(errno.ENOTDIR, reason, str(directory)) from None
    names = os.listdir(directory)
    path_by_row = {} if overwrite else _find_present(rows, directory, names)
    taken = {fold_name(path.name) for path in path_by_row.values()}
    if not overwrite:
        taken |= {fold_name(name) for name in names}
    next_number: dict[str, int] = defaultdict(lambda: 1)
    jobs: list[Job] = []
    for index, row in enumerate(rows):
        path = path_by_row.get(index)
        if path is None:
            base = safe_name(row.filename)
            name, number = free_name(base, taken, next_number[fold_name(base)])
            next_number[fold_name(base)] = number + 1
            taken.add(fold_name(name))
            path = directory / name
        is_present = index in path_by_row or (overwrite and _is_same(path, row))
        jobs.append(Job(row, path, is_present))
        if is_present:
            _remove(jobs[-1].part)
    return jobs


def _find_present(rows: Sequence[Row], directory: Path, names: Sequence[str]) -> dict[int, Path]:
    """Return by the rows' places which are there under a name that they may have been given."""
    wanted: dict[tuple[int, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        wanted[row.size_bytes, fold_name(safe_name(row.filename))].append(index)
    found: dict[int, Path] = {}
    for name in sorted(names):
        path = directory / name
        size = _size_of(path)
        indexes = [i for base in bases_of(name) for i in wanted.get((size, base), ())]
        if not indexes:
            continue
        sha256 = _hash_of(path)
        for index in sorted(indexes):
            if index not in found and rows[index].sha256 == sha256:
                found[index] = path
                break
    return found


def _is_same(path: Path, row: Row) -> bool:
    return _size_of(path) == row.size_bytes and _hash_of(path) == row.sha256


def _size_of(path: Path) -> int:
    """Return the size of a regular file, -1 for anything else."""
    import stat

    try:
        status = path.lstat()
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _hash_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
