"""The whole application in this process: a server's parts on a fresh database, and who calls it.

`open_house` makes a database's first set and starts the application's lifespan; a `Caller` speaks
HTTP to it as an ASGI server would, so that a test sees every message: what was pulled of a body,
and what was answered when. `House.people` makes a new set of tenants, so that tests may share one
house and still count their rows: Alice owns an agent, Bob's agent is in the same organisation,
Carol's is in another.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from agentsight.server.access import Access, job_access
from agentsight.server.accounts import store as accounts
from agentsight.server.agents import store as agents
from agentsight.server.agents.model import generate_key
from agentsight.server.agents.service import add_key, authenticate_key
from agentsight.server.app import create_app
from agentsight.server.attachments.links import Links
from agentsight.server.blobs.opening import open_store_of
from agentsight.server.db import Database, Tx, open_database, sql
from agentsight.server.ids import ClientId, new_uid
from agentsight.server.instance.ledger import ledger_key
from agentsight.server.instance.service import join_instance
from agentsight.server.instance.signing import signing_keys
from agentsight.server.parts import Parts
from agentsight.server.settings import Settings, load_settings

SECOND_US = 1_000_000
NOW_US = 1_790_000_000 * SECOND_US
"""2026-09-21T14:13:20Z: where every test's clock begins."""
BASE = "http://127.0.0.1:8000"
TABLES = (
    "conversations",
    "conversation_counts",
    "messages",
    "actions",
    "buttons",
    "usages",
    "blobs",
    "attachments",
    "feedbacks",
    "environments",
)
_numbers = itertools.count(1)


@dataclass
class TestClock:
    """The time, which only tests move."""

    __test__ = False
    now_us: int = NOW_US

    def __call__(self) -> int:
        return self.now_us

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.now_us += int(seconds * SECOND_US)


@dataclass
class Answer:
    """What came back. `n_pulled` is how many bytes of the body the application asked for."""

    status: int
    headers: dict[str, str]
    body: bytes
    n_pulled: int = 0
    n_body_messages: int = 0

    def json(self) -> Any:
        """Decode the body."""
        return json.loads(self.body)

    def is_error(self, status: int, code: str) -> bool:
        """Say whether this is that error, in the one shape all errors have."""
        shape = self.json()
        return (
            self.status == status
            and shape.get("code") == code
            and isinstance(shape.get("detail"), str)
            and bool(shape["detail"])
            and isinstance(shape.get("request_id"), str)
            and shape["request_id"] == self.headers["x-request-id"]
            and all(
                isinstance(v, list) and all(isinstance(t, str) for t in v)
                for k, v in shape.items()
                if k not in ("detail", "code", "request_id", "items")
            )
        )


@dataclass(frozen=True)
class Caller:
    """Somebody who calls an application with the same headers each time."""

    app: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        is_cut: bool = False,
        raw_path: bytes | None = None,
    ) -> Answer:
        """Send one request.

        Args:
            method: In capitals.
            url: A path with its query, or a whole address, percent-encoded.
            body: Whole, or in the pieces in which it arrives.
            headers: Besides the caller's own.
            is_cut: The connection ends after the body's last piece, before the request is whole.
            raw_path: The path as bytes, where `url` cannot say it.
        """
        parts = urlsplit(url)
        pieces = [body] if isinstance(body, bytes) else body
        exchange = _Exchange(iter(pieces), is_cut)
        sent = dict(self.headers) | {k.lower(): v for k, v in (headers or {}).items()}
        if isinstance(body, bytes) and body and "transfer-encoding" not in sent:
            sent.setdefault("content-length", str(len(body)))
        path = raw_path if raw_path is not None else parts.path.encode("latin-1")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": _unquote(path),
            "raw_path": path,
            "query_string": parts.query.encode("latin-1"),
            "root_path": "",
            "headers": [
                (b"host", b"127.0.0.1:8000"),
                *((k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in sent.items()),
            ],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
            "extensions": {},
        }
        await self.app(scope, exchange.receive, exchange.send)
        return exchange.answer()

    async def get(self, url: str, query: Mapping[str, Any] | None = None) -> Answer:
        """GET."""
        return await self.send("GET", f"{url}?{urlencode(query)}" if query else url)

    async def post(self, url: str, value: Any, *, method: str = "POST") -> Answer:
        """Send a value as JSON."""
        body = json.dumps(value).encode()
        return await self.send(method, url, body=body, headers=JSON)

    async def patch(self, url: str, value: Any) -> Answer:
        """Send a value as JSON by PATCH."""
        return await self.post(url, value, method="PATCH")

    async def form(
        self,
        url: str,
        parts: Sequence[tuple[str, str] | tuple[str, str, str, bytes]],
    ) -> Answer:
        """POST multipart/form-data: `(name, text)` or `(name, filename, content type, bytes)`."""
        body, content_type = encode_form(parts)
        return await self.send("POST", url, body=body, headers={"content-type": content_type})


JSON = {"content-type": "application/json"}


def _unquote(path: bytes) -> str:
    # As uvicorn: bytes that are not UTF-8 in a path are its `decode("ascii")` of the raw path.
    from urllib.parse import unquote

    return unquote(path.decode("latin-1"))


class _Exchange:
    """The two ends of one request's ASGI channel."""

    def __init__(self, pieces: Iterator[bytes], is_cut: bool) -> None:
        self._pieces = pieces
        self._is_cut = is_cut
        self._is_ended = False
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._n_body_messages = 0
        self._is_complete = False
        self._ended = asyncio.Event()
        self.n_pulled = 0

    async def receive(self) -> dict[str, Any]:
        if self._is_ended and not self._is_cut:
            await self._ended.wait()  # the caller stays until it has its answer
        if self._is_complete or self._is_ended:
            return {"type": "http.disconnect"}
        for piece in self._pieces:
            self.n_pulled += len(piece)
            return {"type": "http.request", "body": piece, "more_body": True}
        self._is_ended = True
        if self._is_cut:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert self._status == 0, "an answer began twice"
            self._status = message["status"]
            self._headers = {
                k.decode("latin-1").lower(): v.decode("latin-1") for k, v in message["headers"]
            }
            return
        assert message["type"] == "http.response.body", message["type"]
        assert self._status, "a body without a beginning"
        assert not self._is_complete, "a body after its end"
        self._body.append(bytes(message.get("body", b"")))
        self._n_body_messages += 1
        self._is_complete = not message.get("more_body", False)
        if self._is_complete:
            self._ended.set()

    def answer(self) -> Answer:
        assert self._is_complete, "the application ended without an answer"
        body = b"".join(self._body)
        return Answer(self._status, self._headers, body, self.n_pulled, self._n_body_messages)


def encode_form(
    parts: Sequence[tuple[str, str] | tuple[str, str, str, bytes]], boundary: str = "limit-7MA4YWxk"
) -> tuple[bytes, str]:
    """Encode a form as urllib3 2 does: raw UTF-8 in names, no Content-Type on plain fields."""
    lines: list[bytes] = []
    for part in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part[0]}"'
        if len(part) == 2:
            lines += [f"{head}\r\n\r\n".encode(), part[1].encode("utf-8", "surrogatepass")]
        else:
            escaped = part[1].replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
            head += f'; filename="{escaped}"\r\nContent-Type: {part[2]}\r\n\r\n'
            lines += [head.encode("utf-8", "surrogatepass"), part[3]]
        lines.append(b"\r\n")
    lines.append(f"--{boundary}--\r\n".encode())
    return b"".join(lines), f"multipart/form-data; boundary={boundary}"


@dataclass(frozen=True)
class Person:
    """A tenant's agent, and its two keys' callers. `access` is what its write key is granted."""

    slug: str
    access: Access
    write_key: str
    read_key: str
    writer: Caller
    reader: Caller

    # The writer's verbs, which most tests use.

    async def get(self, url: str, query: Mapping[str, Any] | None = None) -> Answer:
        """GET with the write key."""
        return await self.writer.get(url, query)

    async def post(self, url: str, value: Any) -> Answer:
        """POST JSON with the write key."""
        return await self.writer.post(url, value)

    async def conversation(self, conversation_id: str = "c", **fields: Any) -> int:
        """Open a conversation and return its row id."""
        body = {"conversation_id": conversation_id} | fields
        answer = await self.post("/api/conversations/", body)
        assert answer.status in (200, 201), answer.body
        return answer.json()["id"]

    async def message(self, pk: int, content: str = "hi", **fields: Any) -> int:
        """Store a message and return its row id."""
        body = {"conversation": pk, "content": content} | fields
        answer = await self.post("/api/track/", body)
        assert answer.status in (200, 201), answer.body
        return answer.json()["id"]

    async def transcript(self, pk: int) -> list[dict[str, Any]]:
        """Read a conversation's messages."""
        answer = await self.get(f"/api/conversations/{pk}/")
        assert answer.status == 200, answer.body
        return answer.json()["messages"]

    async def files(self, pk: int) -> dict[str, Any]:
        """Make the one call."""
        answer = await self.get(f"/api/conversations/{pk}/attachments/")
        assert answer.status == 200, answer.body
        return answer.json()


def base64_file(
    data: bytes = b"hello", filename: str | None = "a.txt", **fields: Any
) -> dict[str, Any]:
    """Make a file as it stands in a JSON body."""
    return {"filename": filename, "data": base64.b64encode(data).decode()} | fields


@dataclass(frozen=True)
class People:
    """Three agents: two of one organisation, one of another."""

    alice: Person
    bob: Person
    carol: Person
    organisation: Access


@dataclass
class House:
    """A running application with its parts, for white-box looks.

    `parts` shares database and store with the application.
    """

    app: Any
    parts: Parts
    clock: TestClock

    @property
    def db(self) -> Database:
        """The application's database."""
        return self.parts.db

    @property
    def stranger(self) -> Caller:
        """Somebody without a key."""
        return Caller(self.app)

    def caller(self, key: str) -> Caller:
        """Somebody with that key."""
        return Caller(self.app, {"authorization": f"Api-Key {key}"})

    async def people(self) -> People:
        """Make Alice, Bob and Carol anew, in one unit of work: most tests begin with it."""
        n, now = next(_numbers), self.clock()

        async def unit(tx: Tx) -> tuple[Access, list[_NewPerson]]:
            ours = await _organisation(tx, f"alice-org-{n}", now)
            theirs = await _organisation(tx, f"carol-org-{n}", now)
            bakery = await _client(tx, ours, f"bakery-{n}", now)
            spies = await _client(tx, theirs, f"spies-{n}", now)
            return ours, [
                await _agent(tx, ours, bakery, f"alice-{n}", now),
                await _agent(tx, ours, bakery, f"bob-{n}", now),
                await _agent(tx, theirs, spies, f"carol-{n}", now),
            ]

        ours, made = await self.db.write(unit)
        alice, bob, carol = [await self._person(*person) for person in made]
        return People(alice, bob, carol, ours)

    async def _person(self, slug: str, write: str, read: str) -> Person:
        granted = await authenticate_key(self.db, write, self.clock())
        assert granted is not None
        return Person(slug, granted, write, read, self.caller(write), self.caller(read))

    async def counts(self) -> dict[str, int]:
        """Count the rows of every table that requests write to."""
        return {table: await self.count(table) for table in TABLES}

    async def count(self, table: str, where: str = "1 = 1", *args: Any) -> int:
        """Count a table's rows."""
        statement = sql(f"SELECT count(*) FROM {table} WHERE {where}")
        return await self.db.read(lambda tx: tx.value(statement, *args), slow=True)

    async def rows(self, text: str, *args: Any) -> list[tuple[Any, ...]]:
        """Read rows by a statement of the test's own."""
        statement = sql(text)
        return await self.db.read(lambda tx: tx.rows(statement, *args), slow=True)

    async def run(self, text: str, *args: Any) -> int:
        """Change rows by a statement of the test's own."""
        statement = sql(text)
        return await self.db.write(lambda tx: tx.execute(statement, *args))

    def objects(self) -> set[str]:
        """Return the keys of all objects of files in the store, half-written ones too.

        Those of unfinished uploads (`unfinished_uploads`) last, and expire beside other tests.
        """
        return {key for key in self._files() if not key.startswith("tmp/parts-")}

    def unfinished_uploads(self) -> set[str]:
        """Return the files that hold the bytes of unfinished uploads."""
        return {key for key in self._files() if key.startswith("tmp/parts-")}

    def _files(self) -> set[str]:
        root = Path(urlsplit(self.parts.settings.storage_url).path)
        return {
            str(path.relative_to(root))
            for path in root.rglob("*")
            if path.is_file() and not path.name.startswith("agentsight-")
        }


_NewPerson = tuple[str, str, str]
"""An agent's slug, its write key and its read key."""


async def _organisation(tx: Tx, slug: str, now: int) -> Access:
    return job_access(
        await accounts.insert_organisation(tx, uid=new_uid(now), slug=slug, name=slug, now_us=now)
    )


async def _client(tx: Tx, access: Access, slug: str, now: int) -> ClientId:
    return await accounts.insert_client(
        tx, access, uid=new_uid(now), slug=slug, name=slug, now_us=now
    )


async def _agent(tx: Tx, access: Access, client: ClientId, slug: str, now: int) -> _NewPerson:
    agent_id = await agents.insert_agent(
        tx, access, client_id=client, slug=slug, name=slug, uid=new_uid(now), now_us=now
    )
    write, read = generate_key(), generate_key()
    await add_key(tx, access, agent_id, write, "write", now_us=now)
    await add_key(tx, access, agent_id, read, "read", now_us=now)
    return slug, write, read


def make_settings(database_url: str, data_dir: Path, **changes: Any) -> Settings:
    """Make settings for a scratch directory; `changes` are checked values by name.

    Files are examined only where a test says `examine=True`: it takes a process of its own.
    """
    environ = {"AGENTSIGHT_DATA_DIR": str(data_dir), "AGENTSIGHT_DATABASE_URL": database_url}
    return msgspec.structs.replace(load_settings(environ), **{"examine": False} | changes)


@contextlib.asynccontextmanager
async def open_parts(settings: Settings, clock: TestClock) -> AsyncIterator[Parts]:
    """Open the parts of a server process without its application: nothing runs beside the test."""
    if settings.storage_url.startswith("file:"):
        Path(urlsplit(settings.storage_url).path).mkdir(parents=True, exist_ok=True)
    db = await open_database(settings.database_url)
    blobs = open_store_of(settings)
    try:
        await join_instance(db, blobs, now_us=clock())
        keys = await signing_keys(db, settings.secret_key, now_us=clock())
        links = Links(keys, lifetime_s=settings.link_lifetime_days * 86400)
        ledger = await ledger_key(db, now_us=clock())
        yield Parts(settings, db, blobs, links, clock, ledger=ledger)
    finally:
        await blobs.close()
        await db.close()


@contextlib.asynccontextmanager
async def open_house(
    database_url: str, data_dir: Path, clock: TestClock | None = None, **changes: Any
) -> AsyncIterator[House]:
    """Run the application on a database that has its schema; `changes` are settings."""
    clock = clock or TestClock()
    settings = make_settings(database_url, data_dir, **changes)
    async with open_parts(settings, clock):
        pass
    app = create_app(settings, clock=clock)
    async with _lifespan(app):
        yield House(app, app.app.state.parts, clock)


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    """Run an application's lifespan as an ASGI server does."""
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    started = await from_app.get()
    assert started["type"] == "lifespan.startup.complete", started
    try:
        yield
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        ended = await from_app.get()
        await running
        assert ended["type"] == "lifespan.shutdown.complete", ended


def with_headers(caller: Caller, **headers: str) -> Caller:
    """Return the caller with more headers; `_` in a name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(caller, headers=dict(caller.headers) | named)


def path_of(url: str) -> str:
    """Return the path and query of a whole address."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def quoted(text: str) -> str:
    """Percent-encode everything in a path segment."""
    return quote(text, safe="")


def without_request_id(answer: Answer) -> dict[str, Any]:
    """Return an answer's body without the one thing in which two refusals may differ."""
    body = answer.json()
    body.pop("request_id")
    return body
