"""A real Chromium, a server that records, and what both need to be started and stopped.

The browser speaks to loopback only: a proxy that nothing listens at takes every other request.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from playwright.sync_api import Browser, sync_playwright

ARGUMENTS = [
    "--no-sandbox",  # tests may run as root; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=127.0.0.1;localhost",
]


class NoBrowser(RuntimeError):
    """There is no Chromium."""


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Run Chromium for the length of a `with`.

    Raises:
        NoBrowser: It is not installed.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise NoBrowser("chromium is not installed: see tools/test-programs.sh")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Stage:
    """A web server of another site, with pages that tests write; it records what it is asked.

    It is `localhost`, and the server under test `127.0.0.1`: other origin, other site.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._pages: dict[str, bytes] = {}
        stage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stage.asked.append(self.path)
                body = stage._pages.get(self.path, b"")
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self._web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._web.daemon_threads = True
        self._thread = threading.Thread(
            target=self._web.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()
        self.base_url = f"http://localhost:{self._web.server_port}"

    def show(self, body: str) -> str:
        """Put a page up and return its address."""
        path = f"/page-{len(self._pages)}"
        self._pages[path] = f"<!doctype html><title>stage</title>{body}".encode()
        return self.base_url + path

    def close(self) -> None:
        """Stop it."""
        self._web.shutdown()
        self._thread.join()
        self._web.server_close()
