"""Keys and bytes. Knows nothing of conversations."""

from agentsight.server.blobs.errors import (
    ObjectExists,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
    StrangerStore,
)
from agentsight.server.blobs.local import LocalBlobStore
from agentsight.server.blobs.model import (
    HEAD_BYTES,
    LEFTOVER_AGE_S,
    MARKER_KEY,
    BlobStore,
    BlobStream,
    BlobWriter,
    Chunk,
    ListedObject,
    StoredObject,
    blob_key,
    check_key,
)
from agentsight.server.blobs.sniff import detect_mime_type

__all__ = [
    "HEAD_BYTES",
    "LEFTOVER_AGE_S",
    "MARKER_KEY",
    "BlobStore",
    "BlobStream",
    "BlobWriter",
    "Chunk",
    "ListedObject",
    "LocalBlobStore",
    "ObjectExists",
    "ObjectMissing",
    "StorageFull",
    "StorageUnavailable",
    "StoredObject",
    "StrangerStore",
    "blob_key",
    "check_key",
    "detect_mime_type",
]
