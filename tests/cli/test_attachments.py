"""`agentsight attachments`: files by the API, on a terminal and in a pipe."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, PATIENCE_S, clean_environment, run_command
from tests.support.cutting import CuttingRelay
from tests.support.server import Agent, LiveServer

MB = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("attachments")) as server:
        yield server


@pytest.fixture
def agent(server: LiveServer) -> Agent:
    return server.make_agent()


def run(
    server: LiveServer, key: str, *words: str, cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return run_command(
        "attachments",
        *words,
        cwd=cwd,
        stdin=stdin,
        AGENTSIGHT_API_KEY=key,
        AGENTSIGHT_API_ENDPOINT=server.base_url,
    )


def put(server: LiveServer, agent: Agent, cwd: Path, **content_by_name: bytes) -> None:
    """Upload files into the conversation `c`."""
    for name, content in content_by_name.items():
        (cwd / name).write_bytes(content)
    done = run(server, agent.write_key, "upload", "c", *content_by_name, cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_files_go_up_are_listed_found_and_come_down(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """All four commands, in plain lines."""
    large = os.urandom(3 * MB)
    (tmp_path / "large.bin").write_bytes(large)
    (tmp_path / "note.txt").write_text("Die Rechnung ist bezahlt.")
    up = run(
        server, agent.write_key, "upload", "c", "large.bin", "note.txt",
        "--sender", "agent", "--message-text", "Here they are", cwd=tmp_path,
    )  # fmt: skip
    assert (up.returncode, up.stderr) == (0, "")
    assert [line.split()[::2] for line in up.stdout.splitlines()] == [
        ["stored", "large.bin"], ["stored", "note.txt"]
    ]  # fmt: skip

    listed = run(server, agent.read_key, "list", "c")
    head, *rows = [line.split() for line in listed.stdout.splitlines()]
    assert head == ["NAME", "TYPE", "SIZE", "SENDER", "SENT_AT", "UID"]
    assert [row[:5] for row in rows] == [
        ["large.bin", "document", "3.0", "MB", "agent"], ["note.txt", "text", "25", "B", "agent"]
    ]  # fmt: skip
    as_json = json.loads(run(server, agent.read_key, "list", "c", "--json").stdout)
    assert as_json["total_attachments"] == 2
    row_id = str(as_json["conversation"])
    assert run(server, agent.read_key, "list", row_id, "--id").stdout == listed.stdout

    found = run(server, agent.read_key, "search", "NOTE", "--type", "text", "--json")
    assert [row["filename"] for row in json.loads(found.stdout)] == ["note.txt"]
    one = run(server, agent.read_key, "search", "--since", "2020-01-01", "--limit", "1")
    assert len(one.stdout.splitlines()) == 2
    assert one.stderr == "there are more: --limit 10 shows more of them\n"

    down = run(server, agent.read_key, "download", "c", "--to", "out", cwd=tmp_path)
    assert (down.returncode, sorted(down.stdout.splitlines())) == (
        0, ["downloaded  out/large.bin", "downloaded  out/note.txt"]
    )  # fmt: skip
    assert down.stderr == "2 of 2 files are here, 3.0 MB; 2 downloaded\n"
    assert (tmp_path / "out" / "large.bin").read_bytes() == large
    again = run(server, agent.read_key, "download", "c", "--to", "out", cwd=tmp_path)
    assert sorted(again.stdout.splitlines()) == [
        "present     out/large.bin",
        "present     out/note.txt",
    ]

    zipped = run(server, agent.read_key, "download", "c", "--zip", "all.zip", cwd=tmp_path)
    assert zipped.returncode == 0, zipped.stderr
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 3


def test_a_search_is_narrowed_and_ordered(server: LiveServer, agent: Agent, tmp_path: Path) -> None:
    """Each flag leaves out one of three files, and together they find one."""
    sent = (("ada", "end_user", "2026-01-01"), ("bob", "agent", "2026-01-02"),
            ("ada", "system", "2026-01-03"))  # fmt: skip
    for number, (customer, sender, on) in enumerate(sent, 1):
        file = {"filename": f"{4 - number}.txt", "data": "YWJj" * number}
        item = {"type": "attachments", "sender": sender, "timestamp": f"{on}T12:00:00Z",
                "attachments": [file]}  # fmt: skip
        conversation = {"conversation_id": f"c{number}", "customer_id": customer}
        body = {"conversation": conversation, "items": [item]}
        assert server.post_json("/api/v1/batch/", body, key=agent.write_key).status == 200

    def found(*words: str) -> str:
        done = run(server, agent.read_key, "search", "--json", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return "".join(row["filename"][0] for row in json.loads(done.stdout))

    assert found() == found("--order", "newest") == "123"
    assert found("--order", "oldest") == found("--order", "smallest") == "321"
    assert found("--order", "largest") == found("--order", "name") == "123"
    assert found("--customer", "ada") == "13"
    assert found("--conversation", "c2") == "2"
    assert found("--sender", "system") == "1"
    assert found("--since", "2026-01-02") == "12"
    assert found("--until", "2026-01-02T12:00:00Z") == "23"
    assert found("--min-size", "6") == "12"
    assert found("--max-size", "6") == "23"
    narrow = ("--customer", "ada", "--until", "2026-01-02", "--max-size", "3", "--order", "name")
    assert found(*narrow) == "3"


def test_the_key_comes_from_a_file_or_standard_input_and_from_no_argument(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """What lists of processes show is no place for it."""
    put(server, agent, tmp_path, a=b"data")
    (tmp_path / "key").write_text(f"{agent.read_key}\n")
    words = ("attachments", "list", "c", "--endpoint", server.base_url)
    for given, stdin in ((str(tmp_path / "key"), ""), ("-", agent.read_key)):
        done = run_command(*words, "--key-file", given, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
    without = run_command(*words)
    assert without.returncode == 2
    assert "set AGENTSIGHT_API_KEY, or give --key-file FILE" in without.stderr
    assert run_command(*words, "--key-file", "/nowhere").returncode == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("list", "nowhere"), 1, "Conversation with conversation_id 'nowhere' not found"),
        (("list", "999999", "--id"), 1, "Conversation with id 999999 not found"),
        (("download", "999999", "--id"), 1, "Conversation with id 999999 not found"),
        (("upload", "999999", "--id", __file__), 1, "Conversation with id 999999 not found"),
        (("download", "nope", "--zip", "nope.zip"), 1, "conversation_id 'nope' not found"),
        (("list", "x", "--id"), 2, "CONVERSATION is a number, not 'x'"),
        (("search", "--min-size", "1MB"), 2, "'1MB' is not a number of bytes"),
        (("search", "--sender", "nobody"), 2, "end_user"),
        (("search", "--since", "yesterday"), 2,
         "--since 'yesterday': give a date or time like 2026-01-31"),
        (("search", "--until", "tomorrow"), 2,
         "--until 'tomorrow': give a date or time like 2026-01-31"),
        (("search", os.fsdecode(b"\xff\xfe")), 2, "TEXT '\\udcff\\udcfe' is not text in UTF-8"),
        (("list", os.fsdecode(b"\xff")), 2, "CONVERSATION '\\udcff' is not text in UTF-8"),
        (("upload", "c", "/nowhere.x"), 1, "cannot read /nowhere.x: No such file or directory\n"),
        (("upload", "c", *(["x"] * 130)), 1,
         "130 attachments on one item: at most 100; send them in several"),
        (("list", "c", "--key-file", "/nowhere"), 2,
         "the key cannot be read from /nowhere: No such file or directory\n"),
        (("list", "c", "--nonsense"), 2, "(see agentsight attachments list --help)"),
        (("search", "--limit", "-5"), 2, "is not a number from 1 on"),
        (("download", "c", "--workers", "0"), 2, "is not a number from 1 on"),
        (("list", "c", "--endpoint", "nonsense"), 2, "endpoint must start with http"),
        (("list", "c", "--endpoint", "http://127.0.0.1:9"), 1, "is the server running? Set "
         "AGENTSIGHT_API_ENDPOINT or --endpoint"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_its_remedy(
    server: LiveServer, agent: Agent, words: tuple[str, ...], code: int, said: str
) -> None:
    """1 where it failed, 2 where it was used wrongly."""
    done = run(server, agent.write_key, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_key_that_may_not_or_is_not_known_is_told(server: LiveServer, agent: Agent) -> None:
    """Neither is a trace of Python."""
    unknown = "ags_" + "0" * 32 + "_" + "0" * 6
    assert "does not know this key" in run(server, unknown, "list", "c").stderr
    (done := run(server, agent.read_key, "upload", "c", __file__))
    assert done.returncode == 1
    assert "nothing was stored" in done.stderr


def test_a_file_that_is_missing_fails_the_command_and_not_the_others(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """Programs see it by the exit code, people by the line."""
    put(server, agent, tmp_path, lost=os.urandom(MB), kept=os.urandom(MB + 1))
    objects = [path for path in server.data_dir.rglob("*") if path.is_file()]
    [lost] = [p for p in objects if p.read_bytes() == (tmp_path / "lost").read_bytes()]
    lost.unlink()
    done = run(server, agent.read_key, "download", "c", "--to", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "downloaded  out/kept\n"
    assert "refused: lost: " in done.stderr


@pytest.mark.parametrize("to", ["all.zip", "-"])
def test_files_that_are_not_in_the_zip_are_told(
    server: LiveServer, agent: Agent, tmp_path: Path, to: str
) -> None:
    """As without --zip: a line a file and exit code 1, in a file as in a pipe."""
    contents = {name: os.urandom(MB) for name in ("lost", "blocked", "kept")}
    put(server, agent, tmp_path, **contents)
    objects = [path for path in server.data_dir.rglob("*") if path.is_file()]
    [lost] = [p for p in objects if p.read_bytes() == contents["lost"]]
    lost.unlink()
    sha256 = hashlib.sha256(contents["blocked"]).hexdigest()
    blocked = run_command("quarantine", "add", sha256, "--reason", "test",
                          "--database-url", server.database_url)  # fmt: skip
    assert blocked.returncode == 0, blocked.stderr
    with (tmp_path / "piped.zip").open("wb") as out:
        done = subprocess.run(
            [COMMAND, "attachments", "download", "c", "--zip", to],
            stdout=out, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
            env=clean_environment(
                AGENTSIGHT_API_KEY=agent.read_key, AGENTSIGHT_API_ENDPOINT=server.base_url
            ),
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[:2] == [
        "agentsight: not in the ZIP: lost: its bytes are not in the server's store any more",
        "agentsight: not in the ZIP: blocked: it is withheld (quarantined)",
    ]
    with zipfile.ZipFile(tmp_path / ("piped.zip" if to == "-" else to)) as archive:
        assert [name.partition("/")[2] for name in archive.namelist()] == ["kept", ""]


def test_a_zip_replaces_nothing_unasked(server: LiveServer, agent: Agent, tmp_path: Path) -> None:
    """As elsewhere; and what is wrong is named as it was typed."""
    put(server, agent, tmp_path, a=b"data")
    (tmp_path / "mine.zip").write_bytes(b"mine")
    (tmp_path / "b").mkdir()
    for to, said in (
        ("mine.zip", "mine.zip is there already: give another name, or --overwrite"),
        ("b", "--zip b is a directory: give the name of a file"),
        ("nowhere/x.zip", f"No such file or directory: {tmp_path}/nowhere"),
    ):
        done = run(server, agent.read_key, "download", "c", "--zip", to, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", f"agentsight: {said}\n")
    assert (tmp_path / "mine.zip").read_bytes() == b"mine"
    words = ("download", "c", "--zip", "mine.zip", "--overwrite")
    assert run(server, agent.read_key, *words, cwd=tmp_path).returncode == 0
    assert zipfile.is_zipfile(tmp_path / "mine.zip")
    to_file = run(server, agent.read_key, "download", "c", "--to", "mine.zip", cwd=tmp_path)
    assert (to_file.returncode, to_file.stderr) == (
        1, f"agentsight: Not a directory: {tmp_path}/mine.zip\n"
    )  # fmt: skip


def test_what_all_files_have_to_say_is_said_once(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """A disk without room is no news the second time."""
    put(server, agent, tmp_path, **{name: os.urandom(20_000) for name in "abc"})
    no_room = (
        "import errno, os, sys\n"
        "from agentsight import _downloads\n"
        "def refuse(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "class Full:\n"
        "    def __getattr__(self, name): return refuse if name == 'write' else getattr(os, name)\n"
        "_downloads.os = Full()\n"
        "from agentsight.cli import main\n"
        "sys.exit(main(['attachments', 'download', 'c', '--to', 'out']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", no_room], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=clean_environment(
            AGENTSIGHT_API_KEY=agent.read_key, AGENTSIGHT_API_ENDPOINT=server.base_url
        ),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "agentsight: 3 files were not fetched: it cannot be written: No space left on device"
    )
    assert len(done.stderr.splitlines()) == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_names_cannot_steer_the_terminal(server: LiveServer, agent: Agent, tmp_path: Path) -> None:
    """Whoever sends a file chooses its name, and somebody else reads it."""
    put(server, agent, tmp_path, **{"red\u202egpj.exe": b"data"})
    done = run(server, agent.read_key, "list", "c")
    assert "\u202e" not in done.stdout
    assert run(server, agent.read_key, "download", "c", cwd=tmp_path).returncode == 0


def on_terminal(server: LiveServer, key: str, cwd: Path, *words: str) -> tuple[str, int]:
    """Run on a terminal of 80 columns; return what it showed and the exit code."""
    ours, theirs = pty.openpty()
    environment = clean_environment(
        AGENTSIGHT_API_KEY=key, AGENTSIGHT_API_ENDPOINT=server.base_url, TERM="xterm", COLUMNS="80"
    )
    process = subprocess.Popen(
        [COMMAND, "attachments", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment,
    )  # fmt: skip
    os.close(theirs)
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the terminal's other end is closed (Linux: EIO)
        pass
    code = process.wait(timeout=PATIENCE_S)
    watchdog.cancel()
    os.close(ours)
    return shown.decode(), code


def test_a_terminal_shows_a_bar_and_leaves_only_lines(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """The bar is cleared before each line, and fits into the window."""
    put(server, agent, tmp_path, big=os.urandom(5 * MB))
    shown, code = on_terminal(server, agent.read_key, tmp_path, "download", "c", "--to", "out")
    assert code == 0
    assert "[####################]  100%  5.0 MB of 5.0 MB" in shown
    drawn = [part.split("\x1b[K")[-1] for line in shown.split("\n") for part in line.split("\r")]
    assert max(len(part) for part in drawn) < 80
    lines = shown.replace("\r\n", "\n").split("\n")[:-1]
    left = [line.split("\x1b[K")[-1] for line in lines]
    assert left == ["downloaded  out/big", "1 of 1 files are here, 5.0 MB; 1 downloaded"]
    shown, code = on_terminal(server, agent.write_key, tmp_path, "upload", "d", "big")
    assert code == 0
    assert "100%  5.0 MB of 5.0 MB" in shown
    refused, code = on_terminal(server, agent.read_key, tmp_path, "download", "c", "--zip", "-")
    assert code == 2
    assert "a ZIP is nothing for a terminal" in refused


def test_a_file_that_is_too_large_is_named_with_size_and_limit(
    tmp_path: Path,
) -> None:
    """The server's limit, and the SDK's own."""
    (tmp_path / "big").write_bytes(os.urandom(200_000))
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 3 * 1024**3)
    (tmp_path / "server").mkdir()
    limits = {"AGENTSIGHT_MAX_FILE_BYTES": "100000"}
    with LiveServer(tmp_path / "server", settings=limits) as server:
        key = server.make_agent().write_key
        big = run(server, key, "upload", "c", "big", cwd=tmp_path)
        huge = run(server, key, "upload", "c", "huge", cwd=tmp_path)
    assert (big.returncode, big.stderr) == (
        1,
        "agentsight: nothing was stored: big: The file is larger than max_file_bytes (100000"
        " bytes): it has 200000 bytes\n",
    )
    assert (huge.returncode, huge.stderr) == (
        1,
        "agentsight: Attachment 1: huge has 3221225472 bytes; a file may have at most 1024 MiB"
        " (1073741824 bytes)\n",
    )


def test_a_server_that_goes_away_leaves_an_upload_to_go_on_with(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """It is said, with how far it came."""
    (tmp_path / "big").write_bytes(os.urandom(40 * MB))
    with CuttingRelay(server.base_url) as relay:
        relay.hold_after = 20 * MB
        process = subprocess.Popen(
            [COMMAND, "attachments", "upload", "c", "big"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env=clean_environment(
                AGENTSIGHT_API_KEY=agent.write_key, AGENTSIGHT_API_ENDPOINT=relay.url
            ),
        )  # fmt: skip
        assert relay.stopped.wait(timeout=PATIENCE_S)
    _, said = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 1
    assert re.match(r"big stopped after about [0-9.]+ MB of 40\.0 MB: run it again", said), said


def test_ctrl_c_leaves_a_part_that_the_next_run_goes_on_with(
    server: LiveServer, agent: Agent, tmp_path: Path
) -> None:
    """What has come is not fetched again."""
    put(server, agent, tmp_path, big=os.urandom(40 * MB))
    out = tmp_path / "out"
    words = [COMMAND, "attachments", "download", "c", "--to", str(out)]
    with CuttingRelay(server.base_url) as relay:
        relay.stop_after = 20 * MB
        environment = clean_environment(
            AGENTSIGHT_API_KEY=agent.read_key, AGENTSIGHT_API_ENDPOINT=relay.url
        )
        process = subprocess.Popen(
            words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, text=True
        )
        assert relay.stopped.wait(timeout=PATIENCE_S)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "stopped: the same command goes on with what is missing" in said
    [part] = out.iterdir()
    assert part.stat().st_size > 10 * MB
    with CuttingRelay(server.base_url) as relay:
        done = run_command(
            *words[1:], AGENTSIGHT_API_KEY=agent.read_key, AGENTSIGHT_API_ENDPOINT=relay.url
        )
        assert done.returncode == 0, done.stderr
        assert relay.n_passed["down"] < 31 * MB
    assert (out / "big").read_bytes() == (tmp_path / "big").read_bytes()


def test_the_sdk_alone_is_enough(server: LiveServer, agent: Agent, tmp_path: Path) -> None:
    """Without the packages of the server: these commands work, the others say what is missing."""
    put(server, agent, tmp_path, a=b"data")
    without = (
        "import sys\n"
        "for name in ('msgspec', 'litestar', 'uvicorn', 'jinja2', 'argon2', 'asyncpg'):\n"
        "    sys.modules[name] = None\n"
        "from agentsight.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = clean_environment(
        AGENTSIGHT_API_KEY=agent.read_key, AGENTSIGHT_API_ENDPOINT=server.base_url
    )

    def run_alone(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", without, "attachments", *words],
            capture_output=True, text=True, check=False, timeout=PATIENCE_S, env=environment,
        )  # fmt: skip

    assert "a" in run_alone("list", "c").stdout
    wrong = run_alone("list", "nowhere")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
