"""Everything the SDK raises on purpose.

Exception
├── NoApiKeyException                       no key was given or found
├── InvalidApiKeyException                  the key has not the shape of a key
├── ApiServerException                      kept for code that names it; never raised
├── AgentSightApiJwtExpiredException        kept for code that names it; never raised
├── NoConversationIdException               tracked, but which conversation is unknown
├── MissingConversationIdException          a conversation was opened without an id
├── NoDataToSendException                   nothing is tracked
├── InvalidAttachmentException              a file cannot be read, named or is too large
├── ConversationTrackingException
│   ├── InvalidConversationDataException    a name, comment, action, button or metadata (1)
│   ├── InvalidQuestionDataException        a human message without text (1)
│   ├── InvalidAnswerDataException          an agent message without text (1)
│   ├── ConversationNetworkException        no answer, or none that can be understood
│   ├── DownloadException                   not all files could be fetched: files
│   └── ConversationApiException            the server refused: status_code, response_data
│       ├── UnauthorizedException           401
│       ├── ForbiddenException              403
│       └── NotFoundException               404
└── RuntimeError
    └── AgentSightClientNotInitializedException     kept for code that names it; never raised

(1) Also a ValueError: the value passed to the call is not acceptable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsight.types import DownloadedFile

__all__ = [
    "AgentSightApiJwtExpiredException",
    "AgentSightClientNotInitializedException",
    "ApiServerException",
    "ConversationApiException",
    "ConversationNetworkException",
    "ConversationTrackingException",
    "DownloadException",
    "ForbiddenException",
    "InvalidAnswerDataException",
    "InvalidApiKeyException",
    "InvalidAttachmentException",
    "InvalidConversationDataException",
    "InvalidQuestionDataException",
    "MissingConversationIdException",
    "NoApiKeyException",
    "NoConversationIdException",
    "NoDataToSendException",
    "NotFoundException",
    "UnauthorizedException",
]


class NoApiKeyException(Exception):
    """No API key: neither an argument nor AGENTSIGHT_API_KEY nor a `.env` file has one."""

    def __init__(
        self,
        message: str = (
            "No API key: pass api_key=… or set AGENTSIGHT_API_KEY "
            "(`agentsight keys create --agent SLUG --role write` makes one)."
        ),
    ) -> None:
        super().__init__(message)


class InvalidApiKeyException(Exception):
    """The API key has not the shape `ags_` + 32 hex + `_` + 6 hex. The message never shows it.

    Args:
        api_key: to say how long it is.
        app_url: as in 0.0.x, whose app made keys; here the server's command line does.
    """

    def __init__(self, api_key: object, app_url: str) -> None:
        n_chars = len(api_key) if isinstance(api_key, str) else 0
        super().__init__(
            f"The API key ({n_chars} characters) is not of the form ags_<32 hex>_<6 hex>: "
            "look for spaces and missing characters, or make a new one on the server by "
            "`agentsight keys create --agent SLUG --role write`."
        )


class ApiServerException(Exception):
    """Kept for code written for 0.0.x that names it; never raised."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class AgentSightClientNotInitializedException(RuntimeError):
    """Kept for code written for 0.0.x that names it; never raised."""

    def __init__(
        self, message: str = "AgentSight client must be initialized before using this feature"
    ) -> None:
        super().__init__(message)


class AgentSightApiJwtExpiredException(Exception):
    """Kept for code written for 0.0.x that names it; never raised."""

    def __init__(self, message: str = "JWT token has expired") -> None:
        super().__init__(message)


class NoConversationIdException(Exception):
    """It is unknown which conversation an item belongs to; the item is kept."""

    def __init__(self, message: str = "conversation_id is required but was not provided") -> None:
        self.message = message
        super().__init__(message)


class MissingConversationIdException(Exception):
    """A conversation_id is missing or blank."""

    def __init__(self, message: str = "Conversation ID is required and cannot be empty") -> None:
        super().__init__(message)


class NoDataToSendException(Exception):
    """Nothing is tracked for the conversation that should be sent."""

    def __init__(self, message: str = "No tracked data found for conversation.") -> None:
        super().__init__(message)


class InvalidAttachmentException(Exception):
    """A file cannot be read, has no usable name or type, is not base64, or is too large."""

    def __init__(self, message: str = "Invalid attachment data provided") -> None:
        self.message = message
        super().__init__(message)


class ConversationTrackingException(Exception):
    """What went wrong while recording, sending or reading conversations."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class InvalidConversationDataException(ConversationTrackingException, ValueError):
    """A name, comment, action, button or metadata is not acceptable; also a ValueError."""

    def __init__(self, message: str = "Invalid conversation data provided") -> None:
        super().__init__(message)


class InvalidAnswerDataException(ConversationTrackingException, ValueError):
    """An agent message without text, or with too much of it; also a ValueError."""

    def __init__(self, message: str = "Invalid answer data provided") -> None:
        super().__init__(message)


class InvalidQuestionDataException(ConversationTrackingException, ValueError):
    """A human message without text, or with too much of it; also a ValueError."""

    def __init__(self, message: str = "Invalid question data provided") -> None:
        super().__init__(message)


class ConversationNetworkException(ConversationTrackingException):
    """The server did not answer, or answered with something that cannot be understood."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class DownloadException(ConversationTrackingException):
    """Not all files could be fetched, and the caller asked for all (`check=True`).

    Attributes:
        files: what became of each, those that are here included.
    """

    def __init__(self, files: Sequence[DownloadedFile]) -> None:
        missing = [file for file in files if not file.is_here]
        super().__init__(
            f"{len(missing)} of {len(files)} files are not here; "
            f"{missing[0].filename!r}: {missing[0].error}"
        )
        self.files = list(files)


class ConversationApiException(ConversationTrackingException):
    """The server refused.

    Attributes:
        status_code: the HTTP status.
        response_data: the parsed body of the refusal, `{}` where it was not JSON, `None` in the
            subclasses.
    """

    def __init__(
        self, message: str, status_code: int | None = None, response_data: object = None
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.response_data = response_data


class NotFoundException(ConversationApiException):
    """There is no such thing, or the key may not see it (404)."""

    def __init__(self, message: str = "Resource not found") -> None:
        super().__init__(message, status_code=404)


class UnauthorizedException(ConversationApiException):
    """The key is missing, unknown, revoked or expired (401)."""

    def __init__(self, message: str = "Unauthorized - invalid or missing API key") -> None:
        super().__init__(message, status_code=401)


class ForbiddenException(ConversationApiException):
    """The key's role does not allow this (403)."""

    def __init__(self, message: str = "Forbidden - not authorized to access this resource") -> None:
        super().__init__(message, status_code=403)
