"""A process that is killed between two steps of a file's life leaves nothing that stays wrong.

Each round sends a file in two pieces, refers to it, sends it once more in a batch with another,
asks for its preview, and erases a file and the conversation. The server dies at one step of that:
before or after a write of the database or a change of the store (`tests/support/dying.py`). Then
`fsck` finds no row without its bytes, and mends the rest; the server starts, and finishes what it
had begun to remove; and the client, who sends all of it again, has each thing once.
`make test` dies where something is left behind, `make soak` at each step there is.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentsight import _contract as contract
from agentsight.server.fsck.model import Options, Report
from agentsight.server.fsck.service import check_instance_files
from agentsight.server.opening import open_parts
from agentsight.server.settings import load_settings
from tests.journeys.dialogues import FILES
from tests.journeys.test_object_storage import wait_until
from tests.journeys.test_uploads import send as send_piece
from tests.support.crashing import CrashingServer
from tests.support.postgres import TestDatabases
from tests.support.seaweed import Seaweed
from tests.support.server import Agent, open_link
from tests.support.soak import only_in_soak

PICTURE = (FILES / "sample.png").read_bytes()
MENDED = {"orphan_object", "missing_copy", "unfinished_removal"}
"""What a crash may leave, and fsck mends."""
AT = "2026-01-01T00:00:00Z"


class Round:
    """One round of a client, which may be played again: with the same keys and the same bytes."""

    def __init__(self, server: CrashingServer, agent: Agent, name: str) -> None:
        self._server, self._agent, self.name = server, agent, name
        self._picture = PICTURE + name.encode()
        self._note = f"a note of {name}".encode()

    def play(self) -> None:
        """Do all of it, and check what the client sees on the way."""
        first = self._item("1", {"upload": self._upload(), "item_key": f"{self.name}-f1"})
        self._send(first)
        files = [("again.png", self._picture), ("note.txt", self._note)]
        second = self._item("2", *(self._file(n, *file) for n, file in enumerate(files, 2)))
        self._send(second)
        rows = self._files()
        if rows:  # else the conversation was erased before the crash
            names = [row["filename"] for row in rows]
            assert names in (["first.png", "again.png", "note.txt"], ["first.png", "again.png"])
            assert self._n_messages() == 2
            for row in rows:
                is_note = row["filename"] == "note.txt"
                assert open_link(row["file_url"]).body == (self._note if is_note else self._picture)
            preview = open_link(rows[0]["file_url"].rpartition("/")[0] + "/preview/512.webp")
            assert preview.status == 200, preview
            for row in rows[2:]:
                self._erase(f"{contract.FILES_PATH}{row['uid']}/")
        self._erase(f"{contract.V1_CONVERSATIONS_PATH}by-id/{self.name}/")
        assert self._files() == []

    def _upload(self) -> str:
        sha256 = hashlib.sha256(self._picture).hexdigest()
        body = {"filename": "first.png", "size_bytes": len(self._picture), "sha256": sha256}
        made = self._post(contract.UPLOADS_PATH, body)
        half = len(self._picture) // 2
        if made["state"] == "pending":
            for start, end in ((made["offset"], half), (half, None)):
                piece = self._picture[start:end]
                if piece:
                    there = max(start, made["offset"])
                    sent = send_piece(self._server, self._agent, made["upload_url"], there, piece)
                    assert sent.status == 204, sent
        return str(made["uid"])

    def _file(self, number: int, filename: str, data: bytes) -> dict[str, str]:
        coded = base64.b64encode(data).decode()
        return {"filename": filename, "data": coded, "item_key": f"{self.name}-f{number}"}

    def _item(self, key: str, *files: dict[str, str]) -> dict[str, Any]:
        item = {"type": "message", "sender": "end_user", "content": f"{self.name} {key}"}
        return {**item, "timestamp": AT, "item_key": f"{self.name}-{key}", "attachments": files}

    def _send(self, item: dict[str, Any]) -> None:
        self._post(
            contract.BATCH_PATH, {"conversation": {"conversation_id": self.name}, "items": [item]}
        )

    def _files(self) -> list[Any]:
        path = f"{contract.FILES_PATH}?conversation_id={self.name}&ordering=id"
        return list(self._server.get_json(path, key=self._agent.read_key)["results"])

    def _n_messages(self) -> int:
        path = f"{contract.LOOKUP_PATH}?conversation_id={self.name}"
        found = self._server.get_json(path, key=self._agent.read_key)
        path = f"{contract.CONVERSATIONS_PATH}{found['id']}/"
        return len(self._server.get_json(path, key=self._agent.read_key)["messages"])

    def _erase(self, path: str) -> None:
        answer = self._server.ask("DELETE", f"{path}?erase=true", key=self._agent.write_key)
        assert answer.status in (200, 404), answer

    def _post(self, path: str, body: object) -> Any:
        answer = self._server.post_json(path, body, key=self._agent.write_key)
        assert answer.status in (200, 201), answer
        return answer.json


@dataclass
class Place:
    """A server that dies on request, and how its own `fsck` reaches what it keeps."""

    server: CrashingServer
    settings: Mapping[str, str]

    def check(self, options: Options) -> Report:
        """Run fsck, as the command does, while no server runs."""

        async def work() -> Report:
            async with open_parts(load_settings(self.settings)) as parts:
                return await check_instance_files(parts, options, now_us=time.time_ns() // 1000)

        return asyncio.run(work())


StartPlace = Callable[[str, str], Place]


@pytest.fixture
def start_place(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StartPlace]:
    """Start one server on a fresh database and a fresh store of the kinds that a test names."""
    with ExitStack() as stack:

        def start(dialect: str, store: str) -> Place:
            environ: dict[str, str] = {}
            url: str | None = None
            if store == "s3":
                seaweed: Seaweed = request.getfixturevalue("seaweed")
                environ = {"AGENTSIGHT_STORAGE_URL": seaweed.new_url(), **seaweed.environ}
                for name, value in seaweed.environ.items():
                    monkeypatch.setenv(name, value)
            if dialect == "postgresql":
                databases: TestDatabases = request.getfixturevalue("postgres_databases")
                url = databases.create_empty(f"points_{tmp_path.name}")
                stack.callback(databases.drop, url)
            server = CrashingServer(tmp_path, url, settings=environ)
            stack.callback(lambda: print(server.log_since(0)))
            stack.enter_context(server)
            own = {"DATA_DIR": str(server.data_dir), "DATABASE_URL": server.database_url}
            return Place(server, environ | {f"AGENTSIGHT_{k}": v for k, v in own.items()})

        yield start


def crash_and_heal(place: Place, agent: Agent, nth: int, name: str = "") -> bool:
    """Play a round that dies, mend what is left, and play it again.

    Says whether it died: a round that has no such step is whole.
    """
    server, played = place.server, Round(place.server, agent, f"{name.split('.')[-1]}-{nth}")
    server.crash_at(name, nth)
    with contextlib.suppress(OSError, http.client.HTTPException):  # the death
        played.play()
    steps = server.crash_no_more()
    server.kill()
    left = place.check(Options(is_repairing=True, min_age_s=0))
    assert set(left.faults) <= MENDED, (steps[-1:], left)
    assert place.check(Options(min_age_s=0)).faults == {}, steps[-1:]
    server.start()
    played.play()
    wait_until(lambda: place.check(Options(min_age_s=0)).faults == {})
    assert place.check(Options(is_reading=True, min_age_s=0)).faults == {}
    return sum(name in step for step in steps) == nth


POINTS = [
    ("after LocalPartsWriter.pause", 1),  # some bytes of an upload, told to nobody
    ("after LocalPartsWriter.finish", 1),  # all of its bytes, and no blob
    ("after ingest.service._write.run", 2),  # a duplicate's second object
    ("after LocalWriter.finish", 2),  # two objects of a batch, and no row
    ("before previews.service._keep", 1),  # a preview that no row names
    ("after removals.service.erase_attachment", 1),  # hidden, marked, and there
    ("before removals.service_work.remove_object", 1),  # a row whose object is gone
    ("after removals.service.erase_conversation", 1),
]
"""Steps that leave something behind, each of its own kind; on S3 `Local` is `S3` in their names."""


@pytest.mark.parametrize(
    ("dialect", "store", "points"),
    [
        pytest.param("sqlite", "Local", [POINTS[n] for n in (0, 1, 2, 4, 6, 7)], id="sqlite"),
        pytest.param("postgresql", "Local", [POINTS[n] for n in (3, 5)], id="postgresql"),
        pytest.param("sqlite", "S3", [POINTS[n] for n in (0, 6)], id="s3"),
    ],
)
def test_what_a_crash_leaves_is_mended(
    start_place: StartPlace, dialect: str, store: str, points: list[tuple[str, int]]
) -> None:
    """No row is without its bytes, the rest is mended, and what is sent again is there once."""
    place = start_place(dialect, store.lower())
    agent = place.server.make_agent()
    for name, nth in points:
        assert crash_and_heal(place, agent, nth, name.replace("Local", store)), name


@only_in_soak
@pytest.mark.parametrize(
    ("dialect", "store"),
    [("sqlite", "local"), ("postgresql", "local"), ("sqlite", "s3")],
    ids=["sqlite", "postgresql", "s3"],
)
def test_a_crash_at_every_step_is_mended(start_place: StartPlace, dialect: str, store: str) -> None:
    """The same at each step there is, one after the other."""
    place = start_place(dialect, store)
    agent = place.server.make_agent()
    nth = 1
    while crash_and_heal(place, agent, nth):
        nth += 1
    assert nth > 60
