"""A parser with the worst of faults: it runs what a file says.

The library is replaced by one that runs a "PDF" as Python, in the worker, where a real fault would
run its code. What the code leaves in `said` comes back as the note of an unreadable file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentsight.server.media import Examiner

_FAULTY_LIBRARY = """
import json

class PdfiumError(Exception):
    pass

class PdfDocument:
    def __init__(self, path):
        from agentsight.server.media.readers.errors import NotReadable
        scope = {"source": path}
        with open(path) as file:
            exec(file.read(), scope)
        raise NotReadable(json.dumps(scope.get("said")))
"""


def put_faulty_library(folder: Path) -> None:
    """Write it where a `PYTHONPATH` can lead to it."""
    (folder / "pypdfium2.py").write_text(_FAULTY_LIBRARY)


@dataclass
class Takeover:
    """Runs code in a worker."""

    examiner: Examiner
    folder: Path

    async def run(self, code: str) -> Any:
        """Run it and return what it left in `said`."""
        path = self.folder / "code.pdf"
        path.write_text(code)
        facts = await self.examiner.examine(path, mime_type="application/pdf", filename="a.pdf")
        assert facts.note
        return json.loads(facts.note)

    async def run_with_output(self, code: str, out: Path) -> None:
        """Run it where a thumbnail is asked for."""
        path = self.folder / "code.pdf"
        path.write_text(code)
        made = await self.examiner.thumbnail(
            path, mime_type="application/pdf", max_edge=128, out=out
        )
        assert made is None
