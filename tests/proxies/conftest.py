"""Real proxies before a real server: each behind TLS, with and without a public URL."""

from __future__ import annotations

import contextlib
import os
import pwd
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.proxies import (
    Certificate,
    Edits,
    caddy_text,
    free_port,
    make_certificate,
    nginx_text,
    start_caddy,
    start_nginx,
    web_user,
)
from tests.support.server import Agent, LiveServer

MAX_FILE_BYTES = 40 * 1024 * 1024
"""A limit that a test can pass without moving a gigabyte."""
PREFIX = "/agents"
UNDER_PREFIX = {
    "nginx": [
        ("location / {", f"location {PREFIX}/ {{"),
        ("proxy_pass http://agentsight;", "proxy_pass http://agentsight/;"),
    ],
    "caddy": [
        ("\treverse_proxy", f"\thandle_path {PREFIX}/* {{\n\treverse_proxy"),
        ("\t# Caddy's own refusals", "\t}\n\t# Caddy's own refusals"),
    ],
}


@dataclass(frozen=True)
class House:
    """A server, the proxy before it, and an agent's keys."""

    kind: str
    server: LiveServer
    agent: Agent
    base_url: str
    context: ssl.SSLContext
    certificate: Certificate
    files: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make one self-signed certificate for all proxies."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@contextlib.contextmanager
def build_house(
    kind: str,
    certificate: Certificate,
    *,
    public: bool = True,
    prefix: str = "",
    accel: bool = False,
    edits: Edits = (),
) -> Iterator[House]:
    """Run a server and a proxy before it, for the length of a `with`.

    Args:
        kind: `nginx` or `caddy`.
        public: Whether the server is told its public URL; otherwise it trusts the proxy's headers.
        prefix: The path under which the proxy shows the server.
        accel: Whether nginx sends the bytes of files.
        edits: Changes to the configuration.
    """
    # Not pytest's own directory: nginx's workers run as another user and may not enter that.
    with tempfile.TemporaryDirectory(prefix="agentsight-proxy-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o755)
        port = free_port()
        base_url = f"https://localhost:{port}{prefix}"
        files = directory / "files"
        settings = {"AGENTSIGHT_MAX_FILE_BYTES": str(MAX_FILE_BYTES)}
        settings["AGENTSIGHT_STORAGE_URL"] = files.as_uri()
        settings |= (
            {"AGENTSIGHT_PUBLIC_URL": base_url}
            if public
            else {"AGENTSIGHT_TRUSTED_PROXIES": "127.0.0.1"}
        )
        if accel:
            settings["AGENTSIGHT_X_ACCEL_REDIRECT"] = "/internal-files/"
            _make_files_directory(files)
        (directory / "server").mkdir()
        with LiveServer(directory / "server", settings=settings) as server:
            upstream_port = int(server.base_url.rpartition(":")[2])
            more = [*(UNDER_PREFIX[kind] if prefix else []), *edits]
            if kind == "nginx":
                sites = nginx_text(
                    port=port, upstream_port=upstream_port, certificate=certificate, files=files,
                    more=more,
                )  # fmt: skip
                proxy = start_nginx(directory / "nginx", sites, port=port)
            else:
                sites = caddy_text(
                    port=port, upstream_port=upstream_port, certificate=certificate, more=more
                )
                proxy = start_caddy(directory / "caddy", sites, port=port)
            with proxy:
                context = certificate.client_context()
                agent = server.make_agent()
                yield House(kind, server, agent, base_url, context, certificate, files)


def _make_files_directory(path: Path) -> None:
    """Make the directory of files as docs/proxies.md says: for the server, readable by nginx."""
    path.mkdir(mode=0o750)
    user = web_user()
    if user is not None:
        os.chown(path, -1, pwd.getpwnam(user).pw_gid)
        path.chmod(0o2750)
