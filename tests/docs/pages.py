"""The pages of the repository, and the fenced blocks in them."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUNNABLE = ("bash", "console", "python")
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: what its first line says, and its text.

    Attributes:
        options: `not-run="why"` and `run-with="which Python"`.
    """

    page: Path
    line: int
    language: str
    options: dict[str, str]
    text: str


def all_pages() -> list[Path]:
    """Return every Markdown page of the repository that git knows or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return sorted(ROOT / name for name in set(listed.stdout.split()) if (ROOT / name).exists())


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    for found in _FENCE.finditer(text):
        words = shlex.split(found[1])
        options = dict(word.split("=", 1) for word in words[1:])
        line = text.count("\n", 0, found.start()) + 1
        blocks.append(Block(page, line, words[0] if words else "", options, found[2]))
    return blocks


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
