"""What the tests of proxies do through a proxy: store files, ask for lists, open links."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.proxies.conftest import House
from tests.support.proxies import ask
from tests.support.server import Answer

_BOUNDARY = "an-edge-of-this-form"
_CHUNK_BYTES = 256 * 1024


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
