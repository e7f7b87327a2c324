"""The spool: ordered, bounded, and on disk where a directory is given."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight import ConversationTracker
from agentsight import _journal as journals
from agentsight._files import read_attachments
from agentsight._journal import Journal
from agentsight._spool import Item, Spool
from agentsight.exceptions import NoConversationIdException
from tests.sdk.support import CUT, KEY, ScriptServer

MakeTracker = Callable[..., ConversationTracker]


def item(n: int, conversation_id: str | None = "c") -> Item:
    return Item(
        "question", conversation_id, f"key-{n}", "2026-11-22T10:00:00+00:00", b'{"n":%d}' % n
    )


@given(st.lists(st.sampled_from(["append", "borrow", "give back", "settle"]), max_size=60))
def test_order_and_count_hold_whatever_happens(steps: list[str]) -> None:
    """Items wait in the order they were tracked, and none is lost or doubled."""
    spool = Spool()
    n_made = 0
    borrowed: list[list[tuple[int, Item]]] = []
    settled: list[Item] = []
    for step in steps:
        if step == "append":
            spool.append(item(n_made))
            n_made += 1
        elif step == "borrow":
            borrowed.append(spool.borrow("c"))
        elif borrowed and step == "give back":
            spool.settle([], borrowed.pop())
        elif borrowed:
            done = borrowed.pop()
            settled += [one for _, one in done]
            spool.settle(settled[-len(done) :] if done else [], [])
    for loan in borrowed:
        spool.settle([], loan)
    waiting = [one.item_key for one in spool.peek("c")]
    gone = {one.item_key for one in settled}
    assert waiting == [f"key-{n}" for n in range(n_made) if f"key-{n}" not in gone]
    assert len(spool) == len(waiting)


def test_a_full_spool_drops_new_items_counts_and_tells_them() -> None:
    """Loudly at the first, the second, the fourth, …"""
    told: list[int] = []
    spool = Spool(max_items=2, tell_full=told.append)
    assert [spool.append(item(n)) for n in range(7)] == [True, True, *[False] * 5]
    assert (spool.n_dropped, told) == (5, [1, 2, 4])
    [first, second] = spool.borrow("c")
    spool.settle([first[1]], [second])
    assert spool.append(item(9))


def test_bytes_bound_the_spool_but_one_large_item_always_fits() -> None:
    """A large file given as bytes must not be refused by an empty spool."""
    spool = Spool(max_bytes=1000)
    files = read_attachments([b"x" * 5000], "base64")
    assert spool.append(item(1)._replace(files=files))
    assert not spool.append(item(2))


def make_crash(directory: Path, endpoint: str, code: str) -> None:
    """Track in another process that is killed at once."""
    program = (
        "import os, signal\n"
        "from agentsight import ConversationTracker\n"
        f"t = ConversationTracker({KEY!r}, endpoint={endpoint!r}, spool_dir={str(directory)!r})\n"
        f"{code}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_items_and_files_survive_a_killed_process(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """The next process sends them, with the same keys and bytes, and leaves nothing behind."""
    source = tmp_path / "a.txt"
    source.write_bytes(b"from a path")
    code = (
        "t.get_or_create_conversation('c', name='N')\n"
        f"t.track_human_message('hi', [{str(source)!r}, b'from memory'])\n"
        "t.track_token_usage(total_tokens=3)\n"
    )
    spool_dir = tmp_path / "spool"
    make_crash(spool_dir, server.url, code)
    source.unlink()
    assert len(list(spool_dir.glob("*.bin"))) == 2
    tracker = make_tracker(spool_dir=spool_dir)
    tracker.track_token_usage()
    assert list(tracker.flush()) == ["c"]
    assert server.seen[0].json["conversation"]["name"] == "N"
    assert [part[2] for part in server.seen[0].parts[1:]] == [b"from a path", b"from memory"]
    assert list(spool_dir.glob("*.bin")) == []
    tracker.close()
    assert list(spool_dir.iterdir()) == []


def test_n_waiting_counts_what_an_earlier_process_left(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """Whoever asks before tracking anything hears of it."""
    make_crash(
        tmp_path, server.url, "t.get_or_create_conversation('c')\nt.track_human_message('m')"
    )
    tracker = make_tracker(spool_dir=tmp_path)
    assert tracker.n_waiting == 2
    assert list(tracker.flush()) == ["c"]


def test_n_waiting_of_a_default_instance_without_a_key_is_zero(tmp_path: Path) -> None:
    """Nothing can have been tracked without one; and closing it asks for no key, either."""
    tracker = ConversationTracker.default_instance()
    tracker.configure(spool_dir=tmp_path)
    assert tracker.n_waiting == 0
    tracker.close()


def left_by_a_dead_process(directory: Path, n_items: int) -> None:
    """Leave items, each with a file, as a process that died would."""
    dead = Journal.open(str(directory), KEY, "http://x")
    assert dead is not None
    for n in range(n_items):
        dead.put(item(n)._replace(files=read_attachments([b"file %d" % n], "base64")))
    dead.abandon()


def recovered(directory: Path, **bounds: int) -> tuple[Journal, list[str], list[bytes]]:
    """Take over what is there; return the keys and the bytes of the files."""
    journal = Journal.open(str(directory), KEY, "http://x")
    assert journal is not None
    items = journal.recover(**bounds)
    files = [b"".join(file.source.chunks()) for one in items for file in one.files]
    return journal, [one.item_key for one in items], files


def test_what_finds_no_room_stays_on_disk_for_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its files; it is counted and logged, and the next process goes on from there."""
    left_by_a_dead_process(tmp_path, 5)
    first, keys, files = recovered(tmp_path, max_items=2)
    assert keys == ["key-0", "key-1"]
    assert files == [b"file 0", b"file 1"]
    assert "stay on disk for later items=3" in caplog.text
    second, keys, files = recovered(tmp_path, max_bytes=1)
    assert (keys, files) == (["key-2"], [b"file 2"])
    third, keys, files = recovered(tmp_path)
    assert (keys, files) == (["key-3", "key-4"], [b"file 3", b"file 4"])
    for journal in (first, second, third):
        journal.abandon()
    last, keys, files = recovered(tmp_path)
    assert sorted(keys) == [f"key-{n}" for n in range(5)]
    assert sorted(files) == [b"file %d" % n for n in range(5)]
    assert len(list(tmp_path.iterdir())) == 6
    last.abandon()


def test_a_spool_recovers_up_to_half_of_its_bounds(tmp_path: Path) -> None:
    """The rest is room for what is new, and nothing of the old is dropped."""
    left_by_a_dead_process(tmp_path, 5)
    spool = Spool(Journal.open(str(tmp_path), KEY, "http://x"), max_items=4)
    spool.recover()
    assert (len(spool), spool.n_dropped) == (2, 0)
    assert len(list(tmp_path.glob("*.bin"))) == 5
    spool.abandon()


@pytest.mark.parametrize("n_writes", range(1, 9))
@pytest.mark.parametrize("max_items", [100, 3])
def test_a_disk_that_fills_up_during_a_take_over_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_writes: int, max_items: int
) -> None:
    """All lines are written or none; files move last, so that each item keeps its own."""
    left_by_a_dead_process(tmp_path, 5)
    real = os.write
    n_left = [n_writes]

    def write(descriptor: int, data: bytes) -> int:
        n_left[0] -= 1
        if n_left[0] > 0:
            return real(descriptor, data)
        if n_left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        journal = Journal.open(str(tmp_path), KEY, "http://x")
        kept = [] if journal is None else journal.recover(max_items)
    if journal is not None:
        assert len(kept) in (0, min(max_items, 5))
        journal.put(item(99))
        journal.abandon()
    last, keys, files = recovered(tmp_path)
    assert sorted(set(keys) - {"key-99"}) == [f"key-{n}" for n in range(5)]
    assert len(keys) == len(set(keys))
    assert sorted(files) == [b"file %d" % n for n in range(5)]
    last.abandon()


@pytest.mark.parametrize("cut_at", ["unlink", "replace"])
def test_a_take_over_that_is_cut_off_loses_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: str
) -> None:
    """The process that takes over may die in the middle of it."""
    left_by_a_dead_process(tmp_path, 3)

    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as dying:
        dying.setattr(os, cut_at, die)
        half = Journal.open(str(tmp_path), KEY, "http://x")
        assert half is not None
        with pytest.raises(KilledError):
            half.recover()
        half.abandon()
    last, keys, files = recovered(tmp_path)
    assert sorted(keys) == ["key-0", "key-1", "key-2"]
    assert sorted(files) == [b"file 0", b"file 1", b"file 2"]
    last.abandon()


def test_a_living_process_s_journal_is_left_alone(
    make_tracker: MakeTracker, tmp_path: Path
) -> None:
    """Workers share one directory."""
    first, second = make_tracker(spool_dir=tmp_path), make_tracker(spool_dir=tmp_path)
    first.get_or_create_conversation("c")
    second.get_or_create_conversation("d")
    assert (first.n_waiting, second.n_waiting) == (1, 1)


def test_another_key_s_items_are_left_alone(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """They belong to another agent, perhaps another client."""
    make_crash(tmp_path, server.url, "t.get_or_create_conversation('c')")
    other = ConversationTracker(
        KEY.replace("0123", "aaaa"), endpoint=server.url, spool_dir=tmp_path
    )
    assert other.flush() == {}
    other.close()
    assert list(make_tracker(spool_dir=tmp_path).flush()) == ["c"]


def test_what_close_cannot_deliver_is_sent_by_the_next(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """Without a warning: nothing is lost."""
    first = make_tracker(spool_dir=tmp_path)
    first.get_or_create_conversation("c")
    server.answers = [CUT] * 4
    first.close()
    assert list(make_tracker(spool_dir=tmp_path).flush()) == ["c"]


def test_items_without_a_conversation_survive_with_the_one_they_were_given(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """The journal knows of adoptions."""
    code = (
        "from agentsight.exceptions import NoConversationIdException\n"
        "try: t.track_human_message('early')\n"
        "except NoConversationIdException: pass\n"
        "t.get_or_create_conversation('c')\n"
    )
    make_crash(tmp_path, server.url, code)
    make_tracker(spool_dir=tmp_path).flush()
    assert [i["content"] for i in server.seen[0].json["items"]] == ["early"]


def test_a_torn_last_line_is_skipped(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """The machine may stop in the middle of a write."""
    make_crash(tmp_path, server.url, "t.get_or_create_conversation('c')")
    [journal] = tmp_path.glob("*.jsonl")
    with journal.open("ab") as torn:
        torn.write(b'{"put":{"kind":"quest')
    assert list(make_tracker(spool_dir=tmp_path).flush()) == ["c"]


@pytest.mark.parametrize(
    "line",
    [b"1", b'"put"', b"[]", b'{"put":{"item_key":"x"}}', b'{"put":1}', b"[" * 100_000, b"\0" * 99],
)
def test_lines_that_are_not_ours_never_stop_tracking(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path, line: bytes
) -> None:
    """Of a power cut, or of another version: the journal stays where it cannot be understood."""
    make_crash(tmp_path, server.url, "t.get_or_create_conversation('c')")
    [journal] = tmp_path.glob("*.jsonl")
    with journal.open("ab") as torn:
        torn.write(line + b"\n")
    tracker = make_tracker(spool_dir=tmp_path)
    tracker.get_or_create_conversation("d")
    assert "d" in tracker.flush()
    assert "c" in [seen.json["conversation"]["conversation_id"] for seen in server.seen] or (
        journal.exists()
    )


def test_a_full_disk_tears_one_line_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is journaled afterwards survives, also through a rewriting; no copy stays behind."""
    monkeypatch.setattr("agentsight._journal._REWRITE_FROM_BYTES", 100)
    journal = Journal.open(str(tmp_path), KEY, "http://x")
    assert journal is not None
    real, room = os.write, [20, 0]

    def write(descriptor: int, data: bytes) -> int:
        if not room:
            return real(descriptor, data)
        left = room.pop(0)
        if not left:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:left])

    monkeypatch.setattr(os, "write", write)
    with_file = item(0)._replace(files=read_attachments([b"x"], "base64"))
    assert journal.put(with_file) is with_file
    journal.put(item(1))
    assert list(tmp_path.glob("*.bin")) == []
    journal.put(item(2))
    for n in range(3, 9):
        journal.put(item(n))
        journal.forget([f"key-{n}"])
    journal.abandon()
    again = Journal.open(str(tmp_path), KEY, "http://x")
    assert again is not None
    assert [one.item_key for one in again.recover()] == ["key-2"]
    again.abandon()


def test_a_journal_is_taken_over_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opened it before another one took it over finds that it is not its file any more."""
    dead = Journal.open(str(tmp_path), KEY, "http://x")
    assert dead is not None
    dead.put(item(1)._replace(files=read_attachments([b"x"], "base64")))
    dead.abandon()
    first = Journal.open(str(tmp_path), KEY, "http://x")
    second = Journal.open(str(tmp_path), KEY, "http://x")
    assert first is not None
    assert second is not None
    taken: list[list[Item]] = []
    real = journals._lock

    def lock(descriptor: int, *, wait: bool = False) -> bool:
        if not taken:
            taken.append([])
            taken[0] = first.recover()
        return real(descriptor, wait=wait)

    monkeypatch.setattr(journals, "_lock", lock)
    assert second.recover() == []
    [[found]] = taken
    assert b"".join(found.files[0].source.chunks()) == b"x"
    first.abandon()
    second.abandon()


def test_a_directory_that_cannot_be_used_never_stops_tracking(
    make_tracker: MakeTracker,
    server: ScriptServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is said once, and items wait in memory."""
    (tmp_path / "file").write_text("")
    tracker = make_tracker(spool_dir=tmp_path / "file")
    with caplog.at_level(logging.ERROR, "agentsight"):
        tracker.get_or_create_conversation("c")
    assert "spool directory cannot be used" in caplog.text
    assert list(tracker.flush()) == ["c"]


def test_a_journal_is_rewritten_when_most_of_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays small under steady traffic that never pauses."""
    monkeypatch.setattr("agentsight._journal._REWRITE_FROM_BYTES", 10_000)
    journal = Journal.open(str(tmp_path), KEY, "http://x")
    assert journal is not None
    journal.put(item(0, None))
    journal.adopt("key-0", "mine")
    for n in range(1, 500):
        journal.put(item(n))
        journal.forget([f"key-{n}"])
    [path] = tmp_path.glob("*.jsonl")
    assert path.stat().st_size < 12_000
    journal.close()
    again = Journal.open(str(tmp_path), KEY, "http://x")
    assert again is not None
    [left] = again.recover()
    assert (left.item_key, left.conversation_id) == ("key-0", "mine")
    again.forget(["key-0"])
    again.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.parametrize("spool_dir", [None, "spool"])
def test_a_forked_child_neither_sends_nor_loses_what_the_parent_tracked(
    server: ScriptServer, tmp_path: Path, spool_dir: str | None
) -> None:
    """Workers of a pre-forking server begin with an empty queue and connections of their own."""
    code = (
        "import os, sys\n"
        "from agentsight import ConversationTracker\n"
        f"t = ConversationTracker({KEY!r}, endpoint={server.url!r}, spool_dir={spool_dir!r})\n"
        "t.get_or_create_conversation('c'); t.send_tracked_data()\n"
        "t.track_human_message('of the parent', [b'file'])\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    assert t.n_waiting == 0\n"
        "    t.get_or_create_conversation('child'); t.track_human_message('of the child')\n"
        "    t.send_tracked_data(); t.close(); sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "t.send_tracked_data(); t.close()\n"
    )
    done = subprocess.run(
        # The child's copy of the parent's socket is left open on purpose, see `_transport`.
        [sys.executable, "-W", "error", "-W", "ignore:unclosed:ResourceWarning", "-c", code],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    sent = [
        (seen.json["conversation"]["conversation_id"], [i["content"] for i in seen.json["items"]])
        for seen in server.seen
    ]
    assert sent == [("c", []), ("child", ["of the child"]), ("c", ["of the parent"])]
    if spool_dir is not None:
        assert list((tmp_path / spool_dir).iterdir()) == []


def test_an_orphan_s_error_does_not_lose_it(make_tracker: MakeTracker, tmp_path: Path) -> None:
    """Kept means on disk, too."""
    tracker = make_tracker(spool_dir=tmp_path)
    with pytest.raises(NoConversationIdException):
        tracker.track_button("e", "l", "v")
    [journal] = tmp_path.glob("*.jsonl")
    assert b'"button"' in journal.read_bytes()
