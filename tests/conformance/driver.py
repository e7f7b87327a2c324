"""Drives one `agentsight` package, whichever is installed: the published one or ours.

Run as `python driver.py SOCKET`. It imports nothing of this project: the published client lives in
an environment of its own. What both need is loaded once; then each connection to SOCKET is served
by a fork that puts the settings of its first line into the environment and imports `agentsight`, as
a user's process would. Every further line is one call, every answer one line. End of the connection
ends the process, end of standard input ends them all.

A call is {"target": "tracker" | "api" | "manager" | "module" | "driver", "name", "args", "kwargs"};
an answer {"value": …} or {"error": {"type", "bases", "message", "status_code", "response_data"}}.

JSON has no bytes, dates, open files or enums; they travel as {"$bytes": base64},
{"$bytesio": base64}, {"$open": path}, {"$path": path}, {"$datetime": ISO} and
{"$enum": "Sender.USER"}.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import inspect
import io
import json
import os
import select
import signal
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

TARGETS = {
    "tracker": "conversation_tracker",
    "api": "agentsight_api",
    "manager": "conversation_manager",
}
LOADED_BEFORE_FORK = ("requests", "httpx2", "email.parser", "uuid")


def decode(value: Any) -> Any:
    """Turn what travelled into what the client is called with."""
    if isinstance(value, list):
        return [decode(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "$bytes":
            return base64.b64decode(content)
        if kind == "$bytesio":
            return io.BytesIO(base64.b64decode(content))
        if kind == "$open":
            return open(content, "rb")
        if kind == "$path":
            return Path(content)
        if kind == "$datetime":
            return datetime.fromisoformat(content)
        if kind == "$enum":
            family, _, member = content.partition(".")
            return getattr(getattr(importlib.import_module("agentsight.enums"), family), member)
    return {name: decode(one) for name, one in value.items()}


def call(order: dict[str, Any]) -> dict[str, Any]:
    """Make one call and say how it ended."""
    args, kwargs = decode(order["args"]), decode(order["kwargs"])
    try:
        if order["target"] == "module":
            module, _, name = order["name"].rpartition(".")
            function = getattr(importlib.import_module(module), name)
        else:
            package = importlib.import_module("agentsight")
            function = getattr(getattr(package, TARGETS[order["target"]]), order["name"])
        return {"value": function(*args, **kwargs)}
    except Exception as error:
        return {
            "error": {
                "type": type(error).__name__,
                "bases": [base.__name__ for base in type(error).__mro__],
                "message": str(error),
                "status_code": getattr(error, "status_code", None),
                "response_data": getattr(error, "response_data", None),
            }
        }


def surface() -> dict[str, list[list[Any]]]:
    """Describe the public callables: their parameters with kinds and plain defaults."""
    found = {}
    package = importlib.import_module("agentsight")
    for name in ("ConversationTracker", "AgentSightAPI", "ConversationManager"):
        family = getattr(package, name)
        for member, function in inspect.getmembers(family, callable):
            if not member.startswith("_"):
                found[f"{name}.{member}"] = describe(function)
    for module in ("agentsight.helpers", "agentsight.validators"):
        loaded = importlib.import_module(module)
        for member in getattr(loaded, "__all__", ()):
            found[f"{module}.{member}"] = describe(getattr(loaded, member))
    return found


def describe(function: Any) -> list[list[Any]]:
    """Return name, kind and default of each parameter; "?" where a default is not plain."""
    if inspect.isclass(function):
        return []
    parameters = []
    for one in inspect.signature(function).parameters.values():
        default: Any = "(none)" if one.default is inspect.Parameter.empty else one.default
        default = getattr(default, "value", default)
        plain = default is None or isinstance(default, (str, int))
        parameters.append([one.name, one.kind.name, default if plain else "?"])
    return parameters


def members(module: str, names: list[str]) -> dict[str, Any]:
    """Return enum members of a module by name, and the bases of its exceptions."""
    loaded = importlib.import_module(module)
    found = {}
    for name in names:
        family = getattr(loaded, name)
        if issubclass(family, BaseException):
            found[name] = [base.__name__ for base in family.__mro__ if base.__name__ != "object"]
        else:
            found[name] = {member.name: member.value for member in family}
    return found


OWN = {"surface": surface, "members": members}


def serve(connection: socket.socket) -> None:
    """Be one process of a user, until the other side has heard enough."""
    with connection, connection.makefile("rwb") as stream:
        os.environ.update(json.loads(stream.readline()))
        for line in stream:
            order = json.loads(line)
            if order["target"] == "driver":
                answer = {"value": OWN[order["name"]](*order["args"])}
            else:
                answer = call(order)
            stream.write(json.dumps(answer, default=str).encode() + b"\n")
            stream.flush()


def main() -> None:
    """Fork for every connection."""
    for name in LOADED_BEFORE_FORK:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(8)
    print("listening", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            serve(connection)
            return
        connection.close()


if __name__ == "__main__":
    main()
