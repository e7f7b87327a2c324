"""A proxy between a client and the real server: it keeps what passes, and may lose an answer."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.server import Answer, LiveServer

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


class Exchange(NamedTuple):
    """A request as the client sent it, and what the server answered."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def again(self, server: LiveServer) -> Answer:
        """Send the same request once more, byte by byte."""
        return server.ask(self.method, self.path, body=self.body, headers=self.headers)


class Recorder:
    """Passes everything on. Use it as a context manager; `url` is the client's endpoint.

    Attributes:
        exchanges: What has passed, in order.
        lose: Paths of which the next answer is lost on its way: once for each entry.
    """

    def __init__(self, server: LiveServer) -> None:
        self.exchanges: list[Exchange] = []
        self.lose: list[str] = []
        target = urlsplit(server.base_url)
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
                connection = http.client.HTTPConnection(str(target.netloc), timeout=60)
                connection.request(self.command, self.path, body=body, headers=headers)
                reply = connection.getresponse()
                answer = reply.read()
                connection.close()
                exchange = Exchange(self.command, self.path, headers, body, reply.status, answer)
                recorder.exchanges.append(exchange)
                if self.path in recorder.lose:
                    recorder.lose.remove(self.path)
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in _HOP_BY_HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PATCH = do_DELETE = pass_on

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def posts(self, path: str) -> list[Exchange]:
        """Return the POSTs to a path, in order."""
        return [one for one in self.exchanges if (one.method, one.path) == ("POST", path)]

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
