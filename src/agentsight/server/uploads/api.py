"""Doors to uploads: JSON for our own clients and plain `curl`, tus 1.0 for stock ones.

tus 1.0 (tus.io, "Resumable Upload Protocol 1.0.x") with the extensions creation, expiration and
termination. `Tus-Resumable` is demanded of nobody: a client of plain HTTP needs none of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import HttpMethod, Request, Response, delete, get, head, patch, post, put, route
from litestar.params import FromPath

from agentsight import _contract as contract
from agentsight.server.access import Access
from agentsight.server.attachments.names import clean_filename
from agentsight.server.attachments.service import clean_declared
from agentsight.server.parts import Parts
from agentsight.server.problems import Problem, invalid, required
from agentsight.server.request_context import bases_of, parts_of
from agentsight.server.text import mend_text
from agentsight.server.uploads import service
from agentsight.server.uploads.model import (
    Announced,
    Upload,
    first_of,
    read_metadata,
    read_number,
    read_sha256,
)
from agentsight.server.uploads.shapes import (
    StorageUsageShape,
    UploadShape,
    address_of,
    http_date,
    shape_upload,
)
from agentsight.server.uploads.storage import storage_usage
from agentsight.server.web.auth import access_of, reads, writes
from agentsight.server.web.bodies import convert_body, receive_chunks
from agentsight.server.web.errors import answer_error
from agentsight.server.web.fields import Scalar, required_text, scalar_text
from agentsight.server.web.openapi import with_bodies

AnyRequest = Request[Any, Any, Any]
TUS_VERSION: Final = "1.0.0"
_TUS = {"Tus-Resumable": TUS_VERSION}
_EXTENSIONS: Final = "creation,expiration,termination"
_OFFSET_TYPE: Final = "application/offset+octet-stream"
UPLOAD_PATH: Final = contract.UPLOADS_PATH + "{uid:str}/"
_TAGS = ["uploads"]


def _answer_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Answer as everywhere, with the header that a tus client wants to see."""
    answer = answer_error(request, error)
    answer.headers.update(_TUS)
    if answer.status_code == 412:
        answer.headers["Tus-Version"] = TUS_VERSION
    return answer


_ANSWERS: dict[Any, Any] = {"exception_handlers": {Exception: _answer_error}, "tags": _TAGS}


class AnnounceBody(msgspec.Struct):
    """A file to come."""

    filename: Scalar = None
    mime_type: Scalar = None
    size_bytes: int | None = None
    sha256: str | None = None


_BYTES = {"type": "string", "format": "binary"}
_ANNOUNCE = with_bodies(
    {
        "application/json": {
            "type": "object",
            "properties": {
                "filename": {"type": "string"},
                "mime_type": {"type": "string", "description": "What the sender takes it for."},
                "size_bytes": {"type": "integer"},
                "sha256": {"type": "string", "description": "In hex; verified when given."},
            },
            "required": ["filename", "size_bytes"],
        }
    },
    "The file to come. A tus client sends Upload-Length and Upload-Metadata headers instead.",
)
_PIECE = with_bodies({_OFFSET_TYPE: _BYTES}, "The bytes from Upload-Offset on.")
_WHOLE = with_bodies({"application/octet-stream": _BYTES}, "All bytes of the file.")


# --- Announcing -----------------------------------------------------------------------------------


@post(
    contract.UPLOADS_PATH,
    guards=[writes],
    summary="Announce an upload",
    operation_class=_ANNOUNCE,
    **_ANSWERS,
)
async def announce_upload(request: AnyRequest) -> Response[UploadShape | None]:
    """Say name, size and hash of a file; learn where to send its bytes (201).

    200 means that the agent has these bytes already: refer to the upload at once. An `offset` above
    0 means that an unfinished upload of the same file (hash, size, name, type) goes on from there.
    Both are told only to a key that may read.
    """
    parts, access = parts_of(request), access_of(request)
    _check_version(request)
    is_tus = "upload-length" in request.headers or "upload-defer-length" in request.headers
    announced = _read_headers(request) if is_tus else await _read_body(request)
    # A stock client goes on with its first byte, whatever it is told of the offset.
    upload = await service.announce(parts, access, announced, may_be_here=not is_tus)
    base = bases_of(request).public_base(request.scope)
    if upload.state == "stored" and upload.size_bytes and not is_tus:
        shape = shape_upload(upload, base, parts.clock())
        return Response(shape, status_code=200, headers=_headers(upload))
    location = {"Location": address_of(upload, base)}
    return Response(
        None if is_tus else shape_upload(upload, base, parts.clock()),
        status_code=201,
        headers=_headers(upload) | location,
    )


def _read_headers(request: AnyRequest) -> Announced:
    size = read_number(request.headers.get("upload-length"))
    if size is None:
        raise invalid("Upload-Length", "Send the size in bytes; it cannot follow later.")
    metadata = read_metadata(request.headers.get("upload-metadata", ""))
    if metadata is None:
        raise invalid("Upload-Metadata", "Send pairs of a key and base64, comma between them.")
    return Announced(
        clean_filename(mend_text(first_of(metadata, "filename", "name") or "")),
        clean_declared(first_of(metadata, "filetype", "type", "mime_type")),
        size,
        _hash(first_of(metadata, "sha256"), "Upload-Metadata"),
    )


async def _read_body(request: AnyRequest) -> Announced:
    body = convert_body(await request.json(), AnnounceBody)
    if body.size_bytes is None:
        raise required("size_bytes")
    if not 0 <= body.size_bytes < 2**53:
        raise invalid("size_bytes", "Send the number of bytes.")
    # Longer names than are kept are cut, never refused, as by every other door.
    filename = clean_filename(required_text(body.filename, "filename", max_chars=2**20))
    return Announced(
        filename,
        clean_declared(scalar_text(body.mime_type)),
        body.size_bytes,
        _hash(body.sha256, "sha256"),
    )


def _hash(text: str | None, field: str) -> str | None:
    if not text:
        return None
    sha256 = read_sha256(text)
    if sha256 is None:
        raise invalid(field, "Send a SHA-256 as 64 hexadecimal digits.")
    return sha256


def _check_version(request: AnyRequest) -> None:
    version = request.headers.get("tus-resumable", TUS_VERSION)
    if version.strip() != TUS_VERSION:
        raise Problem(412, "invalid", f"Only tus {TUS_VERSION} is spoken here.")


def _headers(upload: Upload) -> dict[str, str]:
    return {
        **_TUS,
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.size_bytes),
        "Upload-Expires": http_date(upload.expires_at),
    }


@route(
    contract.UPLOADS_PATH,
    http_method=HttpMethod.OPTIONS,
    guards=[writes],
    status_code=204,
    summary="What of tus is spoken",
    **_ANSWERS,
)
async def describe_tus(request: AnyRequest) -> Response[None]:
    """Tell the version of tus, its extensions, and the largest file, in headers."""
    limit = parts_of(request).settings.max_file_bytes
    headers = {
        **_TUS,
        "Tus-Version": TUS_VERSION,
        "Tus-Extension": _EXTENSIONS,
        "Tus-Max-Size": str(limit),
    }
    return Response(None, status_code=204, headers=headers)


# --- One upload -----------------------------------------------------------------------------------


def _asked(request: AnyRequest, uid: str) -> tuple[Parts, Access, str]:
    _check_version(request)
    return parts_of(request), access_of(request), mend_text(uid)


@head(UPLOAD_PATH, guards=[writes], summary="Where an upload stands", **_ANSWERS)
async def stand_of_upload(request: AnyRequest, uid: FromPath[str]) -> Response[None]:
    """Tell in `Upload-Offset` how many bytes are safe: where to go on.

    Whoever asks is about to go on: a request that still sends this upload is waited for, and
    stopped after a second. 423 when it does not let go.
    """
    upload = await service.find_living(*_asked(request, uid))
    return Response(None, headers=_headers(upload) | {"Cache-Control": "no-store"})


@get(UPLOAD_PATH, guards=[writes], summary="An upload", **_ANSWERS)
async def read_upload(request: AnyRequest, uid: FromPath[str]) -> UploadShape:
    """Read an upload's state, pending, stored or expired, and how far it is; nobody is stopped."""
    parts, access, uid = _asked(request, uid)
    upload = await service.find(parts, access, uid)
    if upload.state_at(parts.clock()) != "expired":
        upload = await service.settle(parts, access, upload)
    base = bases_of(request).public_base(request.scope)
    return shape_upload(upload, base, parts.clock())


@patch(
    UPLOAD_PATH,
    guards=[writes],
    status_code=204,
    summary="Send bytes of an upload",
    operation_class=_PIECE,
    **_ANSWERS,
)
async def send_piece(request: AnyRequest, uid: FromPath[str]) -> Response[None]:
    """Send the bytes from `Upload-Offset` on, to the end or as far as the connection holds.

    Cut off, ask by HEAD how many are safe, and go on there. With the last byte size and hash are
    verified, and the upload is stored.
    """
    parts, access, uid = _asked(request, uid)
    await service.find(parts, access, uid)  # what is not there is 404, whatever else is wrong
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _OFFSET_TYPE:
        raise Problem(415, "unsupported_media_type", f"Send bytes as {_OFFSET_TYPE}.")
    offset = read_number(request.headers.get("upload-offset"))
    if offset is None:
        raise invalid("Upload-Offset", "Send where these bytes begin.", code="required")
    upload = await service.receive(
        parts,
        access,
        uid,
        receive_chunks(request.receive),
        offset=offset,
        content_length=read_number(request.headers.get("content-length")),
    )
    return Response(None, status_code=204, headers=_headers(upload))


@put(
    UPLOAD_PATH,
    guards=[writes],
    summary="Send an upload whole",
    operation_class=_WHOLE,
    **_ANSWERS,
)
async def send_whole(request: AnyRequest, uid: FromPath[str]) -> Response[UploadShape]:
    """Send all bytes in one go, as `curl -T FILE` does; what had come before is dropped."""
    return await _receive_whole(request, uid)


@put(f"{UPLOAD_PATH}{{filename:str}}", guards=[writes], include_in_schema=False)
async def send_whole_by_curl(
    request: AnyRequest, uid: FromPath[str], filename: FromPath[str]
) -> Response[UploadShape]:
    """Do the same: `curl -T FILE` puts the file's name behind an address that ends in a slash."""
    del filename  # the announcement has told the name
    return await _receive_whole(request, uid)


async def _receive_whole(request: AnyRequest, uid: str) -> Response[UploadShape]:
    parts, access, uid = _asked(request, uid)
    upload = await service.receive(
        parts,
        access,
        uid,
        receive_chunks(request.receive),
        offset=None,
        content_length=read_number(request.headers.get("content-length")),
    )
    base = bases_of(request).public_base(request.scope)
    return Response(shape_upload(upload, base, parts.clock()), headers=_headers(upload))


@delete(UPLOAD_PATH, guards=[writes], summary="Take an upload back", **_ANSWERS)
async def take_back_upload(request: AnyRequest, uid: FromPath[str]) -> Response[None]:
    """Drop an upload: bytes that have come are removed, unless messages refer to them."""
    await service.take_back(*_asked(request, uid))
    return Response(None, status_code=204, headers=_TUS)


# --- What is used ---------------------------------------------------------------------------------


@get(contract.STORAGE_USAGE_PATH, guards=[reads], tags=["usage"], summary="The use of storage")
async def read_storage_usage(request: AnyRequest) -> StorageUsageShape:
    """Read how much the agent keeps, what storing each content once has spared, and the limits."""
    return await storage_usage(parts_of(request), access_of(request))


routes = [
    describe_tus,  # before its path's others, or the framework makes an answer to OPTIONS itself
    announce_upload,
    stand_of_upload,
    read_upload,
    send_piece,
    send_whole,
    send_whole_by_curl,
    take_back_upload,
    read_storage_usage,
]
