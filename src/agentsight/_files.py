"""A path, bytes or an open file, turned into something that can be measured and streamed.

Nothing is ever copied whole into memory. What was given is remembered so that it can still be read
when the item is sent:

* bytes, BytesIO and base64 text: the bytes as they are now.
* a path: opened when it is sent.
* an open file of the operating system: by a second descriptor, read with `pread`; the caller's
  position never moves, and the caller may close or delete the file.
* another seekable object: read from its start when it is sent, then put back where it was.
* a stream that cannot seek: read now, into a temporary file.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from agentsight._contract import MAX_FILE_BYTES, MAX_FILES_PER_REQUEST, MIB
from agentsight._flow import FileUnreadable
from agentsight.exceptions import InvalidAttachmentException

if TYPE_CHECKING:
    from typing import BinaryIO

_CHUNK_BYTES: Final = 256 * 1024
_DATA_KEYS: Final = ("data", "content", "file", "path")
_SNIFFED_BYTES: Final = 64 * 1024


class Source(Protocol):
    """Where a file's bytes are."""

    held_bytes: int
    """Memory this keeps from being freed."""

    def size(self) -> int: ...
    def chunks(self, start: int = 0) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class File(NamedTuple):
    """One file of an item."""

    item_key: str
    filename: str
    mime_type: str | None
    """As declared; `None` lets the server decide by extension and content."""
    source: Source

    @property
    def part(self) -> str:
        """Name of its part in a multipart request."""
        return f"file_{self.item_key}"


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.held_bytes = len(data)

    def size(self) -> int:
        return len(self._data)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        view = memoryview(self._data)
        for offset in range(start, len(view), _CHUNK_BYTES):
            yield bytes(view[offset : offset + _CHUNK_BYTES])

    def close(self) -> None:
        """Nothing is held open."""


class PathSource:
    """A file by its path, opened when it is sent."""

    held_bytes = 0

    def __init__(self, path: str, *, is_ours: bool = False) -> None:
        self._path = path
        self._is_ours = is_ours

    def size(self) -> int:
        return os.stat(self._path).st_size

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            file.seek(start)
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def close(self) -> None:
        """Remove the file where it is a copy of ours."""
        if self._is_ours:
            import contextlib

            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


class DescriptorSource:
    """A regular file by a descriptor of our own."""

    held_bytes = 0

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        offset = start
        while chunk := os.pread(self._descriptor, _CHUNK_BYTES, offset):
            offset += len(chunk)
            yield chunk

    def close(self) -> None:
        """Close the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class StreamSource:
    """A seekable object that is not a file of the operating system; the caller keeps it open."""

    held_bytes = 0

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def size(self) -> int:
        position = self._stream.tell()
        try:
            return self._stream.seek(0, os.SEEK_END)
        finally:
            self._stream.seek(position)

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        position = self._stream.tell()
        self._stream.seek(start)
        try:
            while chunk := self._stream.read(_CHUNK_BYTES):
                yield chunk
        finally:
            self._stream.seek(position)

    def close(self) -> None:
        """The stream is the caller's."""


def read_attachments(attachments: object, mode: str) -> tuple[File, ...]:
    """Turn what a caller gave into files.

    Args:
        attachments: a list of mappings, paths, bytes or open files.
        mode: `base64` or `form_data`; only what a string in `data` means depends on it.

    Raises:
        InvalidAttachmentException: naming the attachment and what is wrong with it.
    """
    if not attachments:
        raise InvalidAttachmentException("Attachments list cannot be empty")
    if not isinstance(attachments, (list, tuple)):
        raise InvalidAttachmentException("Attachments must be provided as a list")
    given = cast("Sequence[object]", attachments)
    if len(given) > MAX_FILES_PER_REQUEST:
        raise InvalidAttachmentException(
            f"{len(given)} attachments on one item: at most {MAX_FILES_PER_REQUEST};"
            " send them in several"
        )
    return tuple(_read_one(i, attachment, mode) for i, attachment in enumerate(given))


def _read_one(i: int, attachment: object, mode: str) -> File:
    label = f"Attachment {i + 1}"
    described: Mapping[str, Any]
    if isinstance(attachment, Mapping):
        described = cast("Mapping[str, Any]", attachment)
    elif attachment is None or isinstance(attachment, (int, float, list, tuple, set)):
        kind: str = type(cast("object", attachment)).__name__
        raise InvalidAttachmentException(
            f"{label}: must be a mapping, a path, bytes or an open file, not {kind}"
        )
    else:
        described = {"path" if isinstance(attachment, str) else "data": attachment}
    key = next((key for key in _DATA_KEYS if key in described), None)
    if key is None:
        raise InvalidAttachmentException(
            f"{label} missing required key: 'data', 'content' or 'file' (bytes, an open file or "
            "base64 text), or 'path'"
        )
    data: Any = described[key]
    if key == "data" and mode == "base64" and isinstance(data, str):
        _check_names(label, described)
    mime_type = described.get("mime_type") or described.get("content_type")
    if mime_type is not None and not isinstance(mime_type, str):
        raise InvalidAttachmentException(f"{label}: mime_type must be text")
    source = _open_source(label, key, data, mode, described)
    size = _measure(label, source)
    filename = described.get("filename") or described.get("name") or _name_of(data, key)
    if not isinstance(filename, str) or not filename.strip():
        filename = _invented_name(i, mime_type, source)
    if size > MAX_FILE_BYTES:
        source.close()
        raise InvalidAttachmentException(
            f"{label}: {filename} has {size} bytes; a file may have at most"
            f" {MAX_FILE_BYTES // MIB} MiB ({MAX_FILE_BYTES} bytes)"
        )
    return File(str(uuid.uuid4()), filename, mime_type, source)


def check_base64_form(label: str, described: Mapping[str, Any]) -> None:
    """Ask for all three keys that 0.0.x needed; the tracker needs the data only."""
    missing = [key for key in ("filename", "mime_type", "data") if key not in described]
    if missing:
        raise InvalidAttachmentException(f"{label} missing required keys: {', '.join(missing)}")
    _check_names(label, described, may_be_none=False)


def _check_names(label: str, described: Mapping[str, Any], *, may_be_none: bool = True) -> None:
    for key in ("filename", "mime_type"):
        value = described.get(key)
        if value is None and may_be_none:
            continue
        if not isinstance(value, str) or not value.strip():
            raise InvalidAttachmentException(f"{label} has invalid or empty {key}")


def _open_source(
    label: str, key: str, data: Any, mode: str, described: Mapping[str, Any]
) -> Source:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return BytesSource(bytes(cast("bytes", data)))
    if isinstance(data, os.PathLike) or (key == "path" and isinstance(data, str)):
        return _path_source(label, os.fspath(data))  # pyright: ignore[reportUnknownArgumentType] - whatever callers pass
    if isinstance(data, str):
        if mode != "base64":
            raise InvalidAttachmentException(
                f"{label}: in form_data mode, 'data' must be bytes, a path object or an open file; "
                "give a path in text as 'path'"
            )
        return BytesSource(decode_base64(label, data, str(described.get("filename", ""))))
    if hasattr(data, "getvalue") and isinstance(value := data.getvalue(), bytes):
        return BytesSource(value)  # BytesIO hands out its own buffer, not a copy
    if hasattr(data, "read"):
        return _stream_source(label, data)
    raise InvalidAttachmentException(
        f"{label}: '{key}' must be bytes, a path or an open file, not {type(data).__name__}"
    )


def decode_base64(label: str, text: str, filename: str) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidAttachmentException(f"{label} '{filename}' has invalid base64 data") from error


def _path_source(label: str, path: str | bytes) -> Source:
    import stat

    path = os.path.abspath(os.fsdecode(path))  # the working directory may change before sending
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidAttachmentException(f"{label}: cannot read {path}: {reason}") from error
    if stat.S_ISDIR(status.st_mode):
        raise InvalidAttachmentException(f"{label}: {path} is a directory")
    if not stat.S_ISREG(status.st_mode):
        with open(path, "rb") as stream:
            return _copied(label, stream)
    if not os.access(path, os.R_OK):
        raise InvalidAttachmentException(f"{label}: {path} may not be read")
    return PathSource(path)


def _stream_source(label: str, stream: Any) -> Source:
    if getattr(stream, "closed", False):
        raise InvalidAttachmentException(f"{label}: the file is closed")
    descriptor = _regular_descriptor(stream)
    if descriptor is not None and hasattr(os, "pread"):
        if getattr(stream, "writable", bool)() and hasattr(stream, "flush"):
            stream.flush()  # else what the caller wrote is still in a buffer of Python's
        return DescriptorSource(os.dup(descriptor))
    if not getattr(stream, "seekable", bool)():
        return _copied(label, stream)
    if not isinstance(stream.read(0), bytes):
        raise InvalidAttachmentException(f"{label}: open the file in binary mode")
    return StreamSource(stream)


def _regular_descriptor(stream: Any) -> int | None:
    import stat

    if type(stream).__module__ not in ("_io", "tempfile"):
        return None  # a wrapper (gzip, zip) whose descriptor has other bytes than it reads
    if getattr(stream, "_rolled", True) is False:
        return None  # a SpooledTemporaryFile in memory; its fileno() would roll it over
    try:
        descriptor: int = stream.fileno()
        is_regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        os.pread(descriptor, 0, 0)  # refused where it is open for writing only
    except (OSError, ValueError, AttributeError):
        return None
    return descriptor if is_regular else None


def _copied(label: str, stream: Any) -> Source:
    import tempfile

    with tempfile.TemporaryFile() as copy:
        while chunk := stream.read(_CHUNK_BYTES):
            if not isinstance(chunk, bytes):
                raise InvalidAttachmentException(f"{label}: open the file in binary mode")
            copy.write(chunk)
            if copy.tell() > MAX_FILE_BYTES:
                raise InvalidAttachmentException(
                    f"{label}: a file may have at most {MAX_FILE_BYTES // MIB} MiB"
                )
        copy.flush()
        return DescriptorSource(os.dup(copy.fileno()))


def _measure(label: str, source: Source) -> int:
    try:
        return source.size()
    except (OSError, ValueError) as error:
        raise InvalidAttachmentException(f"{label}: cannot be read: {error}") from error


def _name_of(data: object, key: str) -> str | None:
    is_path = key == "path" or isinstance(data, os.PathLike)
    name = cast("object", data) if is_path else getattr(cast("object", data), "name", None)
    if not isinstance(name, (str, bytes, os.PathLike)):
        return None  # an open descriptor has a number for a name
    return os.path.basename(os.fsdecode(cast("str", name))) or None


def _invented_name(i: int, mime_type: str | None, source: Source) -> str:
    from agentsight.helpers import extension_of, get_mime_type

    if mime_type is None:
        head = b""
        for chunk in source.chunks():
            head += chunk
            if len(head) >= _SNIFFED_BYTES:
                break
        mime_type = get_mime_type(head)
    return f"attachment_{i}{extension_of(mime_type)}"


class Field(NamedTuple):
    """A part of a form that is not a file."""

    name: str
    value: bytes
    mime_type: str | None = None


class Multipart:
    """A `multipart/form-data` body (RFC 7578), streamed; each sending measures the files anew."""

    def __init__(self, parts: Sequence[Field | tuple[str, File]]) -> None:
        self._parts = parts
        self._boundary = uuid.uuid4().hex
        self._sizes: list[int] = []
        self.content_type = f"multipart/form-data; boundary={self._boundary}"

    def n_bytes(self) -> int:
        """Measure the body; what `chunks` then yields has exactly this length or raises.

        Raises:
            FileUnreadable: naming the file.
        """
        self._sizes = [_size_of(part) for part in self._parts]
        heads = sum(len(self._head(part)) for part in self._parts)
        return heads + sum(self._sizes) + 2 * len(self._parts) + len(self._boundary) + 6

    def chunks(self) -> Iterator[bytes]:
        """Yield the body; the files are opened one after the other."""
        sizes = iter(self._sizes)
        for part in self._parts:
            yield self._head(part)
            size = next(sizes)
            if isinstance(part, Field):
                yield part.value
            else:
                yield from exactly(part[1], size)
            yield b"\r\n"
        yield f"--{self._boundary}--\r\n".encode()

    def _head(self, part: Field | tuple[str, File]) -> bytes:
        lines = [f"--{self._boundary}"]
        if isinstance(part, Field):
            lines.append(f'Content-Disposition: form-data; name="{_quoted(part.name)}"')
            mime_type = part.mime_type
        else:
            name, file = part
            lines.append(
                f'Content-Disposition: form-data; name="{_quoted(name)}"; '
                f'filename="{_quoted(file.filename)}"'
            )
            mime_type = file.mime_type or "application/octet-stream"
        if mime_type:
            lines.append(f"Content-Type: {_header_text(mime_type)}")
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace")


def _size_of(part: Field | tuple[str, File]) -> int:
    if isinstance(part, Field):
        return len(part.value)
    try:
        return part[1].source.size()
    except (OSError, ValueError) as error:
        raise FileUnreadable(part[1].item_key, str(error)) from error


def exactly(file: File, size: int, start: int = 0) -> Iterator[bytes]:
    """Yield `size` bytes of a file from `start` on.

    Raises:
        FileUnreadable: it cannot be read, or has become shorter.
    """
    left = size
    try:
        for chunk in file.source.chunks(start):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return  # it grew meanwhile: what was announced has been sent
    except (OSError, ValueError) as error:
        raise FileUnreadable(file.item_key, str(error)) from error
    if left:
        raise FileUnreadable(file.item_key, "it became shorter while it was read")


def _quoted(text: str) -> str:
    # The form that browsers send (HTML Living Standard, multipart/form-data encoding algorithm).
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").replace("\0", "%00")


def _header_text(text: str) -> str:
    return "".join(character for character in text if character >= " " and character != "\x7f")
