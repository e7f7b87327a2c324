"""PDF, by pypdfium2: pages, text, a drawing of the first page."""

# pypdfium2 has no types for its arguments.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, Final, cast

import pypdfium2 as pdfium
from PIL import Image

from agentsight.server.media.model import Examined, Made
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.pictures import write_webp
from agentsight.server.media.readers.texts import SinkFull, TextSink

_PROOF_EDGE: Final = 64
_MAX_PAGES_READ: Final = 10_000
_MAX_PAGES: Final = 100_000
"""What claims more is made to exhaust its readers; the longest real documents have some 10,000."""


def examine(path: str, sink: TextSink) -> Examined:
    """Count the pages, read their text, and prove that the first can be drawn."""
    with _open(path) as document:
        pages = len(document)
        has_preview, note = True, None
        try:
            _draw(document, _PROOF_EDGE)
        except (NotReadable, pdfium.PdfiumError, ValueError) as exc:
            has_preview, note = False, f"the first page cannot be drawn: {type(exc).__name__}"
        with contextlib.suppress(SinkFull):
            _read(document, pages, sink)
        return Examined(
            pages=pages,
            text=sink.text(),
            is_text_cut=sink.is_cut,
            has_preview=has_preview,
            note=note,
        )


def thumbnail(path: str, max_edge: int, out: str) -> Made:
    """Draw the first page, its longer edge filling `max_edge`."""
    with _open(path) as document:
        return write_webp(_draw(document, max_edge), out)


@contextlib.contextmanager
def _open(path: str) -> Generator[pdfium.PdfDocument]:
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as exc:  # damaged, or asks for a password
        raise NotReadable("not readable as application/pdf, or locked by a password") from exc
    try:
        if not 0 < len(document) <= _MAX_PAGES:
            raise NotReadable(f"it claims to have {len(document):,} pages")
        yield document
    finally:
        document.close()


def _draw(document: pdfium.PdfDocument, max_edge: int) -> Image.Image:
    with contextlib.suppress(pdfium.PdfiumError):
        document.init_forms()  # what people filled in is drawn only then
    page = document[0]
    longest = max(page.get_size())
    # The bitmap is as large as we say, whatever the page says: one of 10^6 points costs the same.
    if not 0 < longest < float("inf"):
        raise NotReadable("the first page has no size")
    drawn = cast("Any", page.render(scale=max_edge / longest))
    picture = cast("Image.Image", drawn.to_pil())
    picture.thumbnail((max_edge, max_edge))  # pdfium rounds up
    return picture.convert("RGB")


def _read(document: pdfium.PdfDocument, pages: int, sink: TextSink) -> None:
    for number in range(min(pages, _MAX_PAGES_READ)):
        try:
            page = document[number]
        except pdfium.PdfiumError:
            continue  # one damaged page; the others may hold text
        try:
            text_page = page.get_textpage()
            try:
                sink.add(text_page.get_text_bounded() + "\n\n")
            finally:
                text_page.close()
        except pdfium.PdfiumError:
            continue
        finally:
            page.close()
        sink.check_time()
    if pages > _MAX_PAGES_READ:
        sink.is_cut = True
