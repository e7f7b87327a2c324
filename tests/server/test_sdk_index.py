"""The server hands out its SDK as a wheel that pip takes."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import agentsight
from agentsight.server import sdk_index
from agentsight.server.dashboard.snippet import snippet
from tests.cli.commands import Serving, clean_environment, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Serve a fresh instance."""
    with serving("--data", str(tmp_path_factory.mktemp("sdk"))) as running:
        yield running


def test_the_wheel_is_whole() -> None:
    """Every file of the package is in it, and RECORD tells each one's hash and size."""
    wheel = sdk_index.build_wheel()
    archive = zipfile.ZipFile(io.BytesIO(wheel.body))
    names = set(archive.namelist())
    package = Path(agentsight.__file__).parent
    for path in package.rglob("*"):
        if path.suffix in (".py", ".sql", ".html", ".css") or path.name == "py.typed":
            assert f"agentsight/{path.relative_to(package).as_posix()}" in names
    assert not any("__pycache__" in name or name.endswith(".pyc") for name in names)
    info = f"agentsight_open-{agentsight.__version__}.dist-info"
    assert {
        f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")
    } < names
    for line in archive.read(f"{info}/RECORD").decode().splitlines():
        name, digest, size = line.rsplit(",", 2)
        if name.endswith("RECORD"):
            assert (digest, size) == ("", "")
            continue
        body = archive.read(name)
        told = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={told}", len(body))


def test_the_wheel_is_the_same_in_every_process() -> None:
    """Two workers hand out equal bytes under one name."""
    code = "from agentsight.server.sdk_index import build_wheel; print(build_wheel().sha256)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == sdk_index.build_wheel().sha256


def test_the_index_leads_to_the_wheel(server: Serving) -> None:
    """Root, project, file, as PEP 503 wants them; the hash in the link is the file's."""
    root = httpx2.get(f"{server.url}/sdk/")
    assert '<a href="agentsight-open/">' in root.text
    page = httpx2.get(f"{server.url}/sdk/agentsight-open/")
    assert page.headers["content-type"].startswith("text/html")
    link = re.search(
        r'<a href="([^"#]+)#sha256=([0-9a-f]{64})" data-requires-python="&gt;=', page.text
    )
    assert link is not None
    wheel = httpx2.get(f"{server.url}/sdk/agentsight-open/{link[1]}")
    assert hashlib.sha256(wheel.content).hexdigest() == link[2]
    assert sdk_index.sdk_install_line(server.url).endswith(link[1])


@pytest.mark.parametrize("path", ["requests/", "agentsight-open/other.whl", "requests/x.whl"])
def test_there_is_nothing_else_in_the_index(server: Serving, path: str) -> None:
    """Other projects and files are a 404, so that pip goes on to its other index."""
    assert httpx2.get(f"{server.url}/sdk/{path}").status_code == 404


def test_pip_installs_it_in_an_empty_environment(server: Serving, tmp_path: Path) -> None:
    """The printed line works, the import needs no server, and the README's lines run."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    words = sdk_index.sdk_install_line(server.url).split()
    install = subprocess.run(
        [python, "-m", *words, "--quiet", "--disable-pip-version-check"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert install.returncode == 0, install.stderr
    data = re.search(r"--data (\S+)", " ".join(map(str, server.process.args)))
    assert data is not None
    key = re.search(r"ags_\w+", (Path(data[1]) / "first-start.txt").read_text())
    assert key is not None
    run = subprocess.run(
        [python, "-I", "-c", snippet(server.url, key[0])],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("hello.txt text/plain http")
    command = subprocess.run(
        [str(tmp_path / "venv" / "bin" / "agentsight"), "serve"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=clean_environment(),
    )  # fmt: skip
    assert command.returncode == 1
    assert "agentsight-open[server]" in command.stderr
