"""A TCP relay that cuts connections after so many bytes, and counts what passes."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

Direction = Literal["up", "down"]
_CHUNK_BYTES: Final = 64 * 1024


class Cut(NamedTuple):
    """After so many bytes of one connection in one direction, it is gone in both."""

    direction: Direction
    n_bytes: int


class CuttingRelay:
    """Relays to a server. Use it in a `with`; `url` is where clients connect.

    Args:
        url: The server's address.
        cuts: One for each connection that is to be cut, in the order in which connections reach
            their limit; afterwards all passes.
    """

    def __init__(self, url: str, cuts: list[Cut] | None = None) -> None:
        split = urlsplit(url)
        self._target = (split.hostname, split.port)
        self.cuts = cuts or []
        self.n_passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.stop_after: int | None = None
        """From so many bytes down on, nothing passes any more, and nothing is closed."""
        self.hold_after: int | None = None
        """From so many bytes up on likewise: a client that is stopped then is stopped half-way."""
        self.stopped = threading.Event()
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> CuttingRelay:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for one in self._sockets:
            _end(one)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()  # the server is not there: neither are we
                continue
            self._sockets += [client, server]
            for way in (("up", client, server), ("down", server, client)):
                self._threads.append(threading.Thread(target=self._relay, args=way))
                self._threads[-1].start()

    def _relay(self, direction: Direction, source: socket.socket, target: socket.socket) -> None:
        n_here = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK_BYTES):
                with self._lock:
                    cut = (
                        self.cuts[0] if self.cuts and self.cuts[0].direction == direction else None
                    )
                    if cut is not None and n_here + len(chunk) >= cut.n_bytes:
                        del self.cuts[0]
                        chunk = chunk[: cut.n_bytes - n_here]
                        self.n_passed[direction] += len(chunk)
                        target.sendall(chunk)
                        break
                    self.n_passed[direction] += len(chunk)
                n_here += len(chunk)
                target.sendall(chunk)
                is_held = self.hold_after is not None and self.n_passed["up"] >= self.hold_after
                if is_held and direction == "up":
                    self.stopped.set()
                    self._is_over.wait()
                if self.stop_after is not None and self.n_passed["down"] >= self.stop_after:
                    self.stopped.set()
                    self._is_over.wait()
        for one in (target, source):
            _end(one)
            one.close()  # with bytes unread in it, so that the other side hears a reset


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
