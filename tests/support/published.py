"""The published client, unchanged, in an environment of its own; and ours, driven the same way.

`published_python()` makes an environment with `agentsight==0.0.44` from PyPI, once for a machine
and version, under `.scratch/` of the repository. `Driver` runs `tests/conformance/driver.py` there
and gives `Client`s: each is a process that has just imported `agentsight`, with its own key.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.server import bare_environment

VERSION = "0.0.44"
ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".scratch" / "published"
DRIVER = ROOT / "tests" / "conformance" / "driver.py"
CALL_TIMEOUT_S = 60.0

Kind = Literal["published", "ours"]


def published_python() -> Path:
    """Return the interpreter of an environment that holds the published client; make it once."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = CACHE / f"agentsight-{VERSION}-python{python}"
    interpreter = place / "bin" / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may come at once
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(place)])
            pip = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
            _run([*pip, f"agentsight=={VERSION}"])
            (place / "complete").touch()
    return interpreter


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


class RemoteError(Exception):
    """What the driven client raised.

    Attributes:
        bases: The names of the error's classes, itself first.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(f"{told['type']}: {told['message']}")
        self.type: str = told["type"]
        self.bases: list[str] = told["bases"]
        self.message: str = told["message"]
        self.status_code: int | None = told["status_code"]
        self.response_data: Any = told["response_data"]


class Remote:
    """One of the client's objects; its methods are called there."""

    def __init__(self, client: Client, target: str) -> None:
        self._client = client
        self._target = target

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._client.call(self._target, name, *args, **kwargs)

        return call


class Client:
    """A process that uses `agentsight` with one key. Close it.

    Attributes:
        kind: Which package it is: where they differ by design, a test says so and why.
        tracker, api, manager: The module's three default instances.
    """

    def __init__(self, kind: Kind, connection: socket.socket, env: Mapping[str, str]) -> None:
        self.kind: Kind = kind
        self.key = env.get("AGENTSIGHT_API_KEY", "")
        self.tracker = Remote(self, "tracker")
        self.api = Remote(self, "api")
        self.manager = Remote(self, "manager")
        self._connection = connection
        self._stream = connection.makefile("rwb")
        self._write(dict(env))

    @property
    def is_ours(self) -> bool:
        return self.kind == "ours"

    def call(self, target: str, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call there; return its value or raise its error as a `RemoteError`."""
        self._write({"target": target, "name": name, "args": args, "kwargs": kwargs})
        line = self._stream.readline()
        assert line, "the client's process is gone: see its log"
        answer = json.loads(line)
        if "error" in answer:
            raise RemoteError(answer["error"])
        return answer["value"]

    def function(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a module, such as `agentsight.helpers.get_mime_type`."""
        return self.call("module", name, *args, **kwargs)

    @contextlib.contextmanager
    def raises(self, name: str, match: str | None = None) -> Iterator[pytest.ExceptionInfo[Any]]:
        """Expect an error whose class is, or derives from, the named one."""
        with pytest.raises(RemoteError, match=match) as caught:
            yield caught
        assert name in caught.value.bases, caught.value

    def close(self) -> None:
        """End the process."""
        self._stream.close()
        self._connection.close()

    def _write(self, order: object) -> None:
        self._stream.write(json.dumps(_encode(order)).encode() + b"\n")
        self._stream.flush()


def _encode(value: Any) -> Any:
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case io.BytesIO():
            return {"$bytesio": base64.b64encode(value.getvalue()).decode()}
        case datetime():
            return {"$datetime": value.isoformat()}
        case Path():
            return {"$path": str(value)}
        case dict():
            return {name: _encode(one) for name, one in value.items()}
        case list() | tuple():
            return [_encode(one) for one in value]
        case _:
            return value


def opened(path: Path) -> dict[str, str]:
    """Name a file that the client gets as an open one."""
    return {"$open": str(path)}


def enum(name: str) -> dict[str, str]:
    """Name a member of the client's enums, such as `Sender.USER`."""
    return {"$enum": name}


class Driver:
    """Makes clients of one package. Use it as a context manager."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self._directory = Path(tempfile.mkdtemp(prefix="agentsight-driver-"))
        self._socket = self._directory / "socket"
        self._log = (self._directory / "log").open("ab")
        python = published_python() if kind == "published" else Path(sys.executable)
        self._process = subprocess.Popen(
            [str(python), str(DRIVER), str(self._socket)],
            cwd=self._directory, env=bare_environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "listening\n", self.log()

    def start_client(self, endpoint: str, key: str | None, **env: str) -> Client:
        """Start a process whose environment names this endpoint and key."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(CALL_TIMEOUT_S)
        connection.connect(str(self._socket))
        settings = {"AGENTSIGHT_API_ENDPOINT": endpoint, **env}
        if key is not None:
            settings["AGENTSIGHT_API_KEY"] = key
        return Client(self.kind, connection, settings)

    def log(self, mark: int = 0) -> str:
        """Return what the clients have written to standard error since `mark`."""
        return (self._directory / "log").read_bytes()[mark:].decode(errors="replace")

    def log_mark(self) -> int:
        return os.stat(self._directory / "log").st_size

    def close(self) -> None:
        """End the processes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=CALL_TIMEOUT_S)
        self._process.stdout.close()
        self._log.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
