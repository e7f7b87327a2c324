"""The real nginx and the real Caddy, run with the very files of `docs/proxies`.

What is particular to a place (names, ports, certificates, directories) is put in by `edit`, which
fails when the file no longer has the text; everything else is tested as an operator copies it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.support.server import Answer

DOCS = Path(__file__).parents[2] / "docs" / "proxies"
NAME = "agents.example.com"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
HTTP_TIMEOUT_S = 60.0
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

Edits = Iterable[tuple[str, str]]


class ProxyFailed(RuntimeError):
    """The program is not installed, or ended before it served; the message says what it said."""


class Certificate(NamedTuple):
    """A self-signed certificate for localhost, and what trusts it."""

    certificate: Path
    key: Path

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(directory: Path) -> Certificate:
    """Make a certificate for localhost by openssl, as an operator does for a trial."""
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return made


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def edit(text: str, edits: Edits) -> str:
    """Replace each text by its other; a text that is not there is an error."""
    for old, new in edits:
        assert old in text, f"{old!r} is not in the configuration"
        text = text.replace(old, new)
    return text


def web_user() -> str | None:
    """Return the user that web servers run as, where we may choose; None otherwise."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "www-data" if "www-data" in names else "nobody"


class Proxy:
    """One running proxy; a context manager. Made by `start_nginx` and `start_caddy`."""

    def __init__(
        self, command: list[str], *, port: int, ready: bytes, env: Mapping[str, str]
    ) -> None:
        self.port = port
        self.base_url = f"https://localhost:{port}"
        program = shutil.which(command[0], path=_PATH)
        if program is None:
            raise ProxyFailed(f"{command[0]} is not installed: see tools/test-programs.sh")
        setpriv = shutil.which("setpriv")
        # So that no proxy outlives a test process that was killed.
        guard = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        self._process = subprocess.Popen(
            [*guard, program, *command[1:]], env=dict(env), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._said: list[bytes] = []
        self._is_settled = threading.Event()
        self._reader = threading.Thread(target=self._listen, args=(ready,), daemon=True)
        self._reader.start()
        self._is_settled.wait(START_TIMEOUT_S)
        if not any(ready in line for line in self._said):
            self.stop()
            raise ProxyFailed(self.said)

    def _listen(self, ready: bytes) -> None:
        """Keep what it says, to its end, so that it never waits for a reader."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said.append(line)
            if ready in line:
                self._is_settled.set()
        self._is_settled.set()

    @property
    def said(self) -> str:
        """Return all that it has said so far."""
        return b"".join(self._said).decode(errors="replace")

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def nginx_text(
    *, port: int, upstream_port: int, certificate: Certificate, files: Path, more: Edits = ()
) -> str:
    """Return docs/proxies/nginx.conf as it stands in this test's place."""
    text = (DOCS / "nginx.conf").read_text()
    edits = [
        ("return 301 https://agents.example.com$", f"return 301 https://localhost:{port}$"),
        (f"server_name {NAME};", "server_name localhost;"),
        ("    listen [::]:80;\n", ""),
        ("    listen [::]:443 ssl http2 default_server;\n", ""),
        ("    listen [::]:443 ssl http2;\n", ""),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/agentsight/fullchain.pem", str(certificate.certificate)),
        ("/etc/ssl/agentsight/privkey.pem", str(certificate.key)),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream_port}"),
        ("/srv/agentsight-files/", f"{files}/"),
    ]
    return edit(text, [*edits, *more])


def start_nginx(directory: Path, sites: str, *, port: int) -> Proxy:
    """Run nginx with `sites` as its only file of sites.

    Around it stands what a distribution's nginx.conf has: workers, events, MIME types, log files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sites.conf").write_text(sites)
    user = web_user()
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"{f'user {user};' if user else ''}\n"
        f"daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\n"
        "error_log stderr notice;\n"
        f"error_log {directory}/error.log info;\n"
        "events { worker_connections 256; }\n"
        f"http {{\n{temporary}\n"
        f"    access_log {directory}/access.log;\n"
        "    default_type application/octet-stream;\n"
        f"    include {directory}/sites.conf;\n}}\n"
    )
    command = ["nginx", "-e", "stderr", "-p", str(directory), "-c", str(directory / "nginx.conf")]
    # The sockets are bound before the workers start, so whoever connects from here on is served.
    return Proxy(command, port=port, ready=b"start worker process ", env=os.environ)


def caddy_text(*, port: int, upstream_port: int, certificate: Certificate, more: Edits = ()) -> str:
    """Return docs/proxies/Caddyfile as it stands in this test's place."""
    edits = [
        (f"{NAME} {{", f"https://localhost:{port} {{"),
        ("# tls /etc/ssl/agentsight/fullchain.pem /etc/ssl/agentsight/privkey.pem",
         f"tls {certificate.certificate} {certificate.key}"),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream_port}"),
    ]  # fmt: skip
    return edit((DOCS / "Caddyfile").read_text(), [*edits, *more])


def start_caddy(directory: Path, sites: str, *, port: int) -> Proxy:
    """Run Caddy with `sites`, without its administration port, HTTP/3 and plain HTTP."""
    directory.mkdir(parents=True, exist_ok=True)
    options = (
        "{\n\tadmin off\n\tauto_https disable_redirects\n"
        "\tskip_install_trust\n"
        "\tdefault_bind 127.0.0.1\n\tservers {\n\t\tprotocols h1 h2\n\t}\n"
        "}\n"
    )
    (directory / "Caddyfile").write_text(options + sites)
    env = {"PATH": _PATH, "HOME": str(directory), "XDG_DATA_HOME": str(directory / "data")}
    env["XDG_CONFIG_HOME"] = str(directory / "config")
    command = ["caddy", "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]
    return Proxy(command, port=port, ready=b"serving initial configuration", env=env)


def ask(
    url: str,
    method: str = "GET",
    *,
    context: ssl.SSLContext | None = None,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request exactly as given, following nothing."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=HTTP_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=HTTP_TIMEOUT_S)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    with contextlib.closing(connection):
        # A proxy may answer, and hang up, before it has read the whole body.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lower, response.read())
