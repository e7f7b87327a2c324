"""Upload one file by `POST /api/v1/uploads/` and tus 1.0, before the message that refers to it.

First the file is hashed: where the server has these bytes already, nothing is sent. A connection
that is cut is taken up again where it was cut, now or, as `Uploads` remembers it, at the next
delivery. Operations only: what reads a file is handed to the driver (`_flow.Local`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from agentsight._contract import INLINE_FILE_BYTES, MIB, UPLOADS_PATH
from agentsight._files import File, exactly
from agentsight._flow import FileUnreadable, Meter, Operation, Reply, Request, is_passing, locally
from agentsight._operations import encode, is_object, read_object
from agentsight.exceptions import ConversationNetworkException

if TYPE_CHECKING:
    from agentsight._operations import Json

Progress = Callable[[str, int, int], None]
"""Told of a file's name, how many of its bytes are sent, and how many it has."""

_TUS: Final = ("Tus-Resumable", "1.0.0")
_TRANSFER_TIMEOUT_S: Final = 120.0
"""Longest silence; after the last byte a store may have to read a gigabyte back to hash it."""
_MAX_STALLS: Final = 4
"""So often in a row a transfer may break off without one more byte having arrived; more often than
there are sizes of pieces to try."""
_MAX_CUTS: Final = 200
"""So often a transfer is taken up again in one delivery, however little each brought."""
_PIECE_BYTES: Final = (64 * MIB, 8 * MIB, MIB // 2)
"""Tried in turn behind a proxy that refuses bodies for their size (nginx's default is 1 MiB)."""
_CHANGED: Final = frozenset({"hash_mismatch", "size_mismatch"})


class Fingerprint(NamedTuple):
    """What a file's bytes are known by."""

    sha256: str
    size_bytes: int


class UploadRefused(Exception):
    """The server will not take a file, or not now; for whoever sends the file's message."""

    def __init__(self, reply: Reply, size_bytes: int | None = None) -> None:
        body = _body(reply)
        self.reply = reply
        self.code: str | None = body.get("code")
        self.reason = str(body.get("detail") or f"the server answered {reply.status}")
        if reply.status == 413 and size_bytes is not None:
            self.reason = f"{self.reason.rstrip('.')}: it has {size_bytes} bytes"
        super().__init__(self.reason)

    @property
    def is_ours(self) -> bool:
        """Whether an AgentSight server said it, not a proxy."""
        return self.code is not None


class Uploads:
    """What a tracker remembers of uploads between deliveries, by the keys of their files."""

    def __init__(self) -> None:
        self.tell: Progress | None = None
        self._begun: dict[str, tuple[Fingerprint, str]] = {}

    def begin(self, file: File, fingerprint: Fingerprint, uid: str) -> None:
        """Remember an upload, so that it can be taken up again."""
        self._begun[file.item_key] = fingerprint, uid

    def find(self, file: File, fingerprint: Fingerprint) -> str | None:
        """Return the upload begun for a file, unless the file has changed since."""
        known, uid = self._begun.get(file.item_key, (None, None))
        return uid if known == fingerprint else None

    def forget(self, item_keys: Iterable[str]) -> None:
        """Drop what is done with, or must begin anew."""
        for key in item_keys:
            self._begun.pop(key, None)


class Rest:
    """The body of a PATCH: a file's bytes from an offset on, streamed."""

    content_type = "application/offset+octet-stream"

    def __init__(self, file: File, start: int, n_bytes: int, meter: Meter) -> None:
        self._file = file
        self._start = start
        self._n_bytes = n_bytes
        self._meter = meter
        self.tell: Callable[[int], None] | None = None

    def n_bytes(self) -> int:
        """Return how many bytes `chunks` yields, or raises."""
        return self._n_bytes

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes."""
        done = self._start
        for chunk in exactly(self._file, self._n_bytes, self._start):
            yield chunk
            done += len(chunk)
            self._meter.n_bytes += len(chunk)
            if self.tell is not None:
                self.tell(done)


def upload_large(file: File, uploads: Uploads) -> Operation[str | None]:
    """Upload a file, unless it is small enough to go inline: then return `None`, else its uid.

    A file that changes while it is sent is hashed and sent once more.

    Raises:
        FileUnreadable: it cannot be read, or keeps changing.
        UploadRefused: the server refuses it, or cannot take it now.
        ConversationNetworkException: no answer, after several attempts.
    """
    for may_change in (True, False):
        fingerprint = yield from locally(lambda: _fingerprint(file, INLINE_FILE_BYTES))
        if fingerprint is None:
            return None
        try:
            return (yield from _upload(file, fingerprint, uploads))
        except FileUnreadable:
            if not may_change:
                raise
        except UploadRefused as refused:
            if refused.code not in _CHANGED:
                raise
        uploads.forget([file.item_key])
    raise FileUnreadable(file.item_key, "it changed while it was sent, twice")


def _fingerprint(file: File, min_bytes: int) -> Fingerprint | None:
    """Hash a file of more than `min_bytes`, up to the size it has now: it may be growing."""
    try:
        size = file.source.size()
    except (OSError, ValueError) as error:
        raise FileUnreadable(file.item_key, str(error)) from error
    if size <= min_bytes:
        return None
    hasher = hashlib.sha256()
    for chunk in exactly(file, size):
        hasher.update(chunk)
    return Fingerprint(hasher.hexdigest(), size)


def _upload(file: File, fingerprint: Fingerprint, uploads: Uploads) -> Operation[str]:
    """Bring an upload to its end, wherever it stands."""
    for is_last in (False, True):
        uid = uploads.find(file, fingerprint)
        offset = None if uid is None else (yield from _ask_offset(uid))
        if uid is None or offset is None:
            uid, offset = yield from _create(file, fingerprint)
            uploads.begin(file, fingerprint, uid)
        try:
            yield from _Transfer(file, fingerprint, uid, uploads).run(offset)
            return uid
        except UploadRefused as refused:
            uploads.forget([file.item_key])
            if is_last or refused.reply.status not in (404, 410):
                raise
    raise AssertionError("the loop returns or raises")


def _create(file: File, fingerprint: Fingerprint) -> Operation[tuple[str, int]]:
    """Announce a file; return the upload's uid and the offset to send from."""
    said: Json = {"filename": file.filename, **fingerprint._asdict()}
    if file.mime_type is not None:
        said["mime_type"] = file.mime_type
    headers = (("Content-Type", "application/json"),)
    reply = yield Request("POST", UPLOADS_PATH, content=encode(said), headers=headers)
    if reply.status not in (200, 201):
        raise UploadRefused(reply, fingerprint.size_bytes)
    answer = read_object(reply, f"POST {UPLOADS_PATH}")
    uid, offset = answer.get("uid"), answer.get("offset")
    if not isinstance(uid, str) or not isinstance(offset, int):
        raise ConversationNetworkException("The server's answer about an upload is not understood")
    return uid, fingerprint.size_bytes if answer.get("state") == "stored" else offset


def _ask_offset(uid: str) -> Operation[int | None]:
    """Return how many bytes the server has of an upload, `None` where it knows of none."""
    reply = yield Request("HEAD", f"{UPLOADS_PATH}{uid}/", headers=(_TUS,))
    if reply.status in (404, 410):
        return None
    if reply.status not in (200, 204):
        raise UploadRefused(reply)
    return _offset_of(reply)


def _offset_of(reply: Reply) -> int:
    text = reply.headers.get("upload-offset", "")
    if not (text.isascii() and text.isdigit()):
        raise ConversationNetworkException("The server does not say where an upload stands")
    return int(text[:18])


class _Transfer:
    """Sends an upload's bytes until the server has them all."""

    def __init__(self, file: File, fingerprint: Fingerprint, uid: str, uploads: Uploads) -> None:
        self._file = file
        self._size = fingerprint.size_bytes
        self._path = f"{UPLOADS_PATH}{uid}/"
        self._uid = uid
        self._meter = Meter()
        self._pieces = list(_PIECE_BYTES)
        self._piece_bytes = self._size
        self._tell = uploads.tell

    def run(self, offset: int) -> Operation[None]:
        self._say(offset)
        n_stalls = 0
        for _ in range(_MAX_CUTS):
            if offset >= self._size:
                return
            before = offset
            error, offset = yield from self._send(offset)
            n_stalls = 0 if offset > before else n_stalls + 1
            if error is not None and n_stalls >= _MAX_STALLS:
                raise error
        raise ConversationNetworkException(f"{self._file.filename}: cut off {_MAX_CUTS} times")

    def _send(self, offset: int) -> Operation[tuple[Exception | None, int]]:
        """Send what fits into one request; return what went wrong, and where the upload stands."""
        n_bytes = min(self._size - offset, self._piece_bytes)
        body = Rest(self._file, offset, n_bytes, self._meter)
        body.tell = self._say
        error: Exception
        try:
            reply = yield Request(
                "PATCH",
                self._path,
                content=body,
                headers=(_TUS, ("Upload-Offset", str(offset))),
                is_repeatable=False,  # the offset would be another
                timeout_s=_TRANSFER_TIMEOUT_S,
                meter=self._meter,
            )
        except ConversationNetworkException as network_error:
            error = network_error
        else:
            if reply.status in (200, 204):
                return None, _offset_of(reply)
            error = UploadRefused(reply)
            if reply.status == 413 and not error.is_ours and self._pieces:
                self._piece_bytes = self._pieces.pop(0)
            elif reply.status != 409 and not is_passing(reply):
                raise error
        stands = yield from _ask_offset(self._uid)
        if stands is None:
            raise error if isinstance(error, UploadRefused) else _gone()
        return error, stands

    def _say(self, n_bytes: int) -> None:
        if self._tell is not None:
            self._tell(self._file.filename, n_bytes, self._size)


def _gone() -> UploadRefused:
    return UploadRefused(Reply(410, {}, b'{"code": "upload_expired", "detail": "it is gone"}'))


def _body(reply: Reply) -> Json:
    try:
        body: object = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return body if is_object(body) else {}
