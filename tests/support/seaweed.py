"""A real S3 store for tests: SeaweedFS, one for each test process, started when first asked for.

It keeps everything in a scratch directory, listens on loopback only, on free ports below the
ephemeral range, and is stopped by whoever started it; where `setpriv` is, it also dies with the
thread that started it. Each test takes a prefix or a bucket of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
ACCESS_KEY = "agentsight"
SECRET_KEY = "agentsight-tests-only"
READER_KEY = "reader"
BUCKET = "agentsight-tests"
_PORTS = ("master", "volume", "filer", "s3")
_N_MADE = itertools.count(1)


class NoSeaweed(RuntimeError):
    """SeaweedFS is not installed, or does not start."""


class Seaweed:
    """One running SeaweedFS. Use it as a context manager, or call `start` and `stop`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ports = free_ports(2 * len(_PORTS) + 2)
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environ(self) -> dict[str, str]:
        """Return the `AWS_*` variables that reach it, and keep the machine's own out."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def new_url(self) -> str:
        """Return a storage URL that nobody has: a folder of its own in the common bucket."""
        return f"s3://{BUCKET}/{os.getpid()}-{next(_N_MADE)}"

    def start(self) -> Seaweed:
        """Start it, again with the same data and ports, and wait until it takes and gives bytes.

        Raises:
            NoSeaweed: It does not; the message has its log.
        """
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        (self.directory / "s3.json").write_text(json.dumps(_IDENTITIES))
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready():
                return self
            threading.Event().wait(0.05)
        self.kill()
        raise NoSeaweed(f"SeaweedFS does not start: {self.log()[-3000:]}")

    def _command(self) -> list[str]:
        weed = Path(sys.executable).with_name("weed")
        program = str(weed) if weed.exists() else shutil.which("weed")
        if program is None:
            raise NoSeaweed("no SeaweedFS found: install the `dev` group of pyproject.toml")
        s3, filer, master, volume, admin, *grpc, admin_grpc = self._ports
        ports = dict(zip(_PORTS, (master, volume, filer, s3), strict=True))
        command = [program, "mini", f"-dir={self.directory / 'data'}", "-ip=127.0.0.1"]
        command += ["-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false"]
        command += ["-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += [f"-s3.config={self.directory / 's3.json'}", f"-bucket={BUCKET}"]
        command += [f"-{name}.port={port}" for name, port in ports.items()]
        command += [f"-{name}.port.grpc={port}" for name, port in zip(_PORTS, grpc, strict=True)]
        command += [f"-admin.port={admin}", f"-admin.port.grpc={admin_grpc}"]
        setpriv = shutil.which("setpriv")
        return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else command

    def _is_ready(self) -> bool:
        """Put an object through the front door: the parts behind it start one after the other."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        url = f"{self.endpoint}/{BUCKET}/ready"
        signed = AWSRequest("PUT", url, data=b"ready")
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(signed)
        request = Request(url, b"ready", dict(signed.headers.items()), method="PUT")
        try:
            with urlopen(request, timeout=5):
                return True
        except HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it in order; data and ports are kept for `start`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it hang: it takes connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self._process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            threading.Event().wait(0.01)  # its threads stop one by one
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """Return what it has written."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Seaweed:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()  # nothing of it is needed again, and an orderly end takes seconds


_IDENTITIES = {
    "identities": [
        {
            "name": "agentsight",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_KEY, "secretKey": SECRET_KEY}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
}


def free_ports(n_ports: int) -> list[int]:
    """Pick free ports below the range the kernel gives to outgoing connections, all different."""
    top = 32768
    with contextlib.suppress(OSError):
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        top = min(int(text.split()[0]), top)
    found: list[int] = []
    for port in random.sample(range(max(top - 12000, 1024), top), 500):
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == n_ports:
            return found
    raise NoSeaweed("not enough free ports below the ephemeral range")


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """Start one SeaweedFS for this process, when the first test asks for it."""
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture
def own_seaweed(tmp_path: Path) -> Iterator[Seaweed]:
    """Start a SeaweedFS for one test, which may stop, kill and freeze it."""
    with Seaweed(tmp_path / "seaweed") as running:
        yield running
