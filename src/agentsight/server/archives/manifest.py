"""The list inside a ZIP: the one call's answer, with what became of each file.

It is written last, when that is known, and kept compressed until then: of ten thousand files it has
ten megabytes, of which two are left.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import msgspec

from agentsight.server.attachments.refusals import Withheld
from agentsight.server.attachments.shapes import AttachmentShape

_STEP_BYTES: Final = 64 * 1024
_ENCODER: Final = msgspec.json.Encoder()


class PackedFileShape(AttachmentShape, kw_only=True):
    """One file: where it lies in the ZIP, or why it does not.

    `missing`: its bytes are no longer in the store. `withheld`: they are not handed out.
    """

    path: str | None
    missing: bool
    withheld: Withheld | None


class _Head(msgspec.Struct):
    conversation_id: str
    conversation: int
    uid: str
    packed_at: datetime
    total_attachments: int
    missing_attachments: int
    withheld_attachments: int


class _MessageHead(msgspec.Struct):
    message_id: int
    sender: str
    timestamp: datetime


class Manifest:
    """Takes files in the order of their messages, and gives the JSON of all."""

    def __init__(self) -> None:
        # Fast and in steps: deflating file by file took a third of the ZIP's time.
        self._compressor = zlib.compressobj(1)
        self._fresh = bytearray()
        self._kept: list[bytes] = []
        self._message_id: int | None = None
        self._n_files = self._n_missing = self._n_withheld = 0
        self.n_bytes = 0
        """How large the files' part of the JSON is."""

    def add(self, sender: str, sent_at: datetime, file: PackedFileShape) -> None:
        """Take the next file."""
        if file.message == self._message_id:
            self._keep(b",\n")
        else:
            head = _ENCODER.encode(_MessageHead(file.message, sender, sent_at))
            between = b"" if self._message_id is None else b"\n]},"
            self._keep(between + b"\n" + head[:-1] + b',"attachments":[\n')
            self._message_id = file.message
        self._keep(_ENCODER.encode(file))
        self._n_files += 1
        self._n_missing += file.missing
        self._n_withheld += file.withheld is not None

    def _keep(self, text: bytes) -> None:
        self.n_bytes += len(text)
        self._fresh += text
        if len(self._fresh) >= _STEP_BYTES:
            self._kept.append(self._compressor.compress(self._fresh))
            self._fresh.clear()

    def chunks(
        self, *, conversation_id: str, conversation: int, uid: str, packed_at: datetime
    ) -> Iterator[bytes]:
        """Yield the JSON, once."""
        head = _Head(
            conversation_id,
            conversation,
            uid,
            packed_at,
            self._n_files,
            self._n_missing,
            self._n_withheld,
        )
        yield _ENCODER.encode(head)[:-1] + b',"messages":['
        self._keep(b"" if self._message_id is None else b"\n]}\n")
        self._kept.append(self._compressor.compress(self._fresh) + self._compressor.flush())
        decompressor = zlib.decompressobj()
        for kept in self._kept:
            rest = kept
            while rest:
                yield decompressor.decompress(rest, _STEP_BYTES)
                rest = decompressor.unconsumed_tail
        yield decompressor.flush() + b"]}\n"
