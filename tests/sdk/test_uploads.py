"""Files that are not tiny are uploaded before their message: resumed, repeated, never doubled.

The scripted server keeps uploads as the real one promises; what the real one does is tested in
`tests/journeys`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentsight import ConversationTracker
from agentsight._contract import INLINE_FILE_BYTES
from agentsight._files import read_attachments
from agentsight._flow import Meter
from agentsight._uploads import Rest
from tests.sdk.conftest import World
from tests.sdk.support import CUT, Answer, ScriptServer, Seen, store_all

LARGE = bytes(range(256)) * 1024
"""256 KiB: more than what goes inline."""
MakeTracker = Callable[..., ConversationTracker]


class Shelf:
    """Keeps uploads in memory; `faults` are asked first, one for each PATCH."""

    def __init__(self) -> None:
        self.data_by_uid: dict[str, bytes] = {}
        self.said_by_uid: dict[str, dict[str, Any]] = {}
        self.faults: list[Callable[[str, Seen], Answer | None]] = []
        self.batch: Callable[[Seen], Answer] = store_all
        self._numbers = itertools.count(1)

    def __call__(self, seen: Seen) -> Answer:
        if seen.path == "/api/v1/uploads/":
            return self._create(seen.json)
        if not seen.path.startswith("/api/v1/uploads/"):
            return self.batch(seen)
        uid = seen.path.split("/")[4]
        if uid not in self.data_by_uid:
            return refusal(404, "not_found")
        if seen.method == "PATCH":
            fault = self.faults.pop(0) if self.faults else None
            answer = None if fault is None else fault(uid, seen)
            return answer or self.append(uid, seen, seen.body)
        return Answer(200, headers=(self._offset(uid),))

    def append(self, uid: str, seen: Seen, body: bytes) -> Answer:
        """Take bytes, and verify the whole where it is there."""
        if int(seen.headers["upload-offset"]) != len(self.data_by_uid[uid]):
            return refusal(409, "upload_conflict")
        self.data_by_uid[uid] += body
        said = self.said_by_uid[uid]
        is_whole = len(self.data_by_uid[uid]) == said["size_bytes"]
        if is_whole and hashlib.sha256(self.data_by_uid[uid]).hexdigest() != said["sha256"]:
            del self.data_by_uid[uid]
            return refusal(400, "hash_mismatch")
        return Answer(204, headers=(self._offset(uid),))

    def cut_after(self, n_bytes: int) -> Callable[[str, Seen], Answer]:
        """Return a fault: so many bytes arrive, then the connection is gone."""

        def fault(uid: str, seen: Seen) -> Answer:
            self.append(uid, seen, seen.body[:n_bytes])
            return CUT

        return fault

    def _create(self, said: dict[str, Any]) -> Answer:
        for uid, data in self.data_by_uid.items():
            if hashlib.sha256(data).hexdigest() == said["sha256"]:
                return Answer(200, {"uid": uid, "state": "stored", "offset": len(data)})
        uid = f"upload-{next(self._numbers)}"
        self.data_by_uid[uid], self.said_by_uid[uid] = b"", said
        return Answer(201, {"uid": uid, "state": "pending", "offset": 0})

    def _offset(self, uid: str) -> tuple[str, str]:
        return "Upload-Offset", str(len(self.data_by_uid[uid]))


def refusal(status: int, code: str, **more: Any) -> Answer:
    return Answer(status, {"detail": f"it is {code}", "code": code, **more})


def refuse_files_once(code: str, status: int, *, times: int = 1) -> Callable[[Seen], Answer]:
    """Return a batch's script that refuses the items with files so often."""
    left = itertools.chain([True] * times, itertools.repeat(False))

    def script(seen: Seen) -> Answer:
        items = seen.json["items"]
        bad = [
            {"index": i, "item_key": item["item_key"], "code": code, "detail": "no"}
            for i, item in enumerate(items)
            if item.get("attachments")
        ]
        return refusal(status, code, items=bad) if bad and next(left) else store_all(seen)

    return script


@pytest.fixture
def shelf(server: ScriptServer) -> Shelf:
    server.script = shelf = Shelf()
    return shelf


def methods(server: ScriptServer) -> list[str]:
    """Return what was asked, in short."""
    return [f"{s.method} {s.path.split('/')[3]}" for s in server.seen]


def test_large_files_are_uploaded_and_referred_to_and_tiny_ones_go_inline(
    tracker: ConversationTracker, server: ScriptServer, shelf: Shelf
) -> None:
    """One batch applies all, and holds no large bytes."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message(
        "see",
        [
            {"data": LARGE, "filename": "a.bin", "mime_type": "application/x"},
            {"data": b"x" * INLINE_FILE_BYTES, "filename": "b.txt"},
            {"data": LARGE, "filename": "c.bin"},
        ],
    )
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert methods(server) == ["POST uploads", "PATCH uploads", "POST uploads", "POST batch"]
    assert server.seen[0].json == {
        "filename": "a.bin",
        "mime_type": "application/x",
        "sha256": hashlib.sha256(LARGE).hexdigest(),
        "size_bytes": len(LARGE),
    }
    assert server.seen[1].headers["content-type"] == "application/offset+octet-stream"
    assert server.seen[1].headers["tus-resumable"] == "1.0.0"
    first, second, third = server.seen[-1].json["items"][0]["attachments"]
    assert first["upload"] == third["upload"] == "upload-1"  # the same bytes go once
    assert "part" not in first
    assert second["part"] in [part[0] for part in server.seen[-1].parts]
    assert shelf.data_by_uid == {"upload-1": LARGE}


@pytest.mark.parametrize("kind", ["bytes", "path", "open file", "seekable", "pipe"])
def test_every_kind_of_file_can_be_taken_up_again(
    tracker: ConversationTracker, shelf: Shelf, kind: str, tmp_path: Path
) -> None:
    """Whatever was given is read from where the connection was cut."""
    path = tmp_path / "a.bin"
    path.write_bytes(LARGE)
    tracker.get_or_create_conversation("c")
    with path.open("rb") as opened:
        files: dict[str, Any] = {
            "bytes": LARGE,
            "path": path,
            "open file": opened,
            "seekable": gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(LARGE))),
            "pipe": _Pipe(LARGE),
        }
        tracker.track_attachments([{"data": files[kind], "filename": "a.bin"}])
        shelf.faults = [shelf.cut_after(100_000), shelf.cut_after(7), shelf.cut_after(0)]
        assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert shelf.data_by_uid == {"upload-1": LARGE}


class _Pipe:
    """Cannot seek."""

    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read

    def seekable(self) -> bool:
        return False


def test_an_upload_that_never_comes_further_is_given_up_and_taken_up_by_the_next_send(
    tracker: ConversationTracker, server: ScriptServer, shelf: Shelf, world: World
) -> None:
    """Attempts are bounded, and what has arrived is not sent again."""
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("see", [{"data": LARGE, "filename": "a.bin"}])
    shelf.faults = [shelf.cut_after(50_000)] + [shelf.cut_after(0)] * 10
    failed = tracker.send_tracked_data()
    assert failed["summary"]["errors"] == 2
    assert tracker.n_waiting == 2
    assert methods(server).count("PATCH uploads") == 5
    shelf.faults.clear()
    server.seen.clear()
    world.now += 60
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert methods(server) == ["HEAD uploads", "PATCH uploads", "POST batch"]
    assert server.seen[1].headers["upload-offset"] == "50000"


def test_time_in_which_bytes_move_is_not_taken_from_the_budget(
    tracker: ConversationTracker, shelf: Shelf, world: World
) -> None:
    """A cut near the end of a long upload is as worth repeating as one at its beginning."""

    def slow(uid: str, seen: Seen) -> Answer:
        world.now += 600
        return shelf.cut_after(60_000)(uid, seen)

    tracker.get_or_create_conversation("c")
    tracker.track_attachments([{"data": LARGE, "filename": "a.bin"}])
    shelf.faults = [slow, slow, lambda *_: refusal(503, "busy"), slow]
    assert tracker.send_tracked_data()["summary"]["errors"] == 0


@pytest.mark.parametrize(("code", "status"), [("upload_expired", 410), ("upload_pending", 409)])
def test_what_the_server_has_forgotten_is_uploaded_again_and_the_batch_sent_again(
    tracker: ConversationTracker, server: ScriptServer, shelf: Shelf, code: str, status: int
) -> None:
    """It was there when it was uploaded, and is not when the message comes."""
    shelf.batch = refuse_files_once(code, status)
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("one")
    tracker.track_human_message("two", [{"data": LARGE, "filename": "a.bin"}])
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert methods(server)[-3:] == ["POST batch", "POST uploads", "POST batch"]
    assert tracker.n_waiting == 0


def test_an_item_whose_upload_expires_again_and_again_waits_and_holds_up_nothing(
    tracker: ConversationTracker, shelf: Shelf, world: World
) -> None:
    """It is never set aside for that reason."""
    shelf.batch = refuse_files_once("upload_expired", 410, times=2)
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("one", [{"data": LARGE, "filename": "a.bin"}])
    tracker.track_human_message("two")
    report = tracker.send_tracked_data()
    assert [item["success"] for item in report["items"]] == [True, False, True]
    assert tracker.n_waiting == 1
    assert tracker.send_tracked_data()["summary"]["errors"] == 0


def test_a_file_that_changes_while_it_is_sent_is_hashed_and_sent_again(
    tracker: ConversationTracker, shelf: Shelf, tmp_path: Path
) -> None:
    """What is stored is what the file was at one moment."""
    path = tmp_path / "a.bin"
    path.write_bytes(LARGE)

    def change(uid: str, seen: Seen) -> Answer:
        path.write_bytes(LARGE[::-1])
        return shelf.append(uid, seen, LARGE[::-1])

    shelf.faults = [change]
    tracker.get_or_create_conversation("c")
    tracker.track_attachments([path])
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert list(shelf.data_by_uid.values()) == [LARGE[::-1]]


def test_a_file_that_never_holds_still_is_left_out_and_its_message_goes(
    tracker: ConversationTracker, shelf: Shelf
) -> None:
    """Twice is enough."""

    def other(uid: str, seen: Seen) -> Answer:
        return shelf.append(uid, seen, b"x" * len(seen.body))

    shelf.faults = [other, other]
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi", [{"data": LARGE, "filename": "a.bin"}])
    report = tracker.send_tracked_data()
    assert report["items"][1]["success"] is True
    [lost] = report["items"][1]["attachments_failed"]
    assert lost == {"filename": "a.bin", "error": "it changed while it was sent, twice"}


def test_a_growing_file_is_sent_as_long_as_it_was(
    tracker: ConversationTracker, shelf: Shelf, tmp_path: Path
) -> None:
    """A log that is being written is no file that changes."""
    path = tmp_path / "a.log"
    path.write_bytes(LARGE)

    def grow(_uid: str, _seen: Seen) -> None:
        with path.open("ab") as log:
            log.write(b"more")

    shelf.faults = [grow]
    tracker.get_or_create_conversation("c")
    tracker.track_attachments([path])
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert shelf.data_by_uid == {"upload-1": LARGE}


@pytest.mark.parametrize(
    ("status", "code"),
    [(413, "too_large"), (507, "storage_limit"), (403, "quarantined"), (400, "invalid")],
)
def test_a_file_the_server_never_takes_is_left_out_and_its_message_goes(
    tracker: ConversationTracker,
    server: ScriptServer,
    shelf: Shelf,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A limit of files must not cost the words around them."""

    def script(seen: Seen) -> Answer:
        return refusal(status, code) if "uploads" in seen.path else shelf(seen)

    server.script = script
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi", [{"data": LARGE, "filename": "a.bin"}])
    tracker.track_attachments([{"data": LARGE, "filename": "b.bin"}])
    with caplog.at_level(logging.ERROR, "agentsight"):
        report = tracker.send_tracked_data()
    size = f": it has {len(LARGE)} bytes" if status == 413 else ""
    assert report["items"][1]["attachments_failed"] == [
        {"filename": "a.bin", "error": f"it is {code}{size}"}
    ]
    assert (
        f"none of its files can be sent: b.bin: it is {code}{size}" == report["items"][2]["error"]
    )
    assert tracker.n_waiting == 0
    assert "a file cannot be sent and was left out" in caplog.text


def test_a_limit_that_the_batch_meets_costs_the_files_and_not_the_message(
    tracker: ConversationTracker, shelf: Shelf
) -> None:
    """A conversation that is full of files goes on in words."""
    shelf.batch = refuse_files_once("storage_limit", 507, times=9)
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("one", [{"data": b"tiny", "filename": "a.txt"}])
    tracker.track_human_message("two")
    report = tracker.send_tracked_data()
    assert [item["success"] for item in report["items"]] == [True, True, True]
    assert report["items"][1]["attachments_failed"][0]["filename"] == "a.txt"


@pytest.mark.parametrize(("status", "code"), [(503, "storage_unavailable"), (503, "storage_full")])
def test_where_the_store_is_away_everything_waits(
    tracker: ConversationTracker, server: ScriptServer, shelf: Shelf, status: int, code: str
) -> None:
    """The message keeps its files."""

    def script(seen: Seen) -> Answer:
        return refusal(status, code) if "uploads" in seen.path else shelf(seen)

    server.script = script
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi", [{"data": LARGE, "filename": "a.bin"}])
    assert tracker.send_tracked_data()["summary"]["errors"] == 2
    assert tracker.n_waiting == 2
    server.script = shelf
    assert tracker.flush()["c"]["summary"]["errors"] == 0


def test_a_wrong_key_keeps_everything_and_says_so(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """No file is the worse for it."""
    server.script = lambda _: refusal(403, "permission_denied")
    tracker.get_or_create_conversation("c")
    tracker.track_human_message("hi", [{"data": LARGE, "filename": "a.bin"}])
    report = tracker.send_tracked_data()
    assert "permission_denied" in report["items"][1]["error"]
    assert tracker.n_waiting == 2


def test_a_proxy_that_refuses_large_bodies_gets_smaller_pieces(
    tracker: ConversationTracker, server: ScriptServer, shelf: Shelf
) -> None:
    """nginx as it is installed takes 1 MiB."""
    data = LARGE * 5

    def script(seen: Seen) -> Answer:
        if len(seen.body) > 1024 * 1024:
            return Answer(413, b"<html>413 Request Entity Too Large</html>")
        return shelf(seen)

    server.script = script
    tracker.get_or_create_conversation("c")
    tracker.track_attachments([{"data": data, "filename": "a.bin"}])
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert shelf.data_by_uid == {"upload-1": data}


def test_a_server_without_uploads_gets_files_as_parts(
    tracker: ConversationTracker, server: ScriptServer
) -> None:
    """A client may be newer than its server."""
    server.script = lambda seen: (
        refusal(404, "not_found") if "uploads" in seen.path else store_all(seen)
    )
    tracker.get_or_create_conversation("c")
    tracker.track_attachments([{"data": LARGE, "filename": "a.bin"}] * 2)
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert methods(server) == ["POST uploads", "POST batch"]
    assert [part[2] for part in server.seen[-1].parts[1:]] == [LARGE] * 2


def test_a_crash_after_the_upload_costs_no_second_one(
    make_tracker: MakeTracker, server: ScriptServer, shelf: Shelf, tmp_path: Path
) -> None:
    """The next process finds the items in the spool, and the server the bytes by their hash."""
    first = make_tracker(spool_dir=str(tmp_path / "spool"))
    first.get_or_create_conversation("c")
    first.track_attachments([{"data": LARGE, "filename": "a.bin"}])
    shelf.batch = lambda _: Answer(500, {"detail": "no", "code": "internal_error"})
    first.send_tracked_data()
    first._outbox.spool._journal.abandon()  # type: ignore[union-attr] - as the process's end does
    first._outbox._spool = None
    shelf.batch = store_all
    server.seen.clear()
    second = make_tracker(spool_dir=str(tmp_path / "spool"))
    assert second.flush()["c"]["summary"]["errors"] == 0
    assert methods(server) == ["POST uploads", "POST batch"]


def test_a_large_file_is_never_held_whole(
    tmp_path: Path,
) -> None:
    """A sparse gigabyte is read in chunks, from where it is taken up."""
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(1024**3)
    [file] = read_attachments([path], "form_data")
    body = Rest(file, 1024**3 - 10**6, 10**6, Meter())
    sizes = [len(chunk) for chunk in body.chunks()]
    assert max(sizes) <= 1024 * 1024
    assert sum(sizes) == body.n_bytes() == 10**6


def test_a_proxy_s_page_about_an_error_is_an_error_that_passes(
    tracker: ConversationTracker, server: ScriptServer, shelf: Shelf
) -> None:
    """It is asked where the upload stands, and goes on."""
    shelf.faults = [lambda *_: Answer(502, b"<html>bad gateway</html>")]
    tracker.get_or_create_conversation("c")
    tracker.track_attachments([{"data": LARGE, "filename": "a.bin"}])
    assert tracker.send_tracked_data()["summary"]["errors"] == 0
    assert methods(server)[-3:] == ["HEAD uploads", "PATCH uploads", "POST batch"]
