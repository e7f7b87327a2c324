"""The requests we send to one bucket, typed, with errors wrapped: the only file that knows S3.

The clients that send them are made and kept by `s3_clients.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final

from agentsight.server.blobs.errors import ObjectMissing, StorageUnavailable
from agentsight.server.blobs.s3_clients import READ_TIMEOUT_S, S3Clients
from agentsight.server.blobs.s3_errors import NotSupported, Taken, UploadGone, s3_errors

log = logging.getLogger("agentsight.server")

_TOKEN: Final = "agentsight-upload"  # noqa: S105 - the name of a metadata field
_OUR_TYPE: Final = "application/octet-stream"
_HEADERS: Final = {
    "content-type": "ResponseContentType",
    "content-disposition": "ResponseContentDisposition",
    "cache-control": "ResponseCacheControl",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a HEAD tells of an object; `token` is what its writer called itself."""

    size_bytes: int
    token: str


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer whose bytes are still to be read: `body` is the library's stream."""

    body: Any
    size_bytes: int
    end: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing, by its whole name in the bucket less our prefix."""

    key: str
    size_bytes: int
    modified_at_us: int


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """One multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at_us: int


@dataclass(frozen=True, slots=True)
class Part:
    """One part that the store holds."""

    number: int
    size_bytes: int
    modified_at_us: int


class S3Bucket:
    """One bucket, or the part of it below a prefix.

    Args:
        name: The bucket.
        prefix: Empty, or the folder of our objects, without slashes at its ends.
        public_endpoint: Where browsers reach the store, for presigned links; None: where we do.
        environ: The `AWS_*` variables; the library reads those that are not asked for here itself.
        read_timeout_s: How long to wait for the next bytes of an answer, each of three times.
    """

    def __init__(
        self,
        name: str,
        prefix: str = "",
        *,
        public_endpoint: str | None = None,
        environ: Mapping[str, str] = os.environ,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._public_endpoint = public_endpoint
        self._clients = S3Clients(environ, read_timeout_s=read_timeout_s)
        self._refuses_conditions = False

    async def close(self) -> None:
        """Close all connections."""
        await self._clients.close()

    # --- One object -------------------------------------------------------------------------------

    async def head(self, key: str) -> Found | None:
        """Look at an object; None where there is none.

        A HEAD's 404 has no body and cannot say whether the key or the whole bucket is missing, so a
        second question is asked then: a missing bucket must never look like lost files.
        """
        client = await self._clients.get()
        with s3_errors(key):
            try:
                with s3_errors(key):
                    found = await client.head_object(**self._at(key))
            except ObjectMissing:
                await self._require_missing(client, key)
                return None
        return Found(int(found["ContentLength"]), str(found.get("Metadata", {}).get(_TOKEN, "")))

    async def _require_missing(self, client: Any, key: str) -> None:
        try:
            with s3_errors(key):
                listed = await client.list_objects_v2(
                    Bucket=self._name, Prefix=self._prefix + key, MaxKeys=1
                )
        except ObjectMissing as error:
            raise StorageUnavailable("The object store does not list its bucket.") from error
        if any(item["Key"] == self._prefix + key for item in listed.get("Contents", [])):
            raise StorageUnavailable("The object store contradicts itself; try again.")

    async def open(
        self, key: str, start: int = 0, end: int | None = None, *, etag: str = ""
    ) -> Opened:
        """Begin to read `[start, end)`, which is not empty.

        Raises:
            ObjectMissing: Nothing is stored there.
            OutOfRange: It has `start` bytes or fewer.
            Taken: `etag` was given, and the object is another one now.
        """
        client = await self._clients.get()
        wanted = self._at(key)
        if start or end is not None:
            wanted["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if etag:
            wanted["IfMatch"] = etag
        with s3_errors(key):
            got = await client.get_object(**wanted)
        length = int(got["ContentLength"])
        # `Content-Range: bytes 5-9/1234`; a store may answer a range over all with a plain 200.
        total = str(got.get("ContentRange", "")).rpartition("/")[2]
        size_bytes = int(total) if total.isdigit() else length
        return Opened(got["Body"], size_bytes, start + length, str(got.get("ETag", "")))

    async def read_body(self, opened: Opened, key: str) -> bytes:
        """Read a small answer whole."""
        with s3_errors(key):
            async with opened.body as body:
                return await body.read()

    async def put(
        self, key: str, body: bytes | IO[bytes], *, md5: str, token: str, replace: bool = False
    ) -> None:
        """Store an object in one request.

        Raises:
            Taken: The key is taken, perhaps by our own first try (compare the token).
        """

        async def send(**condition: str) -> None:
            client = await self._clients.get()
            if not isinstance(body, bytes):
                body.seek(0)
            with s3_errors(key):
                await client.put_object(
                    **self._at(key),
                    **condition,
                    Body=body,
                    ContentMD5=md5,
                    ContentType=_OUR_TYPE,
                    Metadata={_TOKEN: token},
                )

        await (send() if replace else self._unless_taken(key, send))

    async def _unless_taken(self, key: str, send: Any) -> None:
        """Send what must not replace an object; a store without conditions is asked before.

        That leaves a gap between question and answer; keys are made of unique ids, so nobody is in
        it but a repeat of ours.
        """
        if not self._refuses_conditions:
            try:
                await send(IfNoneMatch="*")
            except NotSupported:
                log.info("the object store knows no conditional writes; keys are asked for instead")
                self._refuses_conditions = True
            else:
                return
        if await self.head(key) is not None:
            raise Taken(key)
        await send()

    async def delete(self, key: str) -> None:
        """Remove an object and, in a bucket that keeps versions, all versions of it."""
        client = await self._clients.get()
        try:
            with s3_errors(key):
                answer = await client.delete_object(**self._at(key))
        except ObjectMissing:  # some stores say so; S3 does not
            return
        if answer.get("DeleteMarker"):
            await self._delete_versions(client, key)

    async def _delete_versions(self, client: Any, key: str) -> None:
        """Remove what a versioned bucket keeps behind the marker: deleted means the bytes."""
        wanted = self._prefix + key
        try:
            with s3_errors(key):
                pages = client.get_paginator("list_object_versions")
                async for page in pages.paginate(Bucket=self._name, Prefix=wanted):
                    for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                        if item["Key"] == wanted:
                            await client.delete_object(**self._at(key), VersionId=item["VersionId"])
        except StorageUnavailable as error:
            raise StorageUnavailable(
                "The bucket keeps versions of what was deleted: turn versioning off, or allow"
                f" s3:ListBucketVersions and s3:DeleteObjectVersion. {error.detail}"
            ) from error

    async def presign(self, key: str, *, expires_s: int, headers: Mapping[str, str]) -> str:
        """Make a link that reads one object, with headers of its answer."""
        overrides = {_HEADERS[name.lower()]: value for name, value in headers.items()}
        client = await self._clients.get(self._public_endpoint or "")
        with s3_errors(key):
            url = await client.generate_presigned_url(
                "get_object", Params={**self._at(key), **overrides}, ExpiresIn=expires_s
            )
        return str(url)

    # --- An object in parts -----------------------------------------------------------------------

    async def begin(self, key: str, *, token: str) -> str:
        """Begin a multipart upload; return its id."""
        client = await self._clients.get()
        with s3_errors(key):
            begun = await client.create_multipart_upload(
                **self._at(key), ContentType=_OUR_TYPE, Metadata={_TOKEN: token}
            )
        return str(begun["UploadId"])

    async def put_part(
        self, key: str, upload_id: str, number: int, body: IO[bytes], *, n_bytes: int, md5: str
    ) -> str:
        """Store one part; return its ETag."""
        client = await self._clients.get()
        with s3_errors(key):
            stored = await client.upload_part(
                **self._at(key),
                UploadId=upload_id,
                PartNumber=number,
                Body=body,
                ContentLength=n_bytes,
                ContentMD5=md5,
            )
        return str(stored["ETag"])

    async def complete(self, key: str, upload_id: str, etags: list[str]) -> None:
        """Join the parts into the object.

        Raises:
            Taken: The key is taken, perhaps by our own first try (compare the token).
            UploadGone: The upload is not there, perhaps because it was completed.
        """
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]

        async def send(**condition: str) -> None:
            client = await self._clients.get()
            with s3_errors(key):
                await client.complete_multipart_upload(
                    **self._at(key),
                    **condition,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )

        await self._unless_taken(key, send)

    async def abort(self, key: str, upload_id: str) -> None:
        """Remove an upload and its parts; one that is gone is not an error."""
        client = await self._clients.get()
        try:
            with s3_errors(key):
                await client.abort_multipart_upload(**self._at(key), UploadId=upload_id)
        except (UploadGone, ObjectMissing):
            pass

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        """List the parts of an upload.

        Raises:
            UploadGone: It is not there.
        """
        client = await self._clients.get()
        parts: list[Part] = []
        with s3_errors(key):
            pages = client.get_paginator("list_parts")
            async for page in pages.paginate(**self._at(key), UploadId=upload_id):
                parts += [
                    Part(item["PartNumber"], item["Size"], _us(item["LastModified"]))
                    for item in page.get("Parts", [])
                ]
        return parts

    async def list_uploads(self, prefix: str = "") -> list[OpenUpload]:
        """List the multipart uploads below a prefix that are under way."""
        client = await self._clients.get()
        uploads: list[OpenUpload] = []
        with s3_errors(prefix):
            pages = client.get_paginator("list_multipart_uploads")
            async for page in pages.paginate(Bucket=self._name, Prefix=self._prefix + prefix):
                uploads += [
                    OpenUpload(self._less_prefix(item["Key"]), item["UploadId"], begun_at_us)
                    for item in page.get("Uploads", [])
                    for begun_at_us in (_us(item["Initiated"]),)
                ]
        return uploads

    # --- Many objects -----------------------------------------------------------------------------

    async def list(self, prefix: str) -> AsyncIterator[Listed]:
        """List what is stored below a prefix, in order of the keys."""
        client = await self._clients.get()
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self._name, Prefix=self._prefix + prefix
        )
        found = aiter(pages)
        while True:
            with s3_errors(prefix):
                page: dict[str, Any] | None = await anext(found, None)
            if page is None:
                return
            for item in page.get("Contents", []):
                key = self._less_prefix(item["Key"])
                yield Listed(key, int(item["Size"]), _us(item["LastModified"]))

    # --- Names ------------------------------------------------------------------------------------

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._name, "Key": self._prefix + key}

    def _less_prefix(self, key: str) -> str:
        return key.removeprefix(self._prefix)


def _us(when: datetime) -> int:
    return int(when.timestamp() * 1_000_000)
