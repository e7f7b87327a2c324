"""Keys and bytes. Knows nothing of conversations."""

from agentsight.server.blobs.disks import Disks
from agentsight.server.blobs.errors import (
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
    StrangerStore,
)
from agentsight.server.blobs.local import LocalBlobStore
from agentsight.server.blobs.model import (
    HEAD_BYTES,
    MARKER_KEY,
    BlobStore,
    BlobStream,
    BlobWriter,
    Chunk,
    Hasher,
    ListedObject,
    PartsWriter,
    StoredObject,
    blob_key,
    check_key,
    derived_key,
)
from agentsight.server.blobs.scratch import Scratch
from agentsight.server.blobs.sniff import detect_mime_type

__all__ = [
    "HEAD_BYTES",
    "MARKER_KEY",
    "BlobStore",
    "BlobStream",
    "BlobWriter",
    "Chunk",
    "Disks",
    "Hasher",
    "ListedObject",
    "LocalBlobStore",
    "ObjectBusy",
    "ObjectExists",
    "ObjectMissing",
    "PartsWriter",
    "Scratch",
    "StorageFull",
    "StorageUnavailable",
    "StoredObject",
    "StrangerStore",
    "blob_key",
    "check_key",
    "derived_key",
    "detect_mime_type",
]
