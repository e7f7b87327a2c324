"""Files that are small to send and large to read: bombs of every office format, endless videos."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from agentsight.server.media import Examined
from tests.server.media import samples
from tests.server.media.conftest import Desk
from tests.support.soak import IS_SOAK

pytestmark = [pytest.mark.slow, pytest.mark.anyio]
MIB = 1 << 20
N_INFLATED = (1000 if IS_SOAK else 40) * MIB
N_ENDLESS = (450 if IS_SOAK else 40) * MIB
MAX_MEMORY = 256 * MIB
OPF = (
    '<package><manifest><item id="a" href="a.xhtml"/></manifest>'
    '<spine><itemref idref="a"/></spine></package>'
)

BOMBS: dict[str, tuple[dict[str, str], str, tuple[str, str, str]]] = {
    "book.xlsx": (
        {"xl/workbook.xml": "<workbook/>", "xl/worksheets/sheet1.xml": "<worksheet/>"},
        "xl/sharedStrings.xml", ("<sst>", "<si><t>A A</t></si>", "</sst>"),
    ),
    "sheet.xlsx": (
        {"xl/workbook.xml": "<workbook/>"},
        "xl/worksheets/sheet1.xml", ("<a><row>", "<c><v>1</v></c>", "</row></a>"),
    ),
    "text.odt": (
        {"mimetype": "application/vnd.oasis.opendocument.text"},
        "content.xml", ("<o><p>", "A A ", "</p></o>"),
    ),
    "slides.pptx": (
        {"ppt/presentation.xml": "<p/>"},
        "ppt/slides/slide1.xml", ("<s>", "<t>A A</t>", "</s>"),
    ),
    "book.epub": (
        {"mimetype": "application/epub+zip", "content.opf": OPF, "META-INF/container.xml":
         '<container><rootfiles><rootfile full-path="content.opf"/></rootfiles></container>'},
        "a.xhtml", ("<html><body>", "<p>A A</p>", "</body></html>"),
    ),
}  # fmt: skip
"""Small parts, the part that inflates, and how it begins, goes on and ends."""


def bomb(name: str, n_bytes: int) -> bytes:
    """Make an archive of which one part is of so many bytes, a thousandth of them as it is sent."""
    small, large, (head, piece, tail) = BOMBS[name]
    block = (piece * (MIB // len(piece))).encode()
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for member, text in small.items():
            archive.writestr(member, text, zipfile.ZIP_STORED)
        with archive.open(large, "w", force_zip64=True) as entry:
            entry.write(head.encode())
            for _ in range(n_bytes // len(block)):
                entry.write(block)
            entry.write(tail.encode())
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(BOMBS))
async def test_an_office_file_that_inflates_is_refused(desk: Desk, name: str) -> None:
    """No text, no preview, a note for the log, and little memory; small, it would be read."""
    assert (await desk.examine(bomb(name, MIB), name)).text
    body = bomb(name, N_INFLATED)
    assert len(body) < N_INFLATED // 100
    facts = await desk.examine(body, name)
    assert (facts.text, facts.has_preview) == (None, False)
    assert facts.note
    assert await desk.thumbnail(body) is None
    assert desk.examiner.peak_bytes() < MAX_MEMORY


def pages(path: Path, n_pages: int, *, claimed: int, are_distinct: bool) -> None:
    """Write a PDF that has so many pages and claims so many: one object each, or all the same."""
    with path.open("wb") as out:
        offsets = []

        def put(body: str) -> None:
            offsets.append(out.tell())
            out.write(f"{len(offsets)} 0 obj\n{body}\nendobj\n".encode())

        numbers = range(3, 3 + n_pages) if are_distinct else [3] * n_pages
        out.write(b"%PDF-1.4\n")
        put("<< /Type /Catalog /Pages 2 0 R >>")
        kids = " ".join(f"{number} 0 R" for number in numbers)
        put(f"<< /Type /Pages /Kids [{kids}] /Count {claimed} >>")
        for _ in range(n_pages if are_distinct else 1):
            put("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 400] >>")
        at = out.tell()
        out.write(f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode())
        out.write("".join(f"{offset:010} 00000 n \n" for offset in offsets).encode())
        end = f"trailer << /Size {len(offsets) + 1} /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n"
        out.write(end.encode())


async def looked_at(desk: Desk, path: Path, mime_type: str) -> tuple[Examined, bool]:
    """Examine a file where it lies; say whether a small picture was made of it too."""
    facts = await desk.examiner.examine(path, mime_type=mime_type, filename=path.name)
    made = await desk.examiner.thumbnail(path, mime_type=mime_type, max_edge=128, out=desk.out)
    assert desk.examiner.peak_bytes() < MAX_MEMORY
    return facts, made is not None


@pytest.mark.parametrize(
    ("n_pages", "claimed", "are_distinct"),
    [
        pytest.param(1_000_000, 1_000_000, False, id="one-object"),
        pytest.param(1_000_000, 99_999, False, id="claiming-fewer"),
        pytest.param(1_000_000 if IS_SOAK else 20_000, 99_000, True, id="an-object-each"),
    ],
)
async def test_a_pdf_of_a_million_pages_costs_no_more_than_is_allowed(
    desk: Desk, tmp_path: Path, n_pages: int, claimed: int, are_distinct: bool
) -> None:
    """Whatever it claims: an answer within the limits of memory and time, and no crash."""
    path = tmp_path / "pages.pdf"
    pages(path, n_pages, claimed=claimed, are_distinct=are_distinct)
    facts, is_shown = await looked_at(desk, path, "application/pdf")
    assert facts.pages in (None, claimed)
    if claimed > 100_000:
        assert (facts.has_preview, is_shown) == (False, False)


async def test_a_video_that_says_no_size_and_does_not_end_shows_its_beginning(
    desk: Desk, tmp_path: Path
) -> None:
    """As browsers record: of unknown size, and the same real clusters again and again."""
    base = tmp_path / "base.webm"
    samples.video(base, "webm", "libvpx", frames=30)
    body = base.read_bytes()
    segment = body.index(bytes.fromhex("18538067"))
    first = body.index(bytes.fromhex("1F43B675"))
    end = body.find(bytes.fromhex("1C53BB6B"), first)
    clusters = body[first : end if end > 0 else len(body)]
    unknown = bytes.fromhex("01FFFFFFFFFFFFFF")  # EBML: all ones
    path = tmp_path / "endless.webm"
    with path.open("wb") as out:
        out.write(body[: segment + 4] + unknown + body[segment + 12 : first])
        while out.tell() < N_ENDLESS:
            out.write(clusters * 50)
    facts, is_shown = await looked_at(desk, path, "video/webm")
    assert (facts.has_preview, is_shown) == (True, True)
    assert samples.is_upright(desk.picture())
