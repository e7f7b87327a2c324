"""Take files out of request bodies and make their bytes durable, before any unit of work.

Multipart is streamed; base64 is in memory already and decoded off the event loop when it is large.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from litestar import Request

from agentsight._contract import MIB
from agentsight.server.attachments.model import HandedIn, ReceivedFile, ReferredUpload
from agentsight.server.attachments.names import clean_filename
from agentsight.server.attachments.service import Receiving, clean_declared, in_steps
from agentsight.server.ingest.bodies import FileBody
from agentsight.server.ingest.reading import Reader
from agentsight.server.problems import Problem, invalid, required, too_large
from agentsight.server.settings import Settings
from agentsight.server.text import mend_text
from agentsight.server.web.bodies import BodyBudget, receive_chunks
from agentsight.server.web.fields import optional_text, scalar_text
from agentsight.server.web.multipart import MultipartLimits, MultipartReader, Part

_THREAD_BYTES = 256 * 1024
"""Base64 above this is decoded in a thread: below, the hop costs more than it frees."""
_NUMBER = re.compile(r"(\d{1,9})\Z")


@dataclass(slots=True)
class Form:
    """A multipart body: its text fields, and its files by part name, in order of arrival."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    files: list[tuple[str, ReceivedFile]] = field(default_factory=list[tuple[str, ReceivedFile]])

    def in_order(self) -> list[ReceivedFile]:
        """Return the files by the number at the end of their part's name (attachment_10 after 9).

        Parts without a number keep their place behind those with one.
        """

        def place(named: tuple[str, ReceivedFile]) -> int:
            found = _NUMBER.search(named[0])
            return int(found[1]) if found else 10**9

        return [received for _, received in sorted(self.files, key=place)]


def is_multipart(request: Request[Any, Any, Any]) -> bool:
    """Say whether the body is multipart/form-data."""
    kind = request.headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == "multipart/form-data"


@asynccontextmanager
async def open_form(
    request: Request[Any, Any, Any], receiving: Receiving, settings: Settings
) -> AsyncGenerator[Form]:
    """Read a multipart body: fields into memory for the `with` block, files straight to the store.

    The fields count among the JSON bodies that this process holds: our SDK's batch is one.

    Raises:
        Problem: 400 for a broken body; 413 past a limit, at the byte that passes it; 503 when the
            process holds too much.
    """
    limits = MultipartLimits(
        max_files=settings.max_files_per_request,
        max_file_bytes=settings.max_file_bytes,
        max_field_bytes=settings.max_json_body_bytes,
        max_total_bytes=settings.max_request_bytes + settings.max_json_body_bytes + MIB,
    )
    reader = MultipartReader(
        receive_chunks(request.receive),
        request.headers.get("content-type", ""),
        limits=limits,
        content_length=_announced(request),
    )
    form = Form()
    hold = _Hold(request.app.state.body_budget)
    try:
        async for part in reader:
            if part.filename is None:
                form.fields[part.name] = mend_text(await hold.text(part))
            else:
                received = await receiving.receive(
                    aiter(part),
                    filename=mend_text(part.filename),  # as a JSON body's: one name by either door
                    declared_mime_type=part.content_type,
                )
                form.files.append((part.name, received))
        yield form
    finally:
        hold.budget.give_back(hold.n_bytes)


@dataclass(slots=True)
class _Hold:
    """What one form's fields hold of the process's budget of bodies."""

    budget: BodyBudget
    n_bytes: int = 0

    async def text(self, part: Part) -> str:
        """Read a field, counted as it arrives; bytes that are not UTF-8 become U+FFFD."""
        pieces: list[bytes | memoryview] = []
        async for piece in part:
            if self.n_bytes + len(piece) > self.budget.max_body_bytes:
                limit = self.budget.max_body_bytes
                raise too_large(f"The fields are larger than max_json_body_bytes ({limit} bytes).")
            self.budget.take(len(piece))
            self.n_bytes += len(piece)
            pieces.append(piece)
        return b"".join(pieces).decode("utf-8", "replace")


def _announced(request: Request[Any, Any, Any]) -> int | None:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None


async def receive_files(
    bodies: Sequence[FileBody], receiving: Receiving, reader: Reader
) -> list[HandedIn]:
    """Take the files of a JSON body: decode those in base64, note the uploads that are named.

    Raises:
        Problem: 400 naming the file whose data is missing or not strict base64; 413 past a limit.
    """
    check_count(len(bodies), reader.settings)
    received: list[HandedIn] = []
    for index, body in enumerate(bodies):
        if body.upload is not None:
            received.append(_referred(index, body, body.upload, reader))
            continue
        if body.data is None:
            raise invalid(
                "attachments", f"{_shown(index, body)}: data is missing.", code="required"
            )
        data = await _decode(index, body, body.data, reader.settings.max_base64_file_bytes)
        stored = await receiving.receive(
            in_steps(data),
            filename=scalar_text(body.filename),
            declared_mime_type=scalar_text(body.mime_type),
        )
        received.append(with_details(stored, body, reader))
    return received


def _referred(index: int, body: FileBody, uid: str, reader: Reader) -> ReferredUpload:
    """Note which upload a file is; whether it may be is asked where its row is written."""
    if body.data is not None or body.part is not None:
        text = f"{_shown(index, body)}: send one of data, part and upload."
        raise invalid("attachments", text)
    filename = scalar_text(body.filename)
    return ReferredUpload(
        mend_text(uid),
        clean_filename(filename) if filename else None,
        clean_declared(scalar_text(body.mime_type)),
        reader.metadata(body.metadata),
        optional_text(body.item_key, "item_key"),
    )


def with_details(received: ReceivedFile, body: FileBody, reader: Reader) -> ReceivedFile:
    """Give a received file the name, type, key and metadata that its description says."""
    filename, mime_type = scalar_text(body.filename), scalar_text(body.mime_type)
    return replace(
        received,
        filename=clean_filename(filename) if filename else received.filename,
        declared_mime_type=clean_declared(mime_type) or received.declared_mime_type,
        item_key=optional_text(body.item_key, "item_key"),
        metadata=reader.metadata(body.metadata),
    )


def check_count(n_files: int, settings: Settings) -> None:
    """Refuse a request without files, or with more than it may have.

    Raises:
        Problem: 400 or 413, naming the limit.
    """
    if n_files == 0:
        raise required("attachments")
    if n_files > settings.max_files_per_request:
        limit = settings.max_files_per_request
        raise too_large(f"Send at most {limit} files a request (max_files_per_request).")


async def _decode(index: int, body: FileBody, data: str, limit: int) -> bytes:
    if len(data) > (limit + 2) // 3 * 4:
        raise too_large(
            f"{_shown(index, body)} is larger than max_base64_file_bytes ({limit} bytes);"
            " send it by multipart."
        )
    try:
        if len(data) > _THREAD_BYTES:
            return await asyncio.to_thread(_strictly, data)
        return _strictly(data)
    except ValueError as error:
        text = f"{_shown(index, body)}: data is not strict base64 ({error})."
        raise Problem(400, "malformed_base64", fields={"attachments": [text]}) from error


def _strictly(data: str) -> bytes:
    if len(data) % 4:
        # Python 3.11's strict mode lets a surplus "=" at the end pass.
        raise ValueError("its length is no multiple of four")
    return binascii.a2b_base64(data.encode("ascii"), strict_mode=True) if data else b""


def _shown(index: int, body: FileBody) -> str:
    return f"file {index} ({(scalar_text(body.filename) or 'without a name')[:100]!r})"


def keyed(files: Sequence[HandedIn], item_key: str | None) -> list[HandedIn]:
    """Give each file a key of its request's and its place, so that a resend is recognised."""
    if item_key is None:
        return list(files)
    return [replace(f, item_key=f"{item_key}:{index}") for index, f in enumerate(files)]
