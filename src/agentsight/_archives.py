"""Fetch all files of a conversation as one ZIP, which the server makes while it sends it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from agentsight._flow import LocalTrouble, Meter, Operation, Request, locally
from agentsight._operations import conversation_path, error_of, named

if TYPE_CHECKING:
    from typing import BinaryIO

    from agentsight._operations import ConversationRef

Progress: TypeAlias = Callable[[int], object]

_TIMEOUT_S: Final = 45.0


class _ZipSink:
    """Where a ZIP goes: begun anew with each sending, as no two need be the same."""

    def __init__(self, stream: BinaryIO, progress: Progress | None) -> None:
        self._stream = stream
        self._progress = progress
        self.n_bytes = 0
        self.meter = Meter()

    def headers(self) -> Mapping[str, str]:
        return {"Accept-Encoding": "identity", "Accept": "application/zip"}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        if self.n_bytes:
            try:
                self._stream.seek(0)
                self._stream.truncate()
            except (OSError, ValueError) as error:
                raise LocalTrouble(
                    "the connection was cut, and what came cannot be taken back"
                ) from error
        self.n_bytes = 0

    def write(self, chunk: bytes) -> None:
        try:
            self._stream.write(chunk)
        except (OSError, ValueError) as error:
            raise LocalTrouble(f"the ZIP cannot be written: {error}") from error
        self.n_bytes += len(chunk)
        self.meter.n_bytes += len(chunk)
        if self._progress is not None:
            self._progress(self.n_bytes)


def fetch_zip_into(
    reference: ConversationRef, stream: BinaryIO, progress: Progress | None
) -> Operation[int]:
    """GET the ZIP into a stream; return its size.

    Raises:
        NotFoundException: there is no such conversation.
        OSError: it cannot be written; or it was cut, and the stream cannot go back.
    """
    sink = _ZipSink(stream, progress)
    path = f"{conversation_path(reference)}attachments/zip/"
    try:
        reply = yield Request("GET", path, sink=sink, meter=sink.meter, timeout_s=_TIMEOUT_S)
    except LocalTrouble as error:
        raise OSError(str(error)) from error
    if reply.status != 200:
        raise error_of(reply, what=named(reference))
    return sink.n_bytes


def fetch_zip(
    reference: ConversationRef, path: str | os.PathLike[str], progress: Progress | None
) -> Operation[int]:
    """GET the ZIP into a file, which appears when it is whole; return its size.

    Raises:
        NotFoundException: there is no such conversation.
        OSError: the file cannot be written; it names what was given, or its directory.
    """
    target = os.path.abspath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    # A name of its own, made anew: what is there already, a link to elsewhere too, is not written.
    part = f"{target}.{secrets.token_hex(4)}.part"
    try:
        with (yield from locally(lambda: _open_part(part))) as stream:
            n_bytes = yield from fetch_zip_into(reference, stream, progress)
        yield from locally(lambda: os.replace(part, target))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    return n_bytes


def _open_part(part: str) -> BinaryIO:
    try:
        return open(part, "xb")
    except OSError as error:  # it names a file that nobody has asked for
        raise OSError(error.errno, error.strerror, os.path.dirname(part)) from error
