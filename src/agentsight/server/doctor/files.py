"""Checks of what is done with files in the background: examining them, in what walls, erasing."""

from __future__ import annotations

import importlib.util
import io
import struct
import tempfile
import wave
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentsight.server.db import Database
from agentsight.server.doctor import store
from agentsight.server.doctor.model import Finding
from agentsight.server.media import Examined, Examiner, ExaminerDied, sandbox_gaps
from agentsight.server.settings import Settings, variable_of
from agentsight.server.times import to_text

MAX_WAIT_S: Final = 3600
"""What waits for longer waits for something that does not come by itself."""
_US: Final = 1_000_000
_INSTALL: Final = (
    "Install the extra `server` whole, for the server's own Python; then, for the files that are"
    " here: agentsight previews retry"
)


async def check_examiner(settings: Settings) -> list[Finding]:
    """Have small files of our own examined, as a server would: in a process with its limits."""
    if not settings.examine:
        text = f"{variable_of('examine')} is off: no sizes, no previews, no search inside files"
        return [Finding("examiner", "skip", text)]
    examiner = Examiner(
        memory_bytes=settings.examine_memory_bytes, timeout_s=settings.examine_timeout_s
    )
    found: list[Finding] = []
    try:
        with tempfile.TemporaryDirectory(prefix="agentsight-doctor-") as folder:
            for sample in _SAMPLES:
                found += await _try(examiner, _written(Path(folder), sample), sample)
    finally:
        await examiner.close()
    # Its one sample would be larger than this file.
    if importlib.util.find_spec("pillow_heif") is None:
        text = "HEIC pictures cannot be examined: pillow_heif is not installed"
        found.append(Finding("examiner", "warn", text, _INSTALL))
    return found or [Finding("examiner", "ok", "pictures, PDFs, sound and video can be examined")]


_WITHOUT: Final = {
    "Landlock": "may read what the server may read, all tenants' files and the database among it",
    "seccomp": "may open connections and start programs",
}
_REMEDY: Final = {
    "Landlock": (
        "Use Linux 5.13 or newer, with `landlock` among its security modules (its option `lsm=`),"
        " and a container runtime whose profile lets its system calls through."
    ),
    "seccomp": "Use Linux on x86-64 or 64-bit ARM, with seccomp filters in its kernel.",
}


async def check_sandbox(settings: Settings) -> list[Finding]:
    """Say which walls stand around the process that parses files, on this machine."""
    if not settings.examine:
        return [Finding("sandbox", "skip", f"{variable_of('examine')} is off: no file is parsed")]
    found = [
        Finding(
            "sandbox",
            "warn",
            f"no {layer} here: a faulty parser that runs a file's code {_WITHOUT[layer]}",
            f"{_REMEDY[layer]} Or set {variable_of('examine')}=off.",
        )
        for layer in sandbox_gaps()
    ]
    text = "files are parsed in a sandbox: by Landlock no other files, by seccomp no connections"
    return found or [Finding("sandbox", "ok", text)]


def _written(folder: Path, sample: _Sample) -> Path:
    path = folder / "sample"
    path.write_bytes(sample.content)
    return path


async def _try(examiner: Examiner, path: Path, sample: _Sample) -> list[Finding]:
    try:
        examined = await examiner.examine(path, mime_type=sample.mime_type, filename="sample")
        reason = examined.note or "a sample was not understood"
        if examined.note is None and sample.is_right(examined):
            return []
    except (ExaminerDied, OSError) as error:
        reason = str(error)
    text = f"{sample.kind} cannot be examined"
    if importlib.util.find_spec(sample.library) is None:
        text = f"{text}: {sample.library} is not installed"
        return [Finding("examiner", "warn", text, _INSTALL)]
    if reason.endswith(" is not installed"):  # which a part of it says that finds no room
        reason = f"{sample.library} cannot be loaded"
    remedy = (
        f"Is {variable_of('examine_memory_bytes')} too low, or has this machine too little memory?"
        " Else install the extra `server` anew."
    )
    return [Finding("examiner", "warn", f"{text}: {reason}", remedy)]


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*pair) for pair in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


def _wav() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16_000))
    return out.getvalue()


_PDF: Final = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A small file of ours, and how what is learned of it is recognised."""

    kind: str
    library: str
    mime_type: str
    content: bytes
    is_right: Callable[[Examined], bool]


_SAMPLES: Final = (
    _Sample("pictures", "PIL", "image/png", _png(), lambda found: found.width == 1),
    _Sample("PDFs", "pypdfium2", "application/pdf", _PDF, lambda found: found.pages == 1),
    _Sample("sound and video", "av", "audio/wav", _wav(), lambda found: found.seconds == 1.0),
)


async def check_background(db: Database, settings: Settings, now_us: int) -> list[Finding]:
    """Look for erasures and examinations that do not come to an end."""
    before = now_us - MAX_WAIT_S * _US
    found: list[Finding] = []
    n, since_us = await db.read(lambda tx: store.stuck_erasures(tx, before))
    if n:
        verb = "s are" if n != 1 else " is"
        text = f"{n} erasure{verb} not complete, and nobody was at it for an hour; begun"
        remedy = (
            "Start the server, which finishes them, and look at its log for `erasures`; or:"
            " agentsight erasures finish"
        )
        found.append(Finding("background", "fail", f"{text} {_since(since_us)}", remedy))
    if settings.examine:
        n, since_us = await db.read(lambda tx: store.waiting_examinations(tx, before))
        if n:
            verb = "s wait" if n != 1 else " waits"
            text = f"{n} file{verb} to be examined, since {_since(since_us)}"
            remedy = (
                "After an upgrade of a large instance that takes its time; else start the server,"
                " and look at its log for `looking at files`."
            )
            found.append(Finding("background", "warn", text, remedy))
    text = "no erasure and no examination waits for longer than an hour"
    return found or [Finding("background", "ok", text)]


def _since(time_us: int) -> str:
    return to_text(time_us - time_us % _US)
