"""A real server behind a real proxy, over TLS, and what tests do through it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.proxies import (
    Certificate,
    Edits,
    ask,
    caddy_text,
    free_port,
    nginx_text,
    start_caddy,
    start_nginx,
    web_user,
)
from tests.support.server import Agent, Answer, LiveServer

MAX_FILE_BYTES = 40 * 1024 * 1024
"""A limit that a test can pass without moving a gigabyte."""
_BOUNDARY = "an-edge-of-this-form"
_CHUNK_BYTES = 256 * 1024
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


@contextlib.contextmanager
def build_house(
    kind: str,
    certificate: Certificate,
    *,
    public: bool = True,
    prefix: str = "",
    accel: bool = False,
    edits: Edits = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[House]:
    """Run a server and a proxy before it, for the length of a `with`.

    Args:
        kind: `nginx` or `caddy`.
        public: Whether the server is told its public URL; otherwise it trusts the proxy's headers.
        prefix: The path under which the proxy shows the server.
        accel: Whether nginx sends the bytes of files.
        edits: Changes to the configuration.
        settings: Further settings of the server; they win.
    """
    # Not pytest's own directory: nginx's workers run as another user and may not enter that.
    with tempfile.TemporaryDirectory(prefix="agentsight-proxy-") as scratch:
        directory = Path(scratch)
        directory.chmod(0o755)
        port = free_port()
        base_url = f"https://localhost:{port}{prefix}"
        files = directory / "files"
        told = {"AGENTSIGHT_MAX_FILE_BYTES": str(MAX_FILE_BYTES)}
        told["AGENTSIGHT_STORAGE_URL"] = files.as_uri()
        told |= (
            {"AGENTSIGHT_PUBLIC_URL": base_url}
            if public
            else {"AGENTSIGHT_TRUSTED_PROXIES": "127.0.0.1"}
        )
        if accel:
            told["AGENTSIGHT_X_ACCEL_REDIRECT"] = "/internal-files/"
            _make_files_directory(files)
        (directory / "server").mkdir()
        with LiveServer(directory / "server", settings=told | dict(settings or {})) as server:
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


def through(
    house: House,
    method: str,
    path: str,
    *,
    key: str | None = None,
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request to a path below the public address, or to a whole address."""
    url = path if path.startswith("http") else house.base_url + path
    sent = dict(headers or {})
    if key is not None:
        sent["Authorization"] = f"Api-Key {key}"
    return ask(url, method, context=house.context, body=body, headers=sent)


def open_conversation(house: House, name: str) -> int:
    """Make a conversation and return its id."""
    body = json.dumps({"conversation_id": name}).encode()
    answer = through(
        house, "POST", "/api/conversations/", key=house.agent.write_key, body=body,
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.status in (200, 201), answer
    pk: int = answer.json["id"]
    return pk


def send_file(house: House, pk: int, name: str, mime_type: str, content: bytes) -> Answer:
    """Send one file by multipart, streamed in pieces, its length announced."""
    fields = {"conversation": str(pk), "sender": "end_user", "mode": "form_data", "metadata": "{}"}
    fields["timestamp"] = "2026-11-22T19:13:21Z"
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    parts.append(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="attachment_0"; filename="{name}"'
        f"\r\nContent-Type: {mime_type}\r\n\r\n"
    )
    head, tail = "".join(parts).encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()

    def pieces() -> Iterator[bytes]:
        yield head
        for start in range(0, len(content), _CHUNK_BYTES):
            yield content[start : start + _CHUNK_BYTES]
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(head) + len(content) + len(tail)),
    }
    return through(
        house, "POST", "/api/attachments/", key=house.agent.write_key, body=pieces(),
        headers=headers,
    )  # fmt: skip


def fetch_files(house: House, pk: int, headers: Mapping[str, str] | None = None) -> Any:
    """Make the one call through the proxy."""
    answer = through(
        house, "GET", f"/api/conversations/{pk}/attachments/", key=house.agent.read_key,
        headers=headers,
    )  # fmt: skip
    assert answer.status == 200, answer
    return answer.json


def store_file(
    house: House, conversation: str, name: str, mime_type: str, content: bytes
) -> dict[str, Any]:
    """Store one file and return its row as the one call shows it."""
    pk = open_conversation(house, conversation)
    answer = send_file(house, pk, name, mime_type, content)
    assert answer.status in (200, 201), answer
    rows = [row for message in fetch_files(house, pk)["messages"] for row in message["attachments"]]
    found: dict[str, Any] = rows[-1]
    return found
