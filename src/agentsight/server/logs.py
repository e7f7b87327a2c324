"""The server's log: one event a line on standard error, JSON unless a person is watching.

No secrets go in: tokens and signatures stand in some paths, so the paths of requests are shortened
before they are written (`shown_path`).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def log_config(level: str, *, access_log: bool, for_people: bool) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`, the same in every process.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        access_log: Whether each request is a line.
        for_people: Plain lines in place of JSON.
    """
    # uvicorn's own tales of starting and stopping are for who debugs it.
    uvicorn_level = "DEBUG" if level == "debug" else "WARNING"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"()": "agentsight.server.logs.PlainFormatter" if for_people
                     else "agentsight.server.logs.JsonFormatter"},
        },
        "filters": {"access": {"()": "agentsight.server.logs.AccessFilter"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": ["access"],
            },
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "agentsight": {"level": level.upper()},
            "uvicorn": {"level": uvicorn_level},
            "uvicorn.error": {"level": uvicorn_level},
            "uvicorn.access": {"level": "INFO" if access_log else "CRITICAL"},
        },
    }  # fmt: skip


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, event, and whatever fields came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class PlainFormatter(logging.Formatter):
    """A line for a person: time, level, event, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback under it."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
        tail = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{moment} {record.levelname.lower():7} {record.getMessage()}{tail}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class AccessFilter(logging.Filter):
    """Turn uvicorn's access lines into an event with fields, without the secrets in paths."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a line of `uvicorn.access`; let every line through."""
        if record.name == "uvicorn.access" and isinstance(record.args, tuple):
            peer, method, path, _http_version, status = record.args[:5]
            record.msg, record.args = "request", ()
            vars(record).update(
                {"method": method, "path": shown_path(str(path)), "status": status, "peer": peer}
            )
        return True


def shown_path(path: str) -> str:
    """Return a request's path without its query and without what opens something by itself."""
    path = path.partition("?")[0]
    parts = path.split("/")
    if path.startswith("/files/") and len(parts) > 3:
        return "/".join([*parts[:3], "…"])
    if path.startswith("/app/set-password/"):
        return "/app/set-password/…"
    if path.startswith("/s/"):
        return "/s/…"
    return path
