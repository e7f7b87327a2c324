"""A conversation's ZIP on the command line: where it goes, and which files are not in it."""

from __future__ import annotations

import errno
import json
import os
import sys
import zipfile
from collections import deque
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast

from agentsight.cli._support import CliError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from agentsight import AgentSightAPI

_TAIL_BYTES: Final = 64 * 1024 * 1024
"""Of what goes to standard output so much is kept: the manifest and the ZIP's own list stand last,
and take about a kilobyte a file."""
_MANIFEST_NAME: Final = "manifest.json"


def fetch_zip(
    api: AgentSightAPI,
    reference: int | str,
    to: str,
    *,
    overwrite: bool,
    progress: Callable[[int], object],
) -> tuple[int, list[str] | None]:
    """Fetch a ZIP into a file, or to standard output where that is named `-`.

    Returns:
        Its size, and a line for each file that is not in it; None where nobody can say.

    Raises:
        CliError: It may not go there.
    """
    if to == "-":
        return _fetch_to_output(api, reference, progress)
    if os.path.isdir(to):
        raise CliError(f"--zip {to} is a directory: give the name of a file")
    if os.path.lexists(to) and not overwrite:
        raise CliError(f"{to} is there already: give another name, or --overwrite")
    n_bytes = api.download_attachments_zip(reference, to, progress=progress)
    with open(to, "rb") as stream:
        return n_bytes, _read_absent(stream)


def _fetch_to_output(
    api: AgentSightAPI, reference: int | str, progress: Callable[[int], object]
) -> tuple[int, list[str] | None]:
    from agentsight import _archives as archives

    if sys.stdout.isatty():
        raise CliError("a ZIP is nothing for a terminal: give --zip FILE", exit_code=2)
    passing = _Passing(sys.stdout.buffer)
    # It asks no more of a stream than `write`, `seek` and `truncate`.
    stream = cast("BinaryIO", passing)
    n_bytes = api.run(archives.fetch_zip_into(reference, stream, progress))
    sys.stdout.buffer.flush()
    return n_bytes, _read_absent(BytesIO(passing.tail()))


class _Passing:
    """Passes bytes on, and keeps the last of them. It cannot go back, as a pipe cannot."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._kept: deque[bytes] = deque()
        self._n_kept = 0

    def write(self, chunk: bytes) -> int:
        self._kept.append(chunk)
        self._n_kept += len(chunk)
        while self._n_kept - len(self._kept[0]) > _TAIL_BYTES:
            self._n_kept -= len(self._kept.popleft())
        return self._stream.write(chunk)

    def seek(self, _offset: int, _whence: int = 0) -> int:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))

    def truncate(self, _size: int | None = None) -> int:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))

    def tail(self) -> bytes:
        """Return the last bytes."""
        return b"".join(self._kept)


def _read_absent(stream: BinaryIO) -> list[str] | None:
    """Read from a ZIP's manifest, in the whole or its end, which files are not in it."""
    try:
        with zipfile.ZipFile(stream) as archive:
            manifest: dict[str, Any] = json.loads(archive.read(_MANIFEST_NAME))
        return [
            f"{file['filename']}: {_why(file)}"
            for message in manifest["messages"]
            for file in message["attachments"]
            if file["path"] is None
        ]
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, TypeError):
        return None


def _why(file: dict[str, Any]) -> str:
    if file.get("withheld"):
        return f"it is withheld ({file['withheld']})"
    return "its bytes are not in the server's store any more"
