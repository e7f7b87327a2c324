"""Is a thumbnail from the cache as quick as a small file?

A photo is stored and its thumbnail made; the thumbnail's very bytes are then stored as a file of
their own. Both are fetched by link, in turns: what differs is one row more to look at.
"""

from __future__ import annotations

import base64
import io
import json
import os
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.dataset import HEADERS, KEY
from benchmarks.measuring import (
    LOAD_CORE,
    SCRATCH,
    Server,
    agentsight,
    line,
    median,
    ratio,
    take_turns,
    title,
    verdict,
    wrk,
)

N_ROUNDS = 7
SECONDS = 2


def _photo() -> bytes:
    """Draw a picture with some detail."""
    from PIL import Image

    small = Image.effect_noise((320, 240), 60).convert("RGB")
    out = io.BytesIO()
    small.resize((3200, 2400)).save(out, "JPEG", quality=85)
    return out.getvalue()


def _store(server: Server, name: str, data: bytes) -> dict[str, str]:
    """Store a file in a conversation and return its row."""
    file = {"filename": name, "data": base64.b64encode(data).decode()}
    body = json.dumps({"conversation_id": "previews", "attachments": [file]}).encode()
    request = urllib.request.Request(
        f"{server.url}/api/attachments/", body, {**HEADERS, "Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["attachments"][0]


def main() -> bool:
    """Measure, and print; True when the floors are met."""
    os.sched_setaffinity(0, {LOAD_CORE})
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=SCRATCH) as folder,
        agentsight(Path(folder), init_key=KEY) as server,
    ):
        preview = urlsplit(_store(server, "photo.jpg", _photo())["preview_url"]).path
        status, thumbnail = server.get(preview)
        if status != 200:
            raise SystemExit(f"the thumbnail was answered {status}: {thumbnail[:300]!r}")
        file = urlsplit(_store(server, "thumbnail.webp", thumbnail)["file_url"]).path
        if server.get(file)[1] != thumbnail:
            raise SystemExit("the file is not the thumbnail")
        found = take_turns(
            N_ROUNDS,
            {
                "file": lambda: wrk(server, file, seconds=SECONDS).cpu_us,
                "thumbnail": lambda: wrk(server, preview, seconds=SECONDS).cpu_us,
            },
        )
    title(f"A thumbnail of {len(thumbnail)} bytes from the cache, by link (load: wrk)")
    line("a file of the same bytes, CPU", f"{median(found['file']):.1f} µs")
    line("the thumbnail, CPU", f"{median(found['thumbnail']):.1f} µs")
    return verdict("a small file / a thumbnail", ratio(found, "file", "thumbnail"), least=0.85)
