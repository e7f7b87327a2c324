"""What the SDK and the server share: paths, limits with units, the shape of keys, error codes.

Nothing here imports anything but the standard library, and nothing here does I/O: the SDK pays for
this module at import.
"""

from __future__ import annotations

import re
from typing import Final

# --- Paths (gen A's are frozen, see docs/published-clients.md; ours, under /api/v1, only grow) ----

CONVERSATIONS_PATH: Final = "/api/conversations/"
LOOKUP_PATH: Final = "/api/conversations/lookup/"
TRACK_PATH: Final = "/api/track/"
ACTION_LOGS_PATH: Final = "/api/action_logs/"
BUTTONS_PATH: Final = "/api/buttons/"
ATTACHMENTS_PATH: Final = "/api/attachments/"
FEEDBACKS_PATH: Final = "/api/conversation-feedbacks/"
BATCH_PATH: Final = "/api/v1/batch/"
UPLOADS_PATH: Final = "/api/v1/uploads/"
FILES_PATH: Final = "/api/v1/attachments/"
V1_CONVERSATIONS_PATH: Final = "/api/v1/conversations/"
STORAGE_USAGE_PATH: Final = "/api/v1/usage/storage/"

# --- Limits ---------------------------------------------------------------------------------------
# Defaults of the server's settings; the SDK uses them to say "too large" before it sends.

MIB: Final = 1024 * 1024
MAX_JSON_BODY_BYTES: Final = 64 * MIB
"""One JSON body, counted while it is inflated. Holds one base64 file of the next limit and more."""
MAX_BASE64_FILE_BYTES: Final = 25 * MIB
"""One file inside a JSON body, counted after decoding."""
MAX_FILE_BYTES: Final = 1024 * MIB
"""One file by multipart or upload."""
MAX_FILES_PER_REQUEST: Final = 100
MAX_REQUEST_BYTES: Final = 4 * 1024 * MIB
"""All files of one request together."""
MAX_PENDING_UPLOADS: Final = 1000
"""Unfinished uploads of one agent: several workers, each with all files of a request announced."""
INLINE_FILE_BYTES: Final = 64 * 1024
"""The SDK sends files up to this size in the batch itself; larger ones are uploaded before it."""
MAX_ITEMS_PER_BATCH: Final = 10_000
MAX_TEXT_BYTES: Final = MIB
"""One text (a message's content, an action's response), in UTF-8."""
MAX_METADATA_BYTES: Final = 64 * 1024
MAX_METADATA_DEPTH: Final = 20
MAX_JSON_IN_FLIGHT_BYTES: Final = 256 * MIB
"""JSON bodies held by one process at a time; more get 503 with Retry-After."""
MAX_FILENAME_CHARS: Final = 255
MAX_ID_CHARS: Final = 255
"""conversation_id, customer_id, device, source, language, environment, item_key."""
MAX_NAME_CHARS: Final = 255
MAX_COMMENT_CHARS: Final = 5000
MAX_ENVIRONMENTS_PER_AGENT: Final = 20
MAX_ROW_ID: Final = 2**53 - 1
"""Ids stay below 2^53 so that JavaScript reads them exactly."""
MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 10
MAX_MESSAGES_PER_LIST: Final = 20_000
REPEAT_WINDOW_S: Final = 15 * 60
"""How long a published client's resend is recognised; its retries end within 3 minutes."""

ATTACHMENT_TYPES: Final = ("image", "document", "text", "audio", "video")
ATTACHMENT_CONTENT: Final = "[Attachments]"
"""The text of a message that exists only to hold files."""

# --- Keys -----------------------------------------------------------------------------------------

KEY_PATTERN: Final = re.compile(r"ags_[0-9a-f]{32}_[0-9a-f]{6}", re.IGNORECASE)
"""Shape of an API key; to be used with `fullmatch`."""


def key_checksum(body: str) -> str:
    """Return the last six characters of the key whose part before them is `body` (`ags_<32 hex>`).

    A checksum lets the server refuse a mistyped key without a look into the database, and lets
    secret scanners tell a real key from noise.
    """
    import hashlib  # costs 3 ms at import, and the SDK checks a key's shape only

    return hashlib.sha256(body.lower().encode()).hexdigest()[:6]


def key_is_well_formed(key: str) -> bool:
    """Say whether `key` has the shape of a key and its checksum fits."""
    return KEY_PATTERN.fullmatch(key) is not None and key_checksum(key[:36]) == key[37:].lower()


# --- Error codes: stable words; messages may improve freely --------------------------------------

ERROR_CODES: Final[dict[str, str]] = {
    "invalid": "A value has the wrong type or form; the field lists say which.",
    "required": "A field that is needed is missing.",
    "malformed_json": "The body is not JSON.",
    "malformed_multipart": "The multipart body is broken or ends too early.",
    "malformed_base64": "A file's data is not strict base64.",
    "not_authenticated": "No API key was sent.",
    "invalid_key": "The API key is malformed, unknown, revoked or expired.",
    "permission_denied": "The key's role does not allow this.",
    "not_found": "There is no such thing, or this key may not see it.",
    "method_not_allowed": "The path exists, the method does not.",
    "gone": "A file's bytes are missing from the store, or a one-time link has been used.",
    "invalid_page": "There is no such page.",
    "too_large": "A body, file, text or list passes a limit; the detail names the limit.",
    "too_many_environments": "The agent already has the most environments it may have.",
    "unsupported_media_type": "The Content-Type or Content-Encoding is not one this route reads.",
    "link_invalid": "The file link was altered, has expired, or names no file.",
    "range_not_satisfiable": "The requested range lies outside of the file.",
    "upload_expired": "The upload is gone or has expired; upload the file again.",
    "upload_pending": "The upload has not all of its bytes yet; finish it first.",
    "upload_conflict": "The offset is not where the upload stands; ask for it by HEAD and go on.",
    "upload_locked": "Another request is writing this upload; try again.",
    "too_many_uploads": "The agent has the most unfinished uploads it may have; finish some.",
    "hash_mismatch": "The bytes do not have the announced SHA-256; nothing was stored.",
    "size_mismatch": "The bytes are not as many as announced; nothing was stored.",
    "storage_limit": "A limit of stored bytes is reached; the detail names it and its value.",
    "quarantined": "These bytes are blocked by the operator.",
    "infected": "The malware scan found something in these bytes.",
    "no_preview": "There is no preview, or no playback copy, of this file.",
    "erased": "It was erased; what comes again late is not kept.",
    "too_many_requests": "Slow down; Retry-After says how long.",
    "busy": "The server holds as much as it may; try again after Retry-After.",
    "database_unavailable": "The database does not answer; nothing was stored, try again.",
    "storage_unavailable": "The file store does not answer; nothing was stored, try again.",
    "storage_full": "The disk is full; nothing was stored.",
    "internal_error": "A fault of ours; the request_id finds it in the log.",
}
