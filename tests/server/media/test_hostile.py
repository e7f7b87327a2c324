"""What is damaged or made to do harm: no preview, no error, a note, memory within limits."""

from __future__ import annotations

import io
import os
import random
import resource
import struct
from pathlib import Path

import pytest
from PIL import Image

from agentsight.server.blobs import detect_mime_type
from agentsight.server.media import Examiner, can_examine
from tests.server.media import samples
from tests.server.media.conftest import FILES, Desk
from tests.server.media.samples import paragraph

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

SLOW_TO_READ = {
    "a run of spaces": (b"a" + b" " * 450_000 + b"x", "a.txt", "x"),
    "tabs without end": (
        samples.docx("<w:tab/>" * 450_000 + paragraph("x")), "a.docx", "x",
    ),
    "a format of brackets": (
        samples.archive({
            "xl/workbook.xml": "<workbook/>",
            "xl/styles.xml": f'<a><numFmt numFmtId="200" formatCode="{"[" * 400_000}"/></a>',
            "xl/worksheets/sheet1.xml": "<a><row><c><v>found</v></c></row></a>",
        }), "a.xlsx", "found",
    ),
    "a header of quotes": (
        b"From: a@b\nTo: " + b'"\\' * 1_000_000 + b"\nSubject: x\n\nhi", "a.eml", "From: a@b",
    ),
}  # fmt: skip
"""Bytes that take time by the square of their number, where a reader is careless."""

EXAMINABLE = sorted(
    path.name
    for path in FILES.iterdir()
    if can_examine(detect_mime_type(path.read_bytes(), path.stat().st_size))
)


def webp_of_16383() -> bytes:
    """Make the largest WebP there is: 268 million pixels in a few bytes."""
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "WEBP", lossless=True)
    body = bytearray(out.getvalue())
    at = body.index(b"VP8L") + 9
    bits = struct.unpack_from("<I", body, at)[0] & ~0x0FFFFFFF
    struct.pack_into("<I", body, at, bits | 16382 | (16382 << 14))
    return bytes(body)


def gif_of_65535() -> bytes:
    """Make a GIF whose canvas has 4 thousand million pixels."""
    out = io.BytesIO()
    Image.new("P", (16, 16)).save(out, "GIF")
    body = bytearray(out.getvalue())
    struct.pack_into("<HH", body, 6, 65535, 65535)
    return bytes(body)


def bmp_of_a_million() -> bytes:
    """Make a BMP of 10^6 times 10^6 pixels."""
    body = bytearray(samples.picture("BMP"))
    struct.pack_into("<ii", body, 18, 1_000_000, 1_000_000)
    return bytes(body)


LARGE_PICTURES = {
    "png": samples.huge_png(60_000, 60_000),
    "webp": webp_of_16383(),
    "gif": gif_of_65535(),
    "bmp": bmp_of_a_million(),
}


@pytest.mark.parametrize("kind", sorted(LARGE_PICTURES))
async def test_a_picture_too_large_to_decode_is_not_decoded(desk: Desk, kind: str) -> None:
    """Its header tells; the memory that its pixels would take is never asked for."""
    body = LARGE_PICTURES[kind]
    facts = await desk.examine(body)
    assert not facts.has_preview
    assert facts.note
    assert await desk.thumbnail(body) is None
    assert desk.examiner.peak_bytes() < 256 << 20


async def test_a_picture_of_sixty_thousand_still_tells_its_size(desk: Desk) -> None:
    """The fact is known, only the preview is not made."""
    facts = await desk.examine(LARGE_PICTURES["png"])
    assert (facts.width, facts.height) == (60_000, 60_000)
    assert facts.note == "60000 × 60000 pixels are more than 100,000,000"


async def test_a_pdf_that_claims_a_million_pages_has_no_preview(desk: Desk) -> None:
    """Nobody counts them."""
    body = samples.pdf("x", count=1_000_000)
    facts = await desk.examine(body)
    assert (facts.pages, facts.has_preview) == (None, False)
    assert facts.note == "it claims to have 1,000,000 pages"
    assert await desk.thumbnail(body) is None


async def test_a_page_as_large_as_a_town_is_drawn_small(desk: Desk) -> None:
    """The size of the drawing is ours, not the page's."""
    made = await desk.thumbnail(samples.pdf("x", box="0 0 1000000 1000000"))
    assert made
    assert (made.width, made.height) == (512, 512)
    made = await desk.thumbnail(samples.pdf("x", box="0 0 1000000 1"))
    assert made
    assert (made.width, made.height) == (512, 1)


def entity_bomb() -> bytes:
    """Make a billion laughs of a Word document."""
    entities = "".join(
        f'<!ENTITY {chr(98 + n)} "{("&" + chr(97 + n) + ";") * 10}">' for n in range(9)
    )
    return samples.archive(
        {"word/document.xml": f'<!DOCTYPE x [<!ENTITY a "lol">{entities}]><x><t>&j;</t></x>'}
    )


def outside_entity() -> bytes:
    """Make a Word document that asks for a file of ours."""
    declared = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    return samples.archive({"word/document.xml": f"{declared}<x><p><t>&a;</t></p></x>"})


ARCHIVES = {
    "a bomb": samples.docx(paragraph("A" * 1000) * 100_000),
    "a billion laughs": entity_bomb(),
    "a file from outside": outside_entity(),
    "deeply nested": samples.archive({"word/document.xml": "<a>" * 100_000}),
    "no document in it": samples.archive({"word/other.xml": "<a/>"}),
    "a method that nobody knows": samples.docx("").replace(b"\x08\x00", b"\x63\x00"),
}


@pytest.mark.parametrize("kind", sorted(ARCHIVES))
async def test_a_hostile_archive_gives_nothing(desk: Desk, kind: str) -> None:
    """Neither its text nor an error; and little memory."""
    facts = await desk.examine(ARCHIVES[kind], "a.docx")
    assert (facts.text, facts.has_preview) == (None, False)
    assert desk.examiner.peak_bytes() < 256 << 20


@pytest.mark.parametrize("kind", sorted(SLOW_TO_READ))
async def test_a_file_made_to_be_slow_is_read_all_the_same(desk: Desk, kind: str) -> None:
    """Its text is found within the time limit, which by the square of its size it would break."""
    body, name, found = SLOW_TO_READ[kind]
    facts = await desk.examine(body, name)
    assert facts.text
    assert found in facts.text


@pytest.mark.parametrize("kind", ["a bomb", "a billion laughs", "a file from outside"])
async def test_the_log_hears_why_a_hostile_archive_was_refused(desk: Desk, kind: str) -> None:
    """The operator can tell a bomb from a faulty reader."""
    assert (await desk.examine(ARCHIVES[kind], "a.docx")).note


@pytest.mark.parametrize("name", EXAMINABLE)
async def test_damaged_files_of_every_type_give_no_error(
    desk: Desk, name: str, tmp_path: Path
) -> None:
    """Cut off, overwritten, noise after the first bytes: an answer each time, and no crash."""
    whole = (FILES / name).read_bytes()
    mime_type = detect_mime_type(whole, len(whole)) or ""
    chance = random.Random(name)
    spoiled = [whole[: len(whole) // 2], whole[:32], whole[:16] + chance.randbytes(4000), b""]
    for n_spots in (1, 20, 200):
        body = bytearray(whole)
        for _ in range(n_spots):
            body[chance.randrange(len(body))] = chance.randrange(256)
        spoiled.append(bytes(body))
    path, out = tmp_path / "spoiled", tmp_path / "out"
    for body in spoiled:
        path.write_bytes(body)
        facts = await desk.examiner.examine(path, mime_type=mime_type, filename=name)
        made = await desk.examiner.thumbnail(path, mime_type=mime_type, max_edge=128, out=out)
        await desk.examiner.playback(path, mime_type=mime_type, out=out)
        if made:
            assert facts.has_preview


@pytest.mark.parametrize(
    "name", ["sample.jpg", "sample.png", "sample.gif", "sample.webp", "sample.docx", "sample.pdf"]
)
async def test_half_a_file_has_no_preview_and_a_note(desk: Desk, name: str) -> None:
    """Better nothing than a grey half."""
    whole = (FILES / name).read_bytes()
    half = whole[: len(whole) // 2]
    facts = await desk.examine(half, name)
    assert facts.note
    assert not facts.has_preview
    assert await desk.thumbnail(half) is None


async def test_a_playlist_in_a_videos_clothes_opens_nothing(desk: Desk, tmp_path: Path) -> None:
    """Only the reader of the detected type sees a file; none of them fetches others."""
    secret = tmp_path / "secret.mp4"
    samples.video(secret, "mp4", "libx264")
    path = tmp_path / "playlist"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n")
    for mime_type in ("video/mp4", "video/x-msvideo", "video/webm", "audio/mpeg"):
        facts = await desk.examiner.examine(path, mime_type=mime_type, filename="a.mp4")
        assert not facts.has_preview
        assert await desk.examiner.thumbnail(
            path, mime_type=mime_type, max_edge=128, out=desk.out
        ) is None  # fmt: skip


async def test_a_video_that_never_ends_costs_no_more_than_its_beginning(
    desk: Desk, tmp_path: Path
) -> None:
    """Half a gigabyte of nothing behind a second of film: a frame is shown, the rest not read."""
    path = tmp_path / "endless.webm"
    samples.video(path, "webm", "libvpx", frames=10)
    os.truncate(path, 500 << 20)
    made = await desk.examiner.thumbnail(path, mime_type="video/webm", max_edge=128, out=desk.out)
    assert made
    assert samples.is_upright(desk.picture())
    assert desk.examiner.peak_bytes() < 256 << 20


async def test_sound_that_never_ends_is_neither_measured_nor_copied(tmp_path: Path) -> None:
    """What cannot be walked through in time has no length and no copy; nobody dies of it."""
    path = tmp_path / "endless.amr"
    samples.sound(path, "amr", "libopencore_amrnb", seconds=1)
    os.truncate(path, 500 << 20)
    examiner = Examiner(memory_bytes=1 << 30, timeout_s=3)
    try:
        facts = await examiner.examine(path, mime_type="audio/amr", filename="endless.amr")
        assert (facts.seconds, facts.has_playback) == (None, False)
    finally:
        await examiner.close()


async def test_more_memory_than_allowed_is_a_note_not_a_crash(tmp_path: Path) -> None:
    """Its worker tells and ends; the next file finds a fresh one."""
    examiner = Examiner(memory_bytes=160 << 20, timeout_s=30)
    desk = Desk(examiner, tmp_path)
    try:
        large = samples.picture("PNG")
        small = await desk.examine(large)
        assert small.has_preview
        noise = io.BytesIO()
        Image.new("RGB", (9000, 9000)).save(noise, "PNG", compress_level=1)
        facts = await desk.examine(noise.getvalue())
        assert (facts.has_preview, facts.note) == (False, "needs more memory than is allowed")
        assert await desk.thumbnail(noise.getvalue()) is None
        assert (await desk.examine(large)).has_preview
    finally:
        await examiner.close()


async def test_the_server_grows_by_nothing_of_all_this(desk: Desk) -> None:
    """What files do to memory they do to the other process."""
    body = samples.picture("PNG")
    await desk.thumbnail(body)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(20):
        await desk.thumbnail(body)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096
