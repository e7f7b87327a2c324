"""Read JSON bodies: counted while they arrive and inflate, mended where a refusal would lose data.

A process holds at most `max_json_in_flight_bytes` of bodies; more are told to come back (503).
Multipart is in `multipart.py`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, cast

import msgspec
from litestar import Request
from litestar.types import Receive

from agentsight.server.problems import Problem, required, too_large
from agentsight.server.text import mend_value

T = TypeVar("T")
_KEPT = "agentsight.kept_bytes"
# Decoded, `[]` takes thirty times its bytes, and 64 MB of them (64 KB in gzip) 1.5 GB and 16 s of
# the event loop. No batch comes near these numbers, and one long text alone cannot pass them.
_MAX_BRACKETS = 1_100_000
_MAX_COMMAS = 4_000_000
_COUNTED_FROM_BYTES = 1_000_000
_MISSING = re.compile(r"missing required field `([^`]+)`")


@dataclass(slots=True)
class BodyBudget:
    """How many bytes of JSON bodies this process holds, and may hold."""

    max_in_flight_bytes: int
    max_body_bytes: int
    held_bytes: int = field(default=0)

    def take(self, n_bytes: int) -> None:
        """Count `n_bytes` more, or raise 503 when the process holds as much as it may."""
        if self.held_bytes + n_bytes > self.max_in_flight_bytes:
            raise Problem(
                503,
                "busy",
                "The server holds as many bodies as it may; try again.",
                retry_after_s=1,
            )
        self.held_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Count `n_bytes` less."""
        self.held_bytes -= n_bytes

    def keep(self, scope: Any, n_bytes: int) -> None:
        """Count a decoded body's bytes until its request has ended: what it says lives as long."""
        self.held_bytes += n_bytes
        scope[_KEPT] = scope.get(_KEPT, 0) + n_bytes

    def end_request(self, scope: Any) -> None:
        """Give back what `keep` counted. Called when a request has ended, however it did."""
        self.held_bytes -= scope.pop(_KEPT, 0)


async def receive_chunks(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; a client that hangs up is a 400 (nobody reads it)."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "invalid", "The connection was cut before the body ended.")
        chunk = cast("bytes", message.get("body", b""))
        if chunk:
            yield chunk
        if not message.get("more_body", False):
            return


@asynccontextmanager
async def limited_body(
    chunks: AsyncIterator[bytes], headers: dict[str, str], budget: BodyBudget
) -> AsyncGenerator[bytes]:
    """Hold the whole body, inflated, for the length of the `with` block.

    Raises:
        Problem: 413 past the limit, without reading further; 503 when too much is held;
            415 for a Content-Encoding other than gzip and identity; 400 for broken gzip.
    """
    limit = budget.max_body_bytes
    _refuse_announced(headers.get("content-length", ""), limit)
    inflate = _inflater(headers.get("content-encoding", ""))
    parts: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            for part in inflate(chunk, limit - size + 1):
                if size + len(part) > limit:
                    raise too_large(_limit_text(limit))
                budget.take(len(part))
                size += len(part)
                parts.append(part)
        yield b"".join(parts) if len(parts) != 1 else parts[0]
    finally:
        budget.give_back(size)


def _limit_text(limit: int) -> str:
    return f"The body is larger than max_json_body_bytes ({limit} bytes); send files by multipart."


def _refuse_announced(content_length: str, limit: int) -> None:
    if content_length.isdecimal() and len(content_length) < 20 and int(content_length) > limit:
        raise too_large(_limit_text(limit))


Inflate = Callable[[bytes, int], Iterable[bytes]]
"""Takes a piece and how much it may become; gives what it becomes, in steps."""


def _as_it_is(chunk: bytes, _room: int) -> Iterable[bytes]:
    return (chunk,)


def _inflater(encoding: str) -> Inflate:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return _as_it_is
    if encoding != "gzip":
        text = f"Content-Encoding {encoding[:40]!r} is not read here; send gzip or none."
        raise Problem(415, "unsupported_media_type", text)
    decoder = zlib.decompressobj(wbits=31)

    def inflate(chunk: bytes, room: int) -> Iterable[bytes]:
        # `room` bounds what one step may make of a bomb; one byte more than is allowed is enough.
        data = chunk
        while data and not decoder.eof:
            try:
                part = decoder.decompress(data, min(room, 1 << 20))
            except zlib.error as error:
                raise Problem(400, "malformed_json", "The body is not valid gzip.") from error
            data = decoder.unconsumed_tail
            room -= len(part)
            if part:
                yield part

    return inflate


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; send null")


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def decode_json(raw: bytes) -> Any:
    """Decode a JSON body, mending NUL, control characters, lone surrogates and stray bytes.

    Raises:
        Problem: 400 `malformed_json` for anything that is not JSON, NaN and infinities included, or
            is nested deeper than a parser can follow; 413 for one of too many values.
    """
    if len(raw) > _COUNTED_FROM_BYTES and _has_too_many_values(raw):
        raise too_large("The JSON holds too many values for one body; send fewer at a time.")
    try:
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # The strict and fast parser said no: one lenient look, so that a control character or
            # half a surrogate pair does not cost a message. Broken JSON still is an error.
            text = raw.decode("utf-8-sig", "replace")
            decoder = json.JSONDecoder(
                strict=False, parse_constant=_refuse_constant, parse_float=_parse_float
            )
            return mend_value(decoder.decode(text))
        return mend_value(value) if b"\\u0000" in raw else value
    except RecursionError as error:
        raise Problem(400, "malformed_json", "The JSON is nested too deep.") from error
    except ValueError as error:
        reason = str(error)[:200]
        raise Problem(400, "malformed_json", f"The body is not JSON: {reason}.") from error


def _has_too_many_values(raw: bytes) -> bool:
    # Counted in texts, too: to look closer would be to parse it.
    n_brackets = raw.count(b"[") + raw.count(b"{")
    return n_brackets > _MAX_BRACKETS or raw.count(b",") > _MAX_COMMAS


def convert_body(value: Any, kind: type[T]) -> T:
    """Check a decoded body against a struct.

    Raises:
        Problem: 400 naming the field that does not fit.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        place = path.rstrip("`").lstrip(".")
        missing = missing_field(message)
        if missing is not None and not place:
            raise required(missing) from error
        name = place.partition(".")[0].partition("[")[0] or "non_field_errors"
        text = message.replace("`", "'") + (f" at {place}" if place not in ("", name) else "")
        raise Problem(400, "invalid", fields={name: [text]}) from error


def missing_field(message: str) -> str | None:
    """Return the field that msgspec's message says is missing; None for other messages."""
    found = _MISSING.search(message)
    return None if found is None else found[1]


class JsonRequest(Request[Any, Any, Any]):
    """A request whose JSON body is read with our limits and mended.

    The bytes are not kept: a handler that takes `data` has the decoded value only. They count as
    held until the request ends, since their texts (a file in base64) live on in the value.
    """

    async def json(self) -> Any:
        """Read and decode the body; an empty one is an empty object."""
        budget: BodyBudget = self.app.state.body_budget
        headers = {name.lower(): value for name, value in self.headers.items()}
        chunks = receive_chunks(self.receive)
        async with limited_body(chunks, headers, budget) as raw:
            value: Any = decode_json(raw) if raw.strip() else {}
            budget.keep(self.scope, len(raw))
        return value

    async def body(self) -> bytes:
        """Stand in for the framework's unlimited reading; only `json` reads bodies."""
        return b" "
