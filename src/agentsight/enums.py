"""The words the SDK's arguments may have."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

__all__ = [
    "AgentType",
    "AttachmentMode",
    "Environment",
    "LogLevel",
    "Sender",
    "Sentiment",
    "TokenHandlerType",
]


_E = TypeVar("_E", bound=Enum)


class LogLevel(str, Enum):  # noqa: UP042 - str(LogLevel.INFO) must stay what 0.0.x code prints
    """How much the `agentsight` logger says."""

    CRITICAL = "CRITICAL"
    ERROR = "ERROR"
    WARNING = "WARNING"
    INFO = "INFO"
    DEBUG = "DEBUG"

    @classmethod
    def from_string(cls, level: str | None) -> LogLevel:
        """Return the level of that name in any case, INFO where there is none."""
        try:
            return cls((level or "INFO").upper())
        except ValueError:
            return cls.INFO


class AgentType(Enum):
    """Kinds of agents; kept for code that names it."""

    CHATBOT = "chatbot"
    AGENT = "agent"
    VOICE = "voice"
    CUSTOM = "custom"


class AttachmentMode(Enum):
    """How 0.0.x sent files; both are accepted and both are sent as streamed multipart."""

    BASE64 = "base64"
    FORM_DATA = "form_data"


class Sender(str, Enum):  # noqa: UP042 - as the published client has it
    """Who speaks."""

    USER = "end_user"
    AGENT = "agent"
    SYSTEM = "system"


class Environment(Enum):
    """The environments every agent has; others may be named by any short text."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"

    @classmethod
    def from_env(cls, value: str | None) -> Environment | None:
        """Return the environment of that name, `None` for none; ValueError for another name."""
        return _named(cls, value, "environment type")


class TokenHandlerType(Enum):
    """Libraries whose token counts can be collected."""

    LLAMAINDEX = "llamaindex"
    LANGCHAIN = "langchain"

    @classmethod
    def from_env(cls, value: str | None) -> TokenHandlerType | None:
        """Return the handler of that name, `None` for none; ValueError for another name."""
        return _named(cls, value, "token handler type")


class Sentiment(str, Enum):  # noqa: UP042 - as the published client has it
    """What a feedback says."""

    POSITIVE = "positive"
    NEUTRAL = "neutral"
    NEGATIVE = "negative"


def _named(kind: type[_E], value: str | None, what: str) -> _E | None:
    if not value:
        return None
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in kind)
        raise ValueError(f"Invalid {what} '{value}'. Expected one of: {known}") from None
