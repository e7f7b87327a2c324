"""Open the store of bytes that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from agentsight.server.blobs.disks import Disks
from agentsight.server.blobs.local import LocalBlobStore
from agentsight.server.blobs.model import BlobStore
from agentsight.server.blobs.s3 import S3BlobStore
from agentsight.server.blobs.s3_bucket import S3Bucket
from agentsight.server.db.urls import DatabaseUrl
from agentsight.server.settings import Settings


def open_blob_store(
    url: str, *, spool_dir: Path | None = None, public_endpoint: str | None = None
) -> BlobStore:
    """Open the store at `url`; its caller closes it. Nothing is made or touched yet.

    Args:
        url: `file:///directory` or `s3://bucket[/prefix]`.
        spool_dir: Where an object store's parts wait on our disk until they are sent.
        public_endpoint: Where browsers reach an object store, for presigned links.

    Raises:
        ValueError: The URL is of no kind that this version opens.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalBlobStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        bucket = S3Bucket(
            parts.netloc, unquote(parts.path).strip("/"), public_endpoint=public_endpoint
        )
        return S3BlobStore(bucket, spool_dir=spool_dir)
    raise ValueError(
        f"storage {parts.scheme}:// is not supported: use file:///directory or s3://bucket[/prefix]"
    )


def open_store_of(settings: Settings) -> BlobStore:
    """Open the store that the settings name; its caller closes it."""
    return open_blob_store(
        settings.storage_url,
        # Not the system's directory for temporary files where ours is: often that is memory.
        spool_dir=settings.data_dir if settings.data_dir.is_dir() else None,
        public_endpoint=settings.storage_public_url,
    )


def disks_of(settings: Settings) -> Disks:
    """Watch the disks that a SQLite database lies on, and files, or their parts on the way."""
    database = DatabaseUrl.parse(settings.database_url)
    storage = urlsplit(settings.storage_url)
    directories = [
        *([database.path.absolute().parent] if database.path is not None else []),
        Path(unquote(storage.path)) if storage.scheme == "file" else settings.data_dir,
    ]
    return Disks(directories, min_free_bytes=settings.min_free_disk_bytes)
