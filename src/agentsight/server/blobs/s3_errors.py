"""What an object store says when it refuses, in the store's own errors, each with its remedy.

Nothing here names a bucket, an endpoint or a key of access: these texts reach callers of the API.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final, cast

from agentsight.server.blobs.errors import ObjectMissing, StorageFull, StorageUnavailable

log = logging.getLogger("agentsight.server")


class Taken(Exception):
    """The key holds an object already, or is being written by somebody else."""


class UploadGone(Exception):
    """The multipart upload was completed, aborted or swept away."""


class OutOfRange(Exception):
    """The object ends before the wanted range begins."""


class NotSupported(Exception):
    """The store does not know what was asked."""


class Unreached(StorageUnavailable):
    """The store cannot be reached at all: to ask it something else now would only take time."""


_MISSING: Final = frozenset({"NoSuchKey", "NoSuchVersion", "404", "NotFound"})
_TAKEN: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_FULL: Final = frozenset(
    {
        *("QuotaExceeded", "BucketQuotaExceeded", "StorageQuotaExceeded", "InsufficientStorage"),
        *("XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorageSpace", "507"),
    }
)
_CREDENTIALS: Final = frozenset(
    {
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        *("TokenRefreshRequired", "InvalidSecurity", "AuthorizationQueryParametersError"),
    }
)
_REGION: Final = frozenset(
    {
        *(
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ),
        *("TemporaryRedirect", "301", "307"),
    }
)
_REMEDIES: Final = {
    "NoSuchBucket": "has no such bucket: make it, or mend AGENTSIGHT_STORAGE_URL",
    "InvalidBucketName": "refuses the bucket's name: mend AGENTSIGHT_STORAGE_URL",
    "RequestTimeTooSkewed": "finds our clock wrong: set the time of this machine",
}


@contextmanager
def s3_errors(key: str) -> Generator[None]:
    """Wrap what the client library raises into the store's own errors."""
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _refusal(cast("Any", error).response, key) from error
    except BotoCoreError as error:
        raise _failure(error) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise StorageUnavailable("The object store broke off.") from error


def _refusal(response: dict[str, Any], key: str) -> Exception:
    """Translate an answer of the store that is not a success."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    # A HEAD has no body: its code is the number of its status.
    if code in _MISSING:
        return ObjectMissing(key)
    if code == "NoSuchUpload":
        return UploadGone(key)
    if code == "InvalidRange" or status == 416:
        return OutOfRange(key)
    if code in _TAKEN:
        return Taken(key)
    if code in _FULL or status == 507:
        return StorageFull("The object store is full; nothing was stored.")
    if code == "NotImplemented" or status == 501:
        return NotSupported(key)
    return StorageUnavailable(f"The object store {_reason(code, status)}.")


def _reason(code: str, status: int) -> str:
    if code in _REMEDIES:
        return _REMEDIES[code]
    if code in _CREDENTIALS:
        return f"refuses our key ({code}): mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code in _REGION:
        return f"keeps the bucket in another region ({code}): mend AWS_REGION or AWS_ENDPOINT_URL"
    if status in (401, 403):
        return f"denies access ({code}): let the key read, write, list and delete in the bucket"
    if status == 503 or code in ("SlowDown", "RequestLimitExceeded", "Throttling"):
        return f"is too busy ({code}); try again"
    if status >= 500:
        return f"failed ({code}); try again"
    return f"refused ({status} {code})"


def _failure(error: Exception) -> StorageUnavailable:
    """Translate what happened where no answer came."""
    from botocore import exceptions as kinds

    match error:
        case kinds.NoCredentialsError() | kinds.PartialCredentialsError():
            text = "was not asked: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        case kinds.CredentialRetrievalError() | kinds.TokenRetrievalError():
            text = "was not asked: the source of its credentials does not answer"
        case kinds.NoRegionError() | kinds.InvalidRegionError():
            text = "was not asked: set AWS_REGION"
        case kinds.SSLError():
            text = "has a certificate that is not trusted: mend it, or set AWS_CA_BUNDLE"
        case kinds.EndpointConnectionError() | kinds.ConnectTimeoutError():
            return Unreached(
                "The object store cannot be reached: start it, or mend AWS_ENDPOINT_URL."
            )
        case kinds.ReadTimeoutError():
            text = "does not answer in time; try again"
        case _:
            text = f"broke off ({type(error).__name__}); try again"
    return StorageUnavailable(f"The object store {text}.")
