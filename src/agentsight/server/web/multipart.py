"""Read multipart/form-data as it arrives: parts in order, files as chunks, nothing held whole.

    >>> async for part in MultipartReader(chunks, content_type, limits=limits):
    ...     if part.filename is None:
    ...         fields[part.name] = await part.text()
    ...     else:
    ...         async for chunk in part:
    ...             await writer.write(chunk)

The parsing is `python-multipart`'s (its parser and callbacks; its form classes are not used).
Whatever arrives, a caller sees parts or a `Problem`: 400 `malformed_multipart`, or 413 `too_large`
at the byte that passes a limit.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from agentsight._contract import (
    MAX_FILE_BYTES,
    MAX_FILES_PER_REQUEST,
    MAX_JSON_BODY_BYTES,
    MAX_TEXT_BYTES,
    MIB,
)
from agentsight.server.problems import Problem, too_large

# It warns at every malformed body, which is the sender's fault and answered with 400: anyone could
# fill our log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

_MAX_HEADER_BYTES: Final = 16 * 1024
"""One header line of a part. A name of 300 characters is 3.6 KB when each is percent-encoded."""
_MAX_HEADERS: Final = 16
_MAX_NAME_IN_ERROR: Final = 100
# RFC 2046, 5.1.1: 1 to 70 characters. Some clients use more.
_BOUNDARY: Final = re.compile(r"[\x20-\x7e]{0,199}[\x21-\x7e]")
# A parameter: a token, `=`, and a quoted string or everything up to the next semicolon.
_PARAMETER: Final = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)', re.DOTALL)
# Browsers, curl and urllib3 2 percent-encode these three in names and nothing else (WHATWG HTML,
# "multipart form data"); older senders put a backslash before quotes and backslashes.
_ESCAPED: Final = re.compile(r'\\(["\\])|%(22|0[DdAa])')
_IDENTITY_ENCODINGS: Final = frozenset({"", "binary", "7bit", "8bit"})

Event = bytes | memoryview | None
"""A piece of the current part, or None at its end."""


@dataclass(frozen=True, slots=True)
class MultipartLimits:
    """What one body may hold. Sizes in bytes; a field is a part without a file name."""

    max_files: int = MAX_FILES_PER_REQUEST
    max_file_bytes: int = MAX_FILE_BYTES
    max_fields: int = 1000
    max_field_bytes: int = MAX_TEXT_BYTES
    max_total_bytes: int = MAX_FILES_PER_REQUEST * MAX_FILE_BYTES + MAX_JSON_BODY_BYTES + MIB


def malformed(detail: str) -> Problem:
    """Make the answer for a body that is not whole or not multipart."""
    return Problem(400, "malformed_multipart", f"The multipart body {detail}.")


def parse_boundary(content_type: str) -> bytes:
    """Read the boundary out of a request's Content-Type.

    Raises:
        Problem: 400 when there is none, or none that could stand in a header.
    """
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise malformed("has another Content-Type than multipart/form-data")
    boundary = _parameters(content_type).get("boundary", "")
    if _BOUNDARY.fullmatch(boundary) is None:
        raise malformed("has no usable boundary in its Content-Type")
    return boundary.encode("ascii")


class Part:
    """One part of a body: read it, iterate over it, or leave it; the next part skips the rest.

    Attributes:
        name: The field's name.
        filename: The file's name as the sender gave it, not cleaned; None for a plain field.
        content_type: The part's own Content-Type, without control characters; None without one.
    """

    __slots__ = ("_reader", "content_type", "filename", "is_finished", "name", "size_bytes")

    def __init__(
        self, reader: MultipartReader, name: str, filename: str | None, content_type: str | None
    ) -> None:
        self._reader = reader
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.size_bytes = 0
        self.is_finished = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | memoryview:
        """Return the next piece; never changed afterwards, so it may be kept without copying."""
        chunk = await self._reader.next_chunk(self)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def read(self, *, max_bytes: int | None = None) -> bytes:
        """Return the whole part.

        Args:
            max_bytes: The limit for this one; None means `max_field_bytes`.

        Raises:
            Problem: 413 when it is larger.
        """
        limit = self._reader.limits.max_field_bytes if max_bytes is None else max_bytes
        pieces: list[bytes | memoryview] = []
        async for piece in self:
            if self.size_bytes > limit:
                raise too_large(f"The field {_shown(self.name)} is larger than {limit} bytes.")
            pieces.append(piece)
        return b"".join(pieces)

    async def text(self, *, max_bytes: int | None = None) -> str:
        """Return the whole part as text; bytes that are not UTF-8 become U+FFFD."""
        return (await self.read(max_bytes=max_bytes)).decode("utf-8", "replace")


class MultipartReader:
    """An async iterator over the parts of one body.

    Args:
        chunks: The body. Its own errors pass through; its end before the last boundary is an error.
        content_type: The request's Content-Type.
        limits: What the body may hold.
        content_length: The request's Content-Length, if it has one: a body that announces too much
            is refused before its first byte.

    Raises:
        Problem: 400 without a boundary, 413 when `content_length` passes the limit.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        content_type: str,
        *,
        limits: MultipartLimits,
        content_length: int | None = None,
    ) -> None:
        self.limits = limits
        self._chunks = chunks
        self._n_bytes = 0
        self._n_files = 0
        self._n_fields = 0
        self._events: deque[Part | Event] = deque()
        self._current: Part | None = None
        self._is_begun = False
        self._is_complete = False
        self._headers: dict[str, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._parser = MultipartParser(
            parse_boundary(content_type),
            {
                "on_part_begin": self._on_part_begin,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_end": self._on_end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )
        self._count(content_length or 0)
        self._n_bytes = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Part:
        while self._current is not None and not self._current.is_finished:
            await self.next_chunk(self._current)
        while not self._events:
            if not await self._fill():
                raise StopAsyncIteration
        part = self._events.popleft()
        assert isinstance(part, Part), "the pieces of a part were left behind"
        self._current = part
        return part

    async def next_chunk(self, part: Part) -> bytes | memoryview | None:
        """Return the next piece of the current part, None at its end. For `Part`."""
        if part.is_finished or part is not self._current:
            return None
        while not self._events:
            if not await self._fill():
                raise malformed("ends inside a part")
        event = self._events.popleft()
        assert not isinstance(event, Part), "a part began inside another"
        if event is None:
            part.is_finished = True
            return None
        part.size_bytes += len(event)
        limit = self.limits.max_file_bytes
        if part.filename is not None and part.size_bytes > limit:
            name = _shown(part.filename)
            raise too_large(f"The file {name} is larger than max_file_bytes ({limit} bytes).")
        return event

    async def _fill(self) -> bool:
        """Parse the next chunk of the body; False at its proper end."""
        async for chunk in self._chunks:
            self._count(len(chunk))
            if not self._is_begun:
                # Line ends may come before the first boundary, and nothing else. The parser, left
                # to itself, skips what follows them too, but only as far as a chunk goes.
                chunk = chunk.lstrip(b"\r\n")
                self._is_begun = bool(chunk)
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise malformed("is not well formed") from error
            return True
        if not self._is_complete:
            raise malformed("ends before its last boundary")
        return False

    def _count(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        limit = self.limits.max_total_bytes
        if self._n_bytes > limit:
            raise too_large(f"The body is larger than {limit} bytes (see max_request_bytes).")

    # --- called by the parser ---------------------------------------------------------------------

    def _on_part_begin(self) -> None:
        self._headers.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        self._headers.setdefault(name, bytes(self._header_value))
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        disposition = _decode(self._headers.get("content-disposition", b""))
        parameters = _parameters(disposition)
        name = parameters.get("name")
        if disposition.partition(";")[0].strip().lower() != "form-data" or name is None:
            raise malformed("has a part without Content-Disposition: form-data and a name")
        encoding = _decode(self._headers.get("content-transfer-encoding", b"")).strip().lower()
        if encoding not in _IDENTITY_ENCODINGS:
            raise malformed("has a part with a Content-Transfer-Encoding, which is not read")
        filename = parameters.get("filename")
        self._count_part(is_file=filename is not None)
        self._events.append(Part(self, name, filename, self._content_type()))

    def _content_type(self) -> str | None:
        text = _decode(self._headers.get("content-type", b""))
        return "".join(c for c in text if c.isprintable()).strip()[:255] or None

    def _count_part(self, *, is_file: bool) -> None:
        if is_file:
            self._n_files += 1
        else:
            self._n_fields += 1
        if self._n_files > self.limits.max_files:
            raise too_large(f"The body holds more than {self.limits.max_files} files.")
        if self._n_fields > self.limits.max_fields:
            raise too_large(f"The body holds more than {self.limits.max_fields} fields.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        is_all = start == 0 and end == len(data)
        self._events.append(data if is_all else memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        self._events.append(None)

    def _on_end(self) -> None:
        self._is_complete = True


def _decode(value: bytes) -> str:
    """Decode a header: UTF-8, as clients send it, or the Latin-1 of old; never fails."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _shown(name: str) -> str:
    """Quote a sender's name for an error message, in printable characters and not too many."""
    return ascii(name[:_MAX_NAME_IN_ERROR])


def _parameters(header: str) -> dict[str, str]:
    """Read a header's parameters; an extended one (`name*=`, RFC 5987) goes before a plain one."""
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    for found in _PARAMETER.finditer(header):
        key, value = found[1].lower(), found[2]
        if key.endswith("*"):
            if (text := _extended(value.strip().strip('"'))) is not None:
                extended.setdefault(key[:-1], text)
        elif value.startswith('"'):
            value = value.removeprefix('"').removesuffix('"')
            plain.setdefault(key, _ESCAPED.sub(_unescape, value))
        else:
            plain.setdefault(key, value.strip())
    return plain | extended


def _unescape(found: re.Match[str]) -> str:
    return found[1] or chr(int(found[2], 16))


def _extended(value: str) -> str | None:
    """Decode `charset'language'percent-encoded`; None when it is not that."""
    charset, quote, rest = value.partition("'")
    _, second_quote, encoded = rest.partition("'")
    if not quote or not second_quote or charset.lower() not in ("utf-8", "iso-8859-1"):
        return None
    return unquote_to_bytes(encoded).decode(charset, "replace")
