"""A real HTTP server on loopback that records requests and answers by script.

It stands in for bad networks and broken servers. What the real server does is tested against the
real server, in `tests/journeys` and `tests/conformance`.
"""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

KEY = "ags_" + "0123456789abcdef" * 2 + "_abcdef"


class Seen(NamedTuple):
    """One request as it arrived."""

    method: str
    path: str
    params: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        body = self.body
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.headers.get("content-type", "").startswith("multipart/"):
            body = self.parts[0][2]
        return json.loads(body)

    @property
    def parts(self) -> list[tuple[str, str | None, bytes, str | None]]:
        """Name, file name, content and type of each part."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + self.body)
        found = []
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            kind = part["content-type"]
            content = part.get_payload(decode=True)
            found.append((str(name), part.get_filename(), content, kind and str(kind)))
        return found


class Answer(NamedTuple):
    """What to answer; `cut` closes the connection instead, `short` in the middle of the body."""

    status: int = 200
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    short: bool = False


CUT = Answer(cut=True)
Script = Callable[[Seen], Answer]


def store_all(seen: Seen) -> Answer:
    """Answer a batch as the contract says."""
    batch = seen.json
    items = [
        {
            "index": index,
            "item_key": item["item_key"],
            "type": item["type"],
            "id": 100 + index,
            "status": "stored",
            "attachments": [
                {"id": 1, "filename": a["filename"]} for a in item.get("attachments", [])
            ],
        }
        for index, item in enumerate(batch["items"])
    ]
    conversation_id = batch["conversation"]["conversation_id"]
    body = {"conversation": 42, "conversation_id": conversation_id, "uid": "u", "items": items}
    return Answer(200, body)


class ScriptServer:
    """Records every request in `seen`; answers with `answers` first, then with `script`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: list[Answer | Script] = []
        self.script: Script = store_all
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                split = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                seen = Seen(self.command, split.path, parse_qsl(split.query), headers, body)
                with server._lock:
                    server.seen.append(seen)
                    scripted = server.answers.pop(0) if server.answers else server.script
                answer = scripted if isinstance(scripted, Answer) else scripted(seen)
                if answer.cut:
                    self.close_connection = True
                    return
                text = (
                    answer.body
                    if isinstance(answer.body, bytes)
                    else json.dumps(answer.body).encode()
                )
                content = b"" if answer.body is None else text
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content) + (100 if answer.short else 0)))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = answer.short

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.handle_one
                raise AttributeError(name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> ScriptServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def serving() -> Iterator[ScriptServer]:
    with ScriptServer() as server:
        yield server
