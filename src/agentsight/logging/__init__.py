"""The SDK's own logger, `agentsight`. It has no handlers of ours: the application decides.

The standard library's logging is loaded when there is something to say, not at import.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging
    from logging import Logger

    from agentsight.config import Config

    logger: Logger

__all__ = ["configure_logging", "logger"]

_QUIET_LEVELS: Final = {"DEBUG": 10, "INFO": 20}
"""Levels nobody can hear unless the application has set logging up, hence loaded it."""


def __getattr__(name: str) -> object:
    if name == "logger":
        return get_logger()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_logger() -> logging.Logger:
    """Return the `agentsight` logger."""
    import logging

    return logging.getLogger("agentsight")


def configure_logging(config: Config | None = None) -> logging.Logger:
    """Set the level of the `agentsight` logger to what the settings say, and return it.

    Handlers and propagation stay as the application made them. Where no level is set
    (AGENTSIGHT_LOG_LEVEL or `log_level=`) the level stays too.
    """
    if config is None:
        from agentsight.config import Config

        config = Config()
    logger = get_logger()
    if config.log_level_is_set:
        logger.setLevel(str(getattr(config.log_level, "value", config.log_level)))
    return logger


def say(level: str, event: str, **fields: object) -> None:
    """Log one event with its fields; costs nothing where nobody can hear it.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        event: what happened, without data.
        fields: names and values; never secrets, message texts or file contents.
    """
    if level in _QUIET_LEVELS and "logging" not in sys.modules:
        return
    import logging

    logger = get_logger()
    number = logging.getLevelNamesMapping()[level]
    if logger.isEnabledFor(number):
        fields_text = " ".join(f"{name}={value}" for name, value in fields.items())
        logger.log(number, "%s", f"{event} {fields_text}".rstrip(), extra={"agentsight": fields})
