"""Folders for copies: each its own, gone afterwards, and after a crash by whoever comes next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentsight.server.blobs import Scratch, StorageFull

HOLD = """
import asyncio, sys
from pathlib import Path
from agentsight.server.blobs import Scratch
async def main():
    async with Scratch(Path(sys.argv[1])).folder() as folder:
        (folder / "copy").write_bytes(b"of a stranger's file")
        print("held", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


@pytest.mark.anyio
async def test_a_folder_goes_with_what_is_in_it(tmp_path: Path) -> None:
    """Two at once are two; nothing is left of either, nor of the process's own when it closes."""
    scratch = Scratch(tmp_path)
    async with scratch.folder() as one, scratch.folder() as other:
        assert one != other
        (one / "copy").write_bytes(b"bytes")
    assert not one.exists()
    assert not other.exists()
    scratch.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Who comes next removes it, and leaves what a process that lives has in hand."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert Scratch(tmp_path).sweep() == 0
        assert len(list(tmp_path.glob("scratch/*/*/copy"))) == 1
        process.kill()
    assert len(list(tmp_path.glob("scratch/*/*/copy"))) == 1
    assert Scratch(tmp_path).sweep() == 1
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.anyio
async def test_no_room_is_said(tmp_path: Path) -> None:
    """A place that cannot be made is a full disk to whoever asks for a preview."""
    (tmp_path / "scratch").write_text("a file where the folder should be")
    with pytest.raises(StorageFull, match="no room for a copy to look at"):
        async with Scratch(tmp_path).folder():
            pass
