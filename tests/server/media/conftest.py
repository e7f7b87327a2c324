"""An examiner for the tests of a module, and a way to ask it about bytes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from agentsight.server.blobs import detect_mime_type
from agentsight.server.media import Examined, Examiner, Made
from tests.server.media.takeover import Takeover, put_faulty_library

FILES = Path(__file__).parents[2] / "data" / "files"


@dataclass
class Desk:
    """Puts bytes into files and asks about them by their detected type."""

    examiner: Examiner
    folder: Path

    @property
    def out(self) -> Path:
        """Where previews and copies go."""
        return self.folder / "out"

    def put(self, body: bytes, name: str) -> tuple[Path, str]:
        """Write a file and tell its type."""
        path = self.folder / "body"
        path.write_bytes(body)
        mime_type = detect_mime_type(body, len(body))
        assert mime_type, name
        return path, mime_type

    async def examine(self, body: bytes, name: str = "file") -> Examined:
        """Learn what there is to learn."""
        path, mime_type = self.put(body, name)
        return await self.examiner.examine(path, mime_type=mime_type, filename=name)

    async def thumbnail(self, body: bytes, max_edge: int = 512) -> Made | None:
        """Make a small picture at `out`."""
        path, mime_type = self.put(body, "file")
        return await self.examiner.thumbnail(
            path, mime_type=mime_type, max_edge=max_edge, out=self.out
        )

    async def playback(self, body: bytes) -> Made | None:
        """Make a copy for browsers at `out`."""
        path, mime_type = self.put(body, "file")
        return await self.examiner.playback(path, mime_type=mime_type, out=self.out)

    def picture(self) -> Image.Image:
        """Open what was made, decoded."""
        with Image.open(self.out) as made:
            made.load()
            return made


def memory_of(pids: list[int]) -> int:
    """Return the most that any of these processes has used so far, in bytes."""
    peaks = [
        int(line.split()[1]) * 1024
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return max(peaks)


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what the examiner wrote; the session's servers write too, about what they do."""
    return [record for record in caplog.records if record.module == "examiner"]


@pytest.fixture(scope="module")
async def examiner(anyio_backend: str) -> AsyncIterator[Examiner]:
    """Give one examiner to all tests of a module."""
    made = Examiner(memory_bytes=1 << 30, timeout_s=30)
    yield made
    await made.close()


@pytest.fixture
def desk(examiner: Examiner, tmp_path: Path) -> Desk:
    """Give a desk in a fresh folder."""
    return Desk(examiner, tmp_path)


@pytest.fixture(scope="module")
async def faulty(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Examiner]:
    """Give an examiner whose library for PDF runs what a file says."""
    library = tmp_path_factory.mktemp("library")
    put_faulty_library(library)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(library))
        made = Examiner(memory_bytes=1 << 30, timeout_s=60)
        yield made
        await made.close()


@pytest.fixture
def taken(faulty: Examiner, tmp_path: Path) -> Takeover:
    """Give a way to run code in a worker, in a fresh folder."""
    (tmp_path / "desk").mkdir(exist_ok=True)
    return Takeover(faulty, tmp_path / "desk")
