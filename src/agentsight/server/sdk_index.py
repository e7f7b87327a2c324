"""The server hands out its own SDK: `/sdk/` is a simple index with the wheel it runs from.

The wheel is put together from the package as it is installed here, an editable installation or a
wheel alike, so that a bot's SDK always fits its server. Equal packages give equal bytes (no times,
no order of a file system, no compressor's mood), or two workers could hand out two files under one
name.

The printed install line names the wheel itself and not the index: beside another index, pip would
take whatever anybody uploads there under our name with a higher version.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import html
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from litestar import Response, get
from litestar.params import FromPath

import agentsight
from agentsight.server.problems import Problem, not_found

PROJECT = "agentsight-open"
INDEX_PATH = "/sdk/"
_FILE_STEM = "agentsight_open"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first moment a ZIP can hold."""
_REGULAR_FILE = 0o100644 << 16
_SKIPPED = frozenset({"__pycache__"})
_SKIPPED_SUFFIXES = (".pyc", ".pyo", ".orig", ".rej", "~")
_BUILDING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel ready to be sent."""

    name: str
    body: bytes
    sha256: str
    requires_python: str


def wheel_name() -> str:
    """Return the file name of the wheel, without making it."""
    return f"{_FILE_STEM}-{agentsight.__version__}-py3-none-any.whl"


def sdk_install_line(base_url: str) -> str:
    """Return the command that installs this server's SDK.

    Args:
        base_url: The server's address, without a trailing slash.
    """
    return f"pip install {base_url}{INDEX_PATH}{PROJECT}/{wheel_name()}"


# --- Making it ------------------------------------------------------------------------------------


@functools.cache
def _build() -> Wheel:
    """Put the wheel together: about a megabyte, read from disk once."""
    own = distribution(PROJECT)
    metadata = _metadata(own)
    info = f"{_FILE_STEM}-{agentsight.__version__}.dist-info"
    files = dict(_package_files(Path(agentsight.__file__).parent))
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: agentsight-server\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = (own.read_text("entry_points.txt") or "").encode()
    for name in re.findall(r"^License-File: (\S+)$", metadata, re.MULTILINE):
        text = own.read_text(f"licenses/{name}")
        if text is not None:
            files[f"{info}/licenses/{name}"] = text.encode()
    body = _zip(files, f"{info}/RECORD")
    python = re.search(r"^Requires-Python: (.+)$", metadata, re.MULTILINE)
    return Wheel(
        wheel_name(), body, hashlib.sha256(body).hexdigest(), python[1].strip() if python else ""
    )


def _metadata(own: Distribution) -> str:
    """Return the installed METADATA; an editable one may name the version it was installed at."""
    text = own.read_text("METADATA") or ""
    line = f"Version: {agentsight.__version__}"
    return re.sub(r"^Version: .*$", line, text, count=1, flags=re.MULTILINE)


def _package_files(package: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(package.rglob("*")):
        inside = path.relative_to(package)
        hidden = any(part in _SKIPPED or part.startswith(".") for part in inside.parts)
        if path.is_file() and not hidden and not path.name.endswith(_SKIPPED_SUFFIXES):
            yield f"{package.name}/{inside.as_posix()}", path.read_bytes()


def _zip(files: dict[str, bytes], record_name: str) -> bytes:
    lines = [f"{name},{_record_hash(body)},{len(body)}" for name, body in files.items()]
    record = "".join(f"{line}\n" for line in [*lines, f"{record_name},,"])
    out = io.BytesIO()
    # Stored, not deflated: what a compressor makes depends on its version.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, body in [*files.items(), (record_name, record.encode())]:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _REGULAR_FILE
            archive.writestr(entry, body)
    return out.getvalue()


def _record_hash(body: bytes) -> str:
    digest = hashlib.sha256(body).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def build_wheel() -> Wheel:
    """Return the wheel, made at the first call and kept for the life of the process.

    Raises:
        Problem: 404 where the package runs from a source tree that was never installed.
    """
    with _BUILDING:
        try:
            return _build()
        except PackageNotFoundError as error:
            text = f"The distribution {PROJECT} is not installed here: run pip install -e ."
            raise Problem(404, "not_found", text) from error


# --- Handing it out -------------------------------------------------------------------------------


def _page(title: str, links: str) -> Response[bytes]:
    body = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="pypi:repository-version" content="1.0">'
        f"<title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n{links}\n</body></html>\n"
    )
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body.encode(), media_type="text/html", headers=headers)


@get("/sdk/", include_in_schema=False)
async def list_projects() -> Response[bytes]:
    """Answer the index's root: one project."""
    return _page("Simple index", f'<a href="{PROJECT}/">{PROJECT}</a>')


@get("/sdk/{project:str}/", include_in_schema=False)
async def list_files(project: FromPath[str]) -> Response[bytes]:
    """Answer a project's page: one wheel, with its hash (PEP 503)."""
    if re.sub(r"[-_.]+", "-", project).lower() != PROJECT:
        raise not_found()
    wheel = await asyncio.to_thread(build_wheel)
    python = html.escape(wheel.requires_python, quote=True)
    link = f'<a href="{wheel.name}#sha256={wheel.sha256}" data-requires-python="{python}">'
    return _page(f"Links for {PROJECT}", f"{link}{wheel.name}</a>")


@get("/sdk/{project:str}/{file_name:str}", include_in_schema=False)
async def send_wheel(project: FromPath[str], file_name: FromPath[str]) -> Response[bytes]:
    """Send the wheel."""
    if re.sub(r"[-_.]+", "-", project).lower() != PROJECT or file_name != wheel_name():
        raise not_found()
    wheel = await asyncio.to_thread(build_wheel)
    headers = {
        "Cache-Control": "no-cache",
        "ETag": f'"{wheel.sha256}"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(wheel.body, media_type="application/zip", headers=headers)


sdk_routes = [list_projects, list_files, send_wheel]
