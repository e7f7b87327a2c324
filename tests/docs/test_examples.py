"""Every command and every example in `docs/` runs, as it stands, against the real server.

A page's blocks become one shell script, in their order, in a scratch directory: a variable set in
one block is there in the next, as in a reader's terminal. Two things differ from a reader's:
`agentsight serve` goes to the background when it is ready (and first stops what serves at the same
port, as a reader stops it by Ctrl-C), and ports are free ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agentsight.server.dashboard.snippet import SNIPPET
from tests.docs.pages import DOCS, ROOT, RUNNABLE, Block, blocks_of
from tests.support.postgres import TestDatabases, find_binaries
from tests.support.proxies import free_port
from tests.support.published import published_python
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed
from tests.support.server import LiveServer, bare_environment

TIMEOUT_S = 300
PAGES = (
    "quickstart.md",
    "sdk.md",
    "attachments.md",
    "http-api.md",
    "self-hosting.md",
    "object-storage.md",
)
"""The pages with commands; `proxies.md` and its configurations have tests of their own."""
OTHERS = ("benchmarks.md", "proxies.md")
"""Run by `make bench` and by tests/proxies."""
_PORTS = (8000, 8001, 8002, 8003)
_POSTGRESQL = "postgresql://agentsight:secret@127.0.0.1:5432/"
_S3 = (
    "http://127.0.0.1:8333",
    "s3://agentsight",
    "AWS_ACCESS_KEY_ID=agentsight AWS_SECRET_ACCESS_KEY=change-me-to-something-long",
)

_PRELUDE = r"""
set -euo pipefail
declare -A servers
stop_server() {
    if [ -n "${servers[$1]:-}" ]; then kill "${servers[$1]}"; wait "${servers[$1]}" || true; fi
    unset "servers[$1]"
}
stop_servers() {
    local code=$?
    for port in "${!servers[@]}"; do stop_server "$port"; done
    exit "$code"
}
trap stop_servers EXIT
agentsight() {
    if [ "$1" != serve ]; then command agentsight "$@"; return; fi
    local port=$AGENTSIGHT_PORT words=("$@")
    for ((i = 0; i < $#; i++)); do
        if [ "${words[i]}" = --port ]; then port=${words[i + 1]}; fi
    done
    stop_server "$port"
    rm -f "ready-$port"; mkfifo "ready-$port"
    command agentsight "$@" > "ready-$port" 2>> server.log &
    servers[$port]=$!
    local line="" word
    while read -r word; do
        line=$word
        case $word in *"is ready"*) break ;; esac
    done < "ready-$port"
    case $line in *"is ready"*) ;; *) cat server.log >&2; return 1;; esac
}
"""


def _script(blocks: list[Block], scratch: Path) -> str:
    lines = [_PRELUDE]
    for number, block in enumerate(blocks):
        if block.language not in RUNNABLE or "not-run" in block.options:
            continue
        lines.append(f"echo '--- {block.page.name}, line {block.line}' >&2")
        if block.language == "python":
            example = scratch / f"example-{number}.py"
            example.write_text(block.text, encoding="utf-8")
            lines.append(f"{_python(block)} -W error::ResourceWarning {shlex.quote(str(example))}")
        else:
            lines.append(block.text)
    return "\n".join(lines)


def _python(block: Block) -> str:
    chosen = block.options.get("run-with")
    if chosen == "published":
        return shlex.quote(str(published_python()))
    return shlex.quote(chosen or sys.executable)


def _localised(text: str, postgresql: str | None) -> str:
    for port in _PORTS:
        free = str(free_port())
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
        text = text.replace(f"--port {port}", f"--port {free}")
        if port == _PORTS[0]:
            text = f"export AGENTSIGHT_PORT={free}\n{text}"
    return text if postgresql is None else text.replace(_POSTGRESQL, postgresql)


def _environment() -> dict[str, str]:
    ours = str(Path(sys.executable).parent)
    environment = bare_environment() | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment["PATH"] = os.pathsep.join([ours, str(find_binaries()), environment["PATH"]])
    return environment


def _run(
    page: str, scratch: Path, postgresql: str | None = None, seaweed: Seaweed | None = None
) -> subprocess.CompletedProcess[str]:
    script = _localised(_script(blocks_of(DOCS / page), scratch), postgresql)
    if seaweed is not None:
        keys = f"AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}"
        for ours, theirs in zip(_S3, (seaweed.endpoint, seaweed.new_url(), keys), strict=True):
            assert ours in script
            script = script.replace(ours, theirs)
    for example in scratch.glob("example-*.py"):
        # Ports of a page are the same in its commands and in its Python.
        assert f":{_PORTS[0]}" not in example.read_text(), "read the address from the environment"
    done = subprocess.run(
        [str(shutil.which("bash")), "-c", script],
        cwd=scratch,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{page}:\n{done.stdout}\n{done.stderr}"
    return done


def _json_values(text: str) -> list[Any]:
    """Return the JSON values that stand one behind the other at the beginning of a text."""
    values: list[Any] = []
    while text.startswith("{"):
        value, end = json.JSONDecoder().raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


@pytest.mark.slow
def test_the_quick_start_runs(tmp_path: Path) -> None:
    """A new user's first ten minutes work to the letter, the SDK installed from the server."""
    done = _run("quickstart.md", tmp_path)
    assert "text hello.txt text/plain 18 http://127.0.0.1:" in done.stdout
    assert (tmp_path / "downloads" / "hello.txt").read_text() == "A file for my bot."
    assert "/a.png" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_page_of_the_sdk_runs(tmp_path: Path) -> None:
    """Every recipe and rule of the SDK's page is true today."""
    _run("sdk.md", tmp_path)


@pytest.mark.slow
def test_the_page_on_files_runs(tmp_path: Path) -> None:
    """Uploads, previews, search, archives, deletion and receipts are what the page says."""
    done = _run("attachments.md", tmp_path)
    assert "1000000 bytes are safe" in done.stdout
    assert "nothing is kept of 'ada'" in done.stderr
    told = (tmp_path / "server.log").read_text()
    assert "the database did not know of 1; erased again 2 conversations" in told
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    (shown,) = [b for b in blocks_of(DOCS / "attachments.md") if b.language == "json"]
    assert _without_times(receipt) == _without_times(json.loads(shown.text))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        assert archive.namelist()[-1] == "manifest.json"
    assert done.stdout.count("All is well.") == 1


def _without_times(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return what of a receipt is the same each time: all but its uid, its times, and the size of
    pictures, which another version of their library may write otherwise."""
    left = {name: value for name, value in receipt.items() if not name.endswith(("uid", "_at"))}
    left["copies"] = {**left["copies"], "caches_until": None}
    left["removed"] = {**left["removed"], "bytes": None}
    return left


def test_the_page_of_the_http_api_runs(tmp_path: Path) -> None:
    """The API's examples are what the server takes and answers."""
    done = _run("http-api.md", tmp_path)
    answers = _json_values(done.stdout)
    tracked, batch, form, base64_upload, listed = answers
    assert tracked["conversation_id"] == form["conversation_id"] == "web-1"
    assert [item["status"] for item in batch["items"]] == ["stored", "stored"]
    assert [file["filename"] for file in form["attachments"]] == ["a.png"]
    assert base64_upload["attachments"][0]["size_bytes"] == 5
    assert [row["conversation_id"] for row in listed["results"]] == ["web-2"]
    assert "HTTP/1.1 206" in done.stdout
    assert done.stdout.endswith("hell")


@pytest.mark.slow
def test_the_page_on_self_hosting_runs(tmp_path: Path, postgres_databases: TestDatabases) -> None:
    """Keys rotate, backups restore, and both databases start as the operator's page says."""
    main = postgres_databases.create_empty("docs_agentsight")
    copy = postgres_databases.create_empty("docs_restored")
    page = tmp_path / "renamed"
    page.mkdir()
    server = main.rpartition("/")[0] + "/docs_"
    _run("self-hosting.md", page, server)
    for url in (main, copy):
        postgres_databases.drop(url)


@pytest.mark.slow
def test_the_page_on_object_storage_runs(tmp_path: Path, seaweed: Seaweed) -> None:
    """A bucket is one setting and the usual variables, and the doctor finds it private."""
    done = _run("object-storage.md", tmp_path, seaweed=seaweed)
    assert "the bucket is private" in done.stdout


def test_the_lines_of_the_readme_run(tmp_path: Path) -> None:
    """The first fifteen lines that anybody reads work, with a key in place of the placeholder."""
    (example,) = [b for b in blocks_of(ROOT / "README.md") if b.language == "python"]
    with LiveServer(tmp_path) as server:
        key = server.make_agent().write_key
        assert "ags_your_key" in example.text
        done = subprocess.run(
            [sys.executable, "-c", example.text.replace("ags_your_key", key)],
            cwd=tmp_path,
            env=bare_environment() | {"AGENTSIGHT_API_ENDPOINT": server.base_url},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"hello.txt text/plain {server.base_url}/files/")


def test_the_first_examples_do_not_meet_in_one_conversation() -> None:
    """Whoever runs README, start page and quick start in turn gets what each of them promises."""
    opened = re.compile(r"get_or_create_conversation\((?:conversation_id=)?\"([^\"]+)\"")
    texts = [
        (ROOT / "README.md").read_text(encoding="utf-8"),
        (DOCS / "quickstart.md").read_text(encoding="utf-8"),
        SNIPPET,
    ]
    named = [name for text in texts for name in opened.findall(text)]
    assert len(named) == 4
    assert len(set(named)) == len(named)


def test_every_page_with_commands_is_run_and_what_is_not_run_says_why() -> None:
    """No example is on a page that nobody runs, and none is left out without a reason."""
    blocks = [block for page in DOCS.rglob("*.md") for block in blocks_of(page)]
    runnable = [block for block in blocks if block.language in RUNNABLE]
    elsewhere = {block.page.name for block in runnable} - set(PAGES) - set(OTHERS)
    assert elsewhere == set()
    assert all(block.language for block in blocks), "name the language of each block"
    left_out = [block for block in runnable if "not-run" in block.options]
    assert all(len(block.options["not-run"]) > 10 for block in left_out)
    assert len(left_out) <= 3
