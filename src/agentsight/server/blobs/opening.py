"""Open the store of bytes that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from agentsight.server.blobs.local import LocalBlobStore
from agentsight.server.blobs.model import BlobStore


def open_blob_store(url: str) -> BlobStore:
    """Open the store at `url`; its caller closes it. Nothing is made or touched yet.

    Raises:
        ValueError: The URL is of no kind that this version opens.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalBlobStore(Path(unquote(parts.path)))
    raise ValueError(f"storage {parts.scheme}:// is not supported yet; use file:///directory")
