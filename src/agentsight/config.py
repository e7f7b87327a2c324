"""The SDK's settings: where they come from and what they may be."""

from __future__ import annotations

import os
from typing import Any, Final

from agentsight._contract import KEY_PATTERN
from agentsight.enums import Environment, LogLevel, TokenHandlerType
from agentsight.exceptions import InvalidApiKeyException, NoApiKeyException

__all__ = ["Config"]

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:8000"


class _Unset:
    """Tells an argument that was not given from one that is None."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET: Final[Any] = _Unset()


class Config:
    """Settings of one client. What is not given comes from the environment.

    Args:
        api_key: AGENTSIGHT_API_KEY; blank means none.
        endpoint: AGENTSIGHT_API_ENDPOINT, the server's address; default `http://127.0.0.1:8000`.
        app_url: AGENTSIGHT_APP_URL, the address that errors name to people; default the endpoint.
        environment: AGENTSIGHT_ENVIRONMENT. Where set, it wins over the `environment` argument of
            the tracker, as it did in 0.0.x: who deploys decides, not the code.
        conversation_id: AGENTSIGHT_CONVERSATION_ID, used where no conversation is open.
        token_handler: AGENTSIGHT_TOKEN_HANDLER_TYPE, `llamaindex` or `langchain`.
        log_level: AGENTSIGHT_LOG_LEVEL, of the `agentsight` logger; left alone where not given.
        spool_dir: AGENTSIGHT_SPOOL_DIR, a directory where tracked items survive a crash.

    Raises:
        InvalidApiKeyException: the key has not the shape of a key.
        ValueError: the endpoint is not an http address, or the token handler is unknown.
    """

    def __init__(
        self,
        api_key: str | None = UNSET,
        endpoint: str = UNSET,
        app_url: str = UNSET,
        environment: Environment | str | None = UNSET,
        conversation_id: str | None = UNSET,
        token_handler: TokenHandlerType | str | None = UNSET,
        log_level: LogLevel | str | None = UNSET,
        spool_dir: str | os.PathLike[str] | None = UNSET,
    ) -> None:
        self.api_key: str | None = _given(api_key, "AGENTSIGHT_API_KEY")
        self.endpoint: str = _given(endpoint, "AGENTSIGHT_API_ENDPOINT") or DEFAULT_ENDPOINT
        self.app_url: str = _given(app_url, "AGENTSIGHT_APP_URL") or self.endpoint
        self.environment: Environment | str | None = _given(environment, "AGENTSIGHT_ENVIRONMENT")
        self.conversation_id: str | None = _given(conversation_id, "AGENTSIGHT_CONVERSATION_ID")
        self.token_handler: TokenHandlerType | str | None = _given(
            token_handler, "AGENTSIGHT_TOKEN_HANDLER_TYPE"
        )
        level: str | None = _given(log_level, "AGENTSIGHT_LOG_LEVEL")
        self.log_level_is_set = bool(level)
        self.log_level: LogLevel | str = level or LogLevel.INFO
        self.spool_dir: str | os.PathLike[str] | None = _given(spool_dir, "AGENTSIGHT_SPOOL_DIR")
        self._check()

    def configure(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        app_url: str | None = None,
        environment: Environment | str | None = None,
        conversation_id: str | None = None,
        token_handler: TokenHandlerType | str | None = None,
        log_level: LogLevel | str | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Change settings; what is `None` stays. Nothing changes where one of them is not valid."""
        before = dict(vars(self))
        given = {
            "api_key": api_key,
            "endpoint": endpoint,
            "app_url": app_url,
            "environment": environment,
            "conversation_id": conversation_id,
            "token_handler": token_handler,
            "log_level": log_level,
            "spool_dir": spool_dir,
        }
        try:
            for name, value in given.items():
                if value is not None:
                    setattr(self, name, value)
            self.log_level_is_set = self.log_level_is_set or log_level is not None
            self._check()
        except Exception:
            vars(self).update(before)
            raise

    def dict(self) -> dict[str, Any]:
        """Return the settings by name, with the key in the clear."""
        return {name: getattr(self, name) for name in _NAMES}

    def json(self) -> str:
        """Return the settings as JSON text, with the key in the clear."""
        import json

        from agentsight.helpers import AgentSightJSONEncoder

        return json.dumps(self.dict(), cls=AgentSightJSONEncoder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.dict() == other.dict()

    __hash__ = None  # pyright: ignore[reportAssignmentType] - settings change

    def __repr__(self) -> str:
        shown = self.dict() | {"api_key": self.api_key and f"{self.api_key[:8]}…"}
        return "Config(" + ", ".join(f"{name}={value!r}" for name, value in shown.items()) + ")"

    def _check(self) -> None:
        if self.api_key is not None and not str(self.api_key).strip():
            self.api_key = None
        if self.api_key is not None and not KEY_PATTERN.fullmatch(str(self.api_key)):
            raise InvalidApiKeyException(self.api_key, self.app_url)
        if not str(self.endpoint).lower().startswith(("http://", "https://")):
            raise ValueError(f"endpoint must start with http:// or https://, not {self.endpoint!r}")
        self.log_level = LogLevel.from_string(self.log_level)
        if isinstance(self.token_handler, str):
            self.token_handler = TokenHandlerType.from_env(self.token_handler)
        if self.spool_dir is not None:
            self.spool_dir = os.fspath(self.spool_dir)


_NAMES: Final = (
    "api_key",
    "endpoint",
    "app_url",
    "environment",
    "conversation_id",
    "token_handler",
    "log_level",
    "spool_dir",
)


def load_config(config: Config | None, settings: dict[str, Any]) -> Config:
    """Return the settings of a client that is about to work: `config` or new, with `settings`.

    Where no key is known yet and python-dotenv is installed, a `.env` file in the working directory
    or above it is read into the environment first.

    Raises:
        NoApiKeyException: there is no key.
        InvalidApiKeyException: the key has not the shape of a key.
        TypeError: a setting has no such name.
    """
    given = check_names(settings)
    if config is None:
        if not given.get("api_key") and not os.environ.get("AGENTSIGHT_API_KEY"):
            _read_dotenv()
        config = Config()
    config.configure(**given)
    if not config.api_key:
        raise NoApiKeyException
    return config


def check_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings`, or raise a TypeError that names what is wrong and what there is."""
    unknown = sorted(set(settings) - set(_NAMES))
    if unknown:
        raise TypeError(f"unknown setting {', '.join(unknown)}; there are {', '.join(_NAMES)}")
    return settings


def _given(value: Any, variable: str) -> Any:
    return os.environ.get(variable) or None if value is UNSET else value


def _read_dotenv() -> None:
    try:
        from dotenv import find_dotenv, load_dotenv
    except ImportError:
        return
    load_dotenv(find_dotenv(usecwd=True))
