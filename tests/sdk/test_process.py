"""What becomes of the clients when their process ends, forks, or closes them in full swing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from agentsight import AgentSightAPI, AsyncAgentSightAPI, ConversationManager, ConversationTracker
from tests.sdk.conftest import World
from tests.sdk.support import CUT, KEY, Answer, ScriptServer, Seen, store_all

MakeTracker = Callable[..., ConversationTracker]
NOBODY = "http://127.0.0.1:9"
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")


def run(code: str, directory: Path, **environ: str) -> str:
    """Run a program to its end; return what it said on stderr."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AGENTSIGHT_")}
    settings = {"AGENTSIGHT_API_KEY": KEY, "AGENTSIGHT_API_ENDPOINT": NOBODY, **environ}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=clean | settings,
        check=False,
        timeout=60,
        cwd=directory,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


TRACK = (
    "from agentsight import conversation_tracker as t, ConversationTracker\n"
    "t.get_or_create_conversation('a'); t.track_human_message('hi')\n"
    "t.get_or_create_conversation('b')\n"
)


def test_a_process_that_ends_with_unsent_items_says_so_once(tmp_path: Path) -> None:
    """How many, of how many conversations, and what to do; the network is left alone."""
    more = "own = ConversationTracker(); own.get_or_create_conversation('c')\n"
    said = run(TRACK + more, tmp_path)
    assert said.count("\n") == 1
    assert "never sent and are lost" in said
    assert "items=4 conversations=3" in said
    for remedy in ("flush()", "close()", "AGENTSIGHT_SPOOL_DIR"):
        assert remedy in said


def test_the_application_s_own_last_words_come_first(tmp_path: Path) -> None:
    """What it registers for its end may still send: we speak after it, whenever it registered."""
    early = "import atexit, sys, agentsight\nfrom agentsight import conversation_tracker\n"
    early += "atexit.register(lambda: print('the application ends', file=sys.stderr))\n"
    said = run(early + TRACK, tmp_path)
    assert said.index("the application ends") < said.index("never sent and are lost")


def test_with_a_spool_directory_the_end_says_that_they_are_kept(tmp_path: Path) -> None:
    """And they are: the next process has them."""
    said = run(TRACK, tmp_path, AGENTSIGHT_SPOOL_DIR="spool")
    assert "they are kept in AGENTSIGHT_SPOOL_DIR" in said
    assert "lost" not in said
    assert "items=3 conversations=2" in said
    count = "from agentsight import conversation_tracker as t\nassert t.n_waiting == 3"
    run(count, tmp_path, AGENTSIGHT_SPOOL_DIR="spool")


def test_counters_that_were_not_sent_are_told_too(tmp_path: Path) -> None:
    """They are data, though nothing was opened yet."""
    code = "from agentsight import conversation_tracker as t\nt.track_token_usage(5)\n"
    assert "items=1 conversations=1" in run(code, tmp_path)


@pytest.mark.parametrize(
    "code",
    [
        "import agentsight.tracker",
        "from agentsight import conversation_tracker as t; t.n_waiting; t.close()",
        "from agentsight import conversation_tracker as t; t.track_token_usage()",
    ],
)
def test_a_process_with_nothing_left_ends_in_silence(tmp_path: Path, code: str) -> None:
    """Nothing is registered, nothing said, no logging loaded."""
    check = "\nimport sys, atexit\natexit.register(lambda: print('logging' in sys.modules))\n"
    assert run(code + check, tmp_path) == ""


USE_DEFAULTS = (
    "from agentsight import agentsight_api as a, conversation_manager as m\n"
    "from agentsight import conversation_tracker as t\n"
    "a.fetch_conversation(7); m.mark_conversation(7, True)\n"
    "t.get_or_create_conversation('a'); t.flush()\n"
    "assert all(client._transport.is_open for client in (a, m, t))\n"
)
ALL_WARNINGS = {"PYTHONWARNINGS": "always::ResourceWarning", "PYTHONDEVMODE": "1"}


def answer_all(seen: Seen) -> Answer:
    return store_all(seen) if seen.path.endswith("/batch/") else Answer(200, {"id": 7})


def test_the_default_clients_close_their_connections_at_the_end(
    server: ScriptServer, tmp_path: Path
) -> None:
    """Nobody is to close what nobody made: no warning of a socket, whoever looks for them."""
    server.script = answer_all
    assert run(USE_DEFAULTS, tmp_path, AGENTSIGHT_API_ENDPOINT=server.url, **ALL_WARNINGS) == ""


def test_the_end_does_not_wait_for_a_request_of_a_daemon_thread(
    server: ScriptServer, tmp_path: Path
) -> None:
    """Its connection is left to it; the process ends while the server still thinks."""
    gate = Gate()

    def answer(seen: Seen) -> Answer:
        if seen.method == "GET":
            return gate(seen)
        assert gate.arrived.wait(timeout=30)
        return Answer(200, {"id": 7})

    server.script = answer
    code = (
        "import threading\n"
        "from agentsight import agentsight_api as a, conversation_manager as m\n"
        "threading.Thread(target=a.fetch_conversation, args=(7,), daemon=True).start()\n"
        "m.mark_conversation(7, True)\n"
    )
    try:
        run(code, tmp_path, AGENTSIGHT_API_ENDPOINT=server.url)
    finally:
        gate.opened.set()


@needs_fork
def test_a_child_s_end_leaves_the_parents_connections_alone(
    server: ScriptServer, tmp_path: Path
) -> None:
    """The parent goes on over the connection that it had."""
    server.script = answer_all
    fork = (
        "import os, sys\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "before = a._transport._client\n"
        "a.fetch_conversation(7)\n"
        "assert a._transport._client is before\n"
    )
    run(USE_DEFAULTS + fork, tmp_path, AGENTSIGHT_API_ENDPOINT=server.url)
    assert len(server.seen) == 4


@needs_fork
def test_a_child_does_not_report_what_its_parent_tracked(tmp_path: Path) -> None:
    """It reports its own; the parent's are the parent's."""
    fork = (
        "import os, sys\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    t.get_or_create_conversation('of the child'); sys.exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    child, parent = run(TRACK + fork, tmp_path).splitlines()
    assert "items=1 conversations=1" in child
    assert "items=3 conversations=2" in parent


@needs_fork
@pytest.mark.parametrize("kind", [AgentSightAPI, ConversationManager, ConversationTracker])
def test_a_lock_held_at_the_fork_does_not_stop_the_child(tmp_path: Path, kind: type) -> None:
    """The thread that held it is not there to let it go."""
    code = (
        f"import os, signal, agentsight\n"
        f"client = agentsight.{kind.__name__}()\n"
        "client._settings_lock.acquire()\n"
        "transport = client._open_transport(); transport._lock.acquire()\n"
        "import threading\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    signal.alarm(20)\n"
        "    other = threading.Thread(target=lambda: (client.configure(log_level='ERROR'),"
        " client._open_transport().begin_use(), client.close(), os._exit(0)))\n"
        "    other.start(); other.join(); os._exit(1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    assert run(code, tmp_path) == ""


class Gate:
    """A server's answer that comes when the test wants it."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.opened = threading.Event()

    def __call__(self, seen: Seen) -> Answer:
        self.arrived.set()
        assert self.opened.wait(timeout=30)
        return store_all(seen) if seen.method == "POST" else Answer(200, {"id": 7})


@pytest.mark.parametrize("spool_dir", [None, "spool"])
def test_closing_waits_for_no_other_thread_and_disturbs_none(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path, spool_dir: str | None
) -> None:
    """The send under way ends as if nothing had happened, and then lets go of everything."""
    gate = Gate()
    server.answers = [gate]
    tracker = make_tracker(conversation_id="c", spool_dir=spool_dir and tmp_path / spool_dir)
    tracker.track_human_message("hi")
    reports: list[int] = []
    sending = threading.Thread(
        target=lambda: reports.append(tracker.send_tracked_data()["summary"]["errors"])
    )
    sending.start()
    assert gate.arrived.wait(timeout=30)
    transport = tracker._transport
    assert transport is not None
    tracker.close()
    assert transport.is_open
    gate.opened.set()
    sending.join(timeout=30)
    assert reports == [0]
    assert not transport.is_open
    if spool_dir is not None:
        assert list((tmp_path / spool_dir).iterdir()) == []


def test_what_a_send_could_not_deliver_after_closing_survives_on_disk(
    make_tracker: MakeTracker, server: ScriptServer, tmp_path: Path
) -> None:
    """The retries still happen, over connections that are closed in the end."""
    gate = Gate()
    server.answers = [lambda seen: (gate(seen), CUT)[1], CUT, CUT, CUT]
    tracker = make_tracker(conversation_id="c", spool_dir=tmp_path)
    tracker.track_human_message("hi")
    sending = threading.Thread(target=tracker.send_tracked_data)
    sending.start()
    assert gate.arrived.wait(timeout=30)
    tracker.close()
    gate.opened.set()
    sending.join(timeout=30)
    assert len(server.seen) == 4
    assert make_tracker(spool_dir=tmp_path).n_waiting == 1


def test_settings_may_change_while_another_thread_reads(
    api: AgentSightAPI, server: ScriptServer
) -> None:
    """The old connections end with their last use, not with the client."""
    gate = Gate()
    server.answers = [gate]
    found: list[object] = []
    reading = threading.Thread(target=lambda: found.append(api.fetch_conversation(7)))
    reading.start()
    assert gate.arrived.wait(timeout=30)
    transport = api._transport
    assert transport is not None
    api.configure(endpoint=server.url + "/")
    gate.opened.set()
    reading.join(timeout=30)
    assert found == [{"id": 7}]
    assert not transport.is_open


@pytest.mark.anyio
async def test_an_async_client_closes_after_its_last_request(
    server: ScriptServer, world: World
) -> None:
    """As the sync one does."""
    gate = Gate()
    server.answers = [gate]
    api = AsyncAgentSightAPI(KEY, server.url)
    api.runtime = world.runtime
    found: list[object] = []

    async def read() -> None:
        found.append(await api.fetch_conversation(7))

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        assert await anyio.to_thread.run_sync(gate.arrived.wait, 30)
        await api.aclose()
        gate.opened.set()
    assert found == [{"id": 7}]
