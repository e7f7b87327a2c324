"""Every kind of store, fresh and marked, for the suites that all of them answer to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agentsight.server.blobs import BlobStore, LocalBlobStore
from agentsight.server.blobs.s3 import S3BlobStore
from agentsight.server.blobs.s3_bucket import READ_TIMEOUT_S, S3Bucket
from tests.support.seaweed import BUCKET, Seaweed

INSTANCE = "0190a0b0-0000-7000-8000-000000000001"
KINDS = ["local", "s3"]


def s3_store(
    seaweed: Seaweed,
    *,
    url: str | None = None,
    spool_dir: Path | None = None,
    public_endpoint: str | None = None,
    read_timeout_s: float = READ_TIMEOUT_S,
    **environ: str,
) -> S3BlobStore:
    """Make a store in a folder of its own (or at `url`); `environ` changes what it is told."""
    name, _, prefix = (url or seaweed.new_url()).removeprefix("s3://").partition("/")
    told = seaweed.environ | environ
    bucket = S3Bucket(
        name,
        prefix,
        public_endpoint=public_endpoint,
        environ=told,
        read_timeout_s=read_timeout_s,
    )
    return S3BlobStore(bucket, spool_dir=spool_dir)


@asynccontextmanager
async def open_kind(kind: str, folder: Path, seaweed: Seaweed | None) -> AsyncIterator[BlobStore]:
    """Open a fresh store of a kind, and close it."""
    made: BlobStore
    if kind == "local":
        made = LocalBlobStore(folder / "blobs")
    else:
        assert seaweed is not None
        made = s3_store(seaweed, spool_dir=folder)
    try:
        await made.write_marker(INSTANCE)
        yield made
    finally:
        await made.close()


__all__ = ["BUCKET", "INSTANCE", "KINDS", "open_kind", "s3_store"]
