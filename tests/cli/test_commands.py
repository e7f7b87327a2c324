"""The commands beside `serve`, run as a person would run them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sqlite3
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentsight
from agentsight import _contract as contract
from agentsight.cli._parser import build_parser
from agentsight.cli._support import CliError, as_run
from tests.cli.commands import COMMAND, clean_environment, run_command


@pytest.fixture
def data(tmp_path: Path, sqlite_template: Path) -> Path:
    """Give a data directory with an empty database in it."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "agentsight.db").write_bytes(sqlite_template.read_bytes())
    return directory


def test_from_nothing_to_a_key(database_url: str) -> None:
    """A client, an agent and a key, on either database, each command naming it."""
    at = ("--database-url", database_url)
    for words in (
        ("clients", "create", "bakery"),
        ("agents", "create", "support", "--client", "bakery"),
        ("agents", "create", "plain"),
    ):
        made = run_command(*words, *at)
        assert (made.returncode, made.stdout) == (0, f"{words[2]}\n"), made.stderr
        assert made.stderr.startswith(f"database: {database_url}\n")
    key = run_command("keys", "create", "--agent", "support", "--role", "write", *at)
    assert key.returncode == 0
    assert contract.key_is_well_formed(key.stdout.removesuffix("\n"))
    listed = json.loads(run_command("keys", "list", "--json", *at).stdout)
    assert [(k["agent"], k["role"], k["state"]) for k in listed] == [("support", "write", "active")]
    agents = json.loads(run_command("agents", "list", "--json", *at).stdout)
    assert [(a["slug"], a["client"]) for a in agents] == [
        ("support", "bakery"),
        ("plain", "default"),
    ]


def test_a_keys_life(data: Path) -> None:
    """Create, rotate with an overlap, revoke; the list shows the states and never a key."""
    at = ("--data", str(data))
    run_command("agents", "create", "support", *at)
    first = run_command(
        "keys", "create", "--agent", "support", "--role", "read", "--expires-in-days", "30", *at
    ).stdout.strip()
    second = run_command("keys", "rotate", first, "--overlap-hours", "1", *at)
    assert contract.key_is_well_formed(second.stdout.strip()), second.stderr
    ends_at = json.loads(run_command("keys", "list", "--json", *at).stdout)[0]["ends_at"]
    assert f"the old one, key 1, works until {ends_at}" in second.stderr
    refused = run_command("keys", "rotate", first, "--overlap-hours", "0", *at)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"rotated already and ends at {ends_at}: rotate its successor" in refused.stderr
    last = run_command("keys", "rotate", "2", "--overlap-hours", "0", *at)
    assert "the old one stopped working" in last.stderr
    third = last.stdout.strip()
    revoked = run_command("keys", "revoke", third, *at)
    assert (revoked.returncode, revoked.stdout) == (0, "")
    listed = run_command("keys", "list", *at)
    states = [line.split()[4] for line in listed.stdout.splitlines()[1:]]
    assert states == ["active", "revoked", "revoked"]
    assert not any(key[4:36] in listed.stdout for key in (first, second.stdout.strip(), third))
    again = run_command("keys", "rotate", third, *at)
    assert (again.returncode, again.stdout) == (2, "")


def test_an_account_by_password_or_by_link(data: Path) -> None:
    """A password comes by standard input, else a link goes to standard output."""
    at = ("--data", str(data))
    made = run_command(
        "users", "create", "a@example.com", "--role", "owner", "--password-stdin", *at,
        stdin="correct horse\n",
    )  # fmt: skip
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    linked = run_command(
        "users", "create", "b@example.com", "--role", "viewer", *at,
        AGENTSIGHT_PUBLIC_URL="https://bots.example",
    )  # fmt: skip
    assert linked.stdout.startswith("https://bots.example/app/set-password/")
    assert "is not set" not in linked.stderr
    other = run_command("users", "link", "b@example.com", *at, AGENTSIGHT_PORT="8321")
    assert "where the server is not at http://127.0.0.1:8321, put its address" in other.stderr
    assert other.stdout.startswith("http://127.0.0.1:8321/app/set-password/")
    assert "/app/set-password/" in other.stdout
    assert other.stdout != linked.stdout
    listed = json.loads(run_command("users", "list", "--json", *at).stdout)
    assert [(u["email"], u["role"], u["password"]) for u in listed] == [
        ("a@example.com", "owner", "set"),
        ("b@example.com", "viewer", None),
    ]


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (("agents", "create", "a", "--client", "nobody"), 1, "no client 'nobody'"),
        (("keys", "create", "--agent", "x", "--role", "read"), 1, "no agent 'x'"),
        (("keys", "revoke", "99"), 1, "no such key"),
        (("keys", "revoke", "nonsense"), 2, "key's number"),
        (("users", "link", "x@example.com"), 1, "no account x@example.com"),
        (("agents", "create", "not a slug"), 2, "slug"),
        (("agents", "create"), 2, "SLUG"),
        (("keys", "create", "--agent", "x", "--role", "admin"), 2, "--role"),
        (("keys", "create", "--agent", "x", "--role", "read", "--expires-in-days", "0"), 2, "days"),
        (("users", "create", "a@b.c", "--role", "owner", "--password-stdin"), 2, "no password"),
        (("users", "create", "no-address", "--role", "owner"), 2, "address"),
    ],
)
def test_a_mistake_is_one_clear_line(
    data: Path, words: tuple[str, ...], exit_code: int, said: str
) -> None:
    """Exit code 2 for wrong use, 1 for what is not there; nothing on standard output."""
    run = run_command(*words, "--data", str(data))
    assert (run.returncode, run.stdout) == (exit_code, ""), run.stderr
    lines = [line for line in run.stderr.splitlines() if not line.startswith("database: ")]
    assert len(lines) == 1
    assert said in lines[0]


def test_data_and_database_url_exclude_each_other(data: Path) -> None:
    """Two answers to the same question are wrong use."""
    run = run_command("keys", "list", "--data", str(data), "--database-url", "sqlite:///x.db")
    assert run.returncode == 2
    assert "not allowed with" in run.stderr


@pytest.mark.parametrize(
    "words", [("keys", "list"), ("agents", "create", "a"), ("users", "list"), ("clients", "list")]
)
def test_only_serve_and_migrate_make_a_database(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Another command on a wrong path says which commands would, and leaves nothing behind."""
    run = run_command(*words, "--data", str(tmp_path / "typo"))
    assert run.returncode == 1
    assert "agentsight serve" in run.stderr
    assert "agentsight migrate" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_migrate_makes_a_database_once(tmp_path: Path) -> None:
    """The second time there is nothing to do; the directory is private."""
    at = ("--data", str(tmp_path / "deep" / "data"))
    assert "made a new" in run_command("migrate", *at).stderr
    assert "nothing to do" in run_command("migrate", *at).stderr
    assert (tmp_path / "deep" / "data").stat().st_mode & 0o777 == 0o700
    assert run_command("agents", "create", "support", *at).returncode == 0


def test_the_password_of_a_database_is_never_shown(tmp_path: Path) -> None:
    """Neither in the line that names the database nor in the error that it does not answer."""
    run = run_command("keys", "list", "--database-url", "postgresql://me:hush@127.0.0.1:1/x")
    assert run.returncode == 1
    assert "me:***@127.0.0.1" in run.stderr
    assert "hush" not in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """One line, and the file stays as it was."""
    (tmp_path / "agentsight.db").write_text("my diary, " * 500)
    run = run_command("keys", "list", "--data", str(tmp_path))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert (tmp_path / "agentsight.db").read_text().startswith("my diary")


def test_a_newer_database_is_refused(data: Path) -> None:
    """What a later version made is not touched."""
    connection = sqlite3.connect(data / "agentsight.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    run = run_command("agents", "create", "a", "--data", str(data))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr


def test_help_needs_no_server() -> None:
    """`--help`, `version` and a bare `agentsight` load none of the server's packages."""
    code = (
        "import sys; from agentsight.cli._parser import build_parser; build_parser().format_help();"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"msgspec", "litestar", "asyncio", "sqlite3"}
    assert run_command("--help").returncode == 0
    assert run_command().returncode == 2
    assert run_command("version").stdout.strip() == run_command("--version").stdout.strip()


def test_without_the_extra_a_command_says_how_to_install_it(tmp_path: Path) -> None:
    """An installation of the SDK alone has the command line, and it explains itself."""
    code = (
        "import sys, importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'litestar' else real(name, *a);"
        "from agentsight.cli import main; sys.exit(main(['keys', 'list']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert run.returncode == 1
    wheel = f"agentsight_open-{agentsight.__version__}-py3-none-any.whl"
    assert "`make serve` in a clone" in run.stderr
    address = f"http://SERVER:8000/sdk/agentsight-open/{wheel}"
    assert f"pip install 'agentsight-open[server] @ {address}'" in run.stderr


def test_a_reader_that_leaves_early_is_no_error(data: Path) -> None:
    """`agentsight agents list | head -0` ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(
        [COMMAND, "clients", "list", "--data", str(data)],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=clean_environment(),
    )
    os.close(write)
    assert "Traceback" not in run.stderr
    assert "BrokenPipe" not in run.stderr


def test_a_wrong_setting_is_one_line(data: Path) -> None:
    """Named by its variable, with exit code 2."""
    run = run_command("keys", "list", "--data", str(data), AGENTSIGHT_WORKERS="many")
    assert run.returncode == 2
    assert run.stderr.startswith("agentsight: AGENTSIGHT_WORKERS: must be")


def test_a_generated_key_fits_the_setting() -> None:
    """`keys generate` needs no database."""
    assert contract.key_is_well_formed(run_command("keys", "generate").stdout.strip())


def test_no_sentence_waits_for_what_went_elsewhere(data: Path) -> None:
    """Where standard output is captured, standard error alone makes sense: no colon at its end."""
    at = ("--data", str(data))
    run_command("agents", "create", "support", *at)
    for words in (
        ("keys", "create", "--agent", "support", "--role", "read"),
        ("keys", "rotate", "1"),
        ("users", "create", "a@example.com", "--role", "owner"),
    ):
        run = run_command(*words, *at)
        assert run.returncode == 0, run.stderr
        assert run.stderr.splitlines()[-1].endswith("(on standard output)")


def test_commands_are_named_as_they_can_be_run(tmp_path: Path) -> None:
    """A program that is not on the PATH is named by its path, with the data that was named."""
    home = Path(COMMAND).parent
    at = ("--data", "my data")

    def run(*words: str, path: str) -> subprocess.CompletedProcess[str]:
        return run_command(*words, *at, cwd=tmp_path, PATH=path)

    away = run("keys", "list", path="/usr/bin:/bin")
    assert f"`{COMMAND} migrate --data 'my data'` makes one" in away.stderr
    near = run("keys", "list", path=f"{home}:/usr/bin:/bin")
    assert "`agentsight migrate --data 'my data'` makes one" in near.stderr
    run("migrate", path="/usr/bin:/bin")
    made = run("agents", "create", "support", path="/usr/bin:/bin")
    assert f"next: {COMMAND} keys create --data 'my data' --agent support" in made.stderr
    unknown = run("keys", "list", "--agent", "nobody", path="/usr/bin:/bin")
    assert f"see {COMMAND} agents list --data 'my data'" in unknown.stderr


def test_a_password_is_not_repeated_in_a_remedy() -> None:
    """A command to run next names the database without it."""
    text = as_run("see agentsight keys list", Namespace(database_url="postgresql://me:hush@x/y"))
    assert text.endswith("agentsight keys list --database-url 'postgresql://me:***@x/y'")
    assert as_run("agentsight keys generate", Namespace(data_dir="x")) == "agentsight keys generate"


@pytest.mark.parametrize("words", [(), ("serve",), ("doctor",), ("users",), ("keys", "rotate")])
def test_help_promises_nothing_that_is_not_there(words: tuple[str, ...]) -> None:
    """No other object storage than S3, and no pages to sign in without a word about when."""
    text = " ".join(run_command(*words, "--help").stdout.split())
    assert "gs:" not in text
    assert "az:" not in text
    assert "sign in" not in text or "a later version" in text


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of all commands."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for one in group.choices.values():
            yield from leaves(one)


COMMANDS = {parser.prog.partition(" ")[2]: parser for parser in leaves(build_parser())}
OF_THE_SDK = {
    "version",
    *(f"attachments {name}" for name in ("list", "download", "upload", "search")),
}


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - OF_THE_SDK))
def test_each_command_of_the_server_says_what_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it imports anything of the server; those of the SDK are named above."""
    monkeypatch.setattr("agentsight.cli._support.find_spec", lambda _: None)
    with pytest.raises(CliError, match="this command needs the server, which is not installed"):
        COMMANDS[name].get_default("run")(Namespace())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "list"), "the output cannot be written: No space left on device"),
        (("agents", "list", "--json"), "the output cannot be written: No space left on device"),
        (("keys", "create", "--agent", "support", "--role", "read"),
         "it could not be printed (No space left on device): agentsight keys revoke 1 ends it"),
        (("users", "create", "a@example.com", "--role", "owner"),
         "it could not be printed (No space left on device): agentsight users link"),
    ],
)  # fmt: skip
def test_an_output_that_cannot_be_written_is_one_line(
    data: Path, words: tuple[str, ...], said: str
) -> None:
    """A secret that is shown once is not lost without a word."""
    at = ("--data", str(data))
    run_command("agents", "create", "support", *at)
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [COMMAND, *words, *at], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=clean_environment(PATH=f"{Path(COMMAND).parent}:/usr/bin:/bin"),
        )  # fmt: skip
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert (
        run.stderr.splitlines()[-1].replace(f" --data {data}", "").startswith(f"agentsight: {said}")
    )


def test_without_a_standard_output_a_key_is_not_lost_silently(data: Path) -> None:
    """`keys create … >&-`."""
    at = ("--data", str(data))
    run_command("agents", "create", "support", *at)
    words = [COMMAND, "keys", "create", "--agent", "support", "--role", "read", *at]
    run = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.join(words)} >&-"], stderr=subprocess.PIPE, text=True,
        check=False, env=clean_environment(),
    )  # fmt: skip
    assert run.returncode == 1
    assert "it could not be printed (there is no standard output)" in run.stderr
    assert "Traceback" not in run.stderr


def test_ctrl_c_while_the_program_begins_is_no_traceback() -> None:
    """Importing the commands takes the first tenth of a second."""
    code = (
        "import sys\n"
        "class Stopped:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'agentsight.cli._parser': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stopped())\n"
        "from agentsight.cli import main\n"
        "sys.exit(main(['version']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
