"""Office and OpenDocument files and e-books: ZIP archives of XML, read as streams.

A member is inflated and parsed in pieces and given up when enough text was found, so that a bomb
costs neither memory nor much time. Elements are told apart by their local names: the same
ones stand under different namespaces in the strict and the usual flavour of the same format.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Final
from urllib.parse import unquote
from xml.parsers import expat

from agentsight.server.media import kinds
from agentsight.server.media.readers.errors import NotReadable
from agentsight.server.media.readers.texts import SinkFull, TextSink

_PIECE_BYTES: Final = 64 * 1024
_MAX_MEMBER_BYTES: Final = 256 * 1024 * 1024
"""Inflated; no document that people write has more in one part."""
_MAX_RATIO: Final = 200
_RATIO_FROM_BYTES: Final = 8 * 1024 * 1024
"""XML packs 10 to 50 times; what packs 1,000 times is made of repetition and read by nobody."""
_MAX_PARTS: Final = 2000
"""Slides, sheets or chapters read of one document."""

Attributes = dict[str, str]
StartHandler = Callable[[str, Attributes], None]
EndHandler = Callable[[str], None]
TextHandler = Callable[[str], None]


def read(path: str, mime_type: str, sink: TextSink) -> int | None:
    """Put a document's text into the sink; return its slides or sheets, where it has such."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as exc:
        raise NotReadable(f"not readable as {mime_type}: {type(exc).__name__}") from exc
    with archive:
        pages = _pages(archive, mime_type)
        with contextlib.suppress(SinkFull):
            return _READERS[mime_type](archive, sink) or pages
        return pages


def parse(
    archive: zipfile.ZipFile,
    name: str,
    sink: TextSink,
    *,
    start: StartHandler,
    end: EndHandler | None = None,
    text: TextHandler | None = None,
) -> bool:
    """Walk one member's elements; local names only.

    Returns:
        Whether there is such a member.

    Raises:
        SinkFull: When there is enough text or no more time.
        NotReadable: When the member is too large, damaged or declares entities.
    """
    try:
        _check_size(archive.getinfo(name))
        member = archive.open(name)
    except KeyError:
        return False
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as exc:
        raise NotReadable(f"a part is damaged or locked: {type(exc).__name__}") from exc
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.EntityDeclHandler = _refuse_entities
    parser.StartElementHandler = lambda tag, attributes: start(
        _local(tag), {_local(key): value for key, value in attributes.items()}
    )
    if end:
        parser.EndElementHandler = lambda tag: end(_local(tag))
    if text:
        parser.CharacterDataHandler = text
    with member:
        try:
            _feed(parser, member, sink)
        except (expat.ExpatError, zipfile.BadZipFile, EOFError, OSError, ValueError) as exc:
            raise NotReadable(f"a part is damaged: {type(exc).__name__}") from exc
    return True


def _check_size(member: zipfile.ZipInfo) -> None:
    n_bytes = member.file_size
    is_bomb = n_bytes > _RATIO_FROM_BYTES and n_bytes > member.compress_size * _MAX_RATIO
    if is_bomb or n_bytes > _MAX_MEMBER_BYTES:
        raise NotReadable(f"a part of {member.compress_size} bytes inflates to {n_bytes}")


def _feed(parser: expat.XMLParserType, member: IO[bytes], sink: TextSink) -> None:
    n_bytes = 0
    while piece := member.read(_PIECE_BYTES):
        n_bytes += len(piece)
        if n_bytes > _MAX_MEMBER_BYTES:
            raise NotReadable(f"a part has more than {_MAX_MEMBER_BYTES >> 20} MB")
        parser.Parse(piece, False)
        sink.check_time()
    parser.Parse(b"", True)


def _refuse_entities(*_declaration: object) -> None:
    raise NotReadable("it declares entities, which no office program does")


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def numbered(archive: zipfile.ZipFile, folder: str, stem: str) -> list[str]:
    """Return members like `ppt/slides/slide12.xml` in the order of their numbers."""
    pattern = re.compile(rf"{re.escape(folder)}/{stem}(\d{{1,9}})\.xml")
    found = [(int(m[1]), name) for name in archive.namelist() if (m := pattern.fullmatch(name))]
    return [name for _, name in sorted(found)][:_MAX_PARTS]


def related(archive: zipfile.ZipFile, name: str, sink: TextSink) -> dict[str, tuple[str, str]]:
    """Return what a part refers to: by id, the last word of its type and its member's name."""
    folder, base = posixpath.split(name)
    found: dict[str, tuple[str, str]] = {}

    def start(tag: str, attributes: Attributes) -> None:
        if tag == "Relationship" and attributes.get("TargetMode") != "External":
            target = posixpath.normpath(
                posixpath.join("/" + folder, attributes.get("Target", ""))
            ).lstrip("/")
            kind = attributes.get("Type", "").rpartition("/")[2]
            found[attributes.get("Id", "")] = (kind, target)

    parse(archive, f"{folder}/_rels/{base}.rels", sink, start=start)
    return found


# ---- Text with paragraphs and tables: Word, PowerPoint, OpenDocument ----

_HIDDEN: Final = frozenset({"Fallback", "tracked-changes", "forms", "event-listeners"})
"""What stands there twice (a text box for old programs), was deleted, or is no text."""
_IN_TEXT: Final = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "noBreakHyphen": "-"}
_AFTER: Final = {
    "p": "\n",
    "h": "\n",
    "tc": "\t",
    "table-cell": "\t",
    "tr": "\n",
    "table-row": "\n",
}
_MAX_SPACES: Final = 100


class _Flow:
    """Turns elements into running text.

    Args:
        sink: Where it goes.
        text_tags: Only characters directly in these count; empty: all that are in paragraphs.
        page_tag: The element of which `n_pages` is the number.
    """

    def __init__(self, sink: TextSink, text_tags: frozenset[str], page_tag: str) -> None:
        self.n_pages = 0
        self._page_tag = page_tag
        self._sink = sink
        self._text_tags = text_tags
        self._hidden_depth = 0
        self._n_open = 0
        self._in_cell = 0

    def start(self, tag: str, attributes: Attributes) -> None:
        if self._hidden_depth or tag in _HIDDEN:
            self._hidden_depth += 1
            return
        self.n_pages += tag == self._page_tag
        if self._is_text(tag):
            self._n_open += 1
        if tag in ("tc", "table-cell"):
            self._in_cell += 1
        if tag == "s" and self._n_open:
            count = attributes.get("c", "1")
            self._sink.add(" " * (min(int(count), _MAX_SPACES) if count.isdecimal() else 1))
        elif tag in _IN_TEXT:
            self._sink.add(_IN_TEXT[tag])
        elif tag == "table" and "name" in attributes:
            self._sink.add(f"\n{attributes['name']}\n")

    def end(self, tag: str) -> None:
        if self._hidden_depth:
            self._hidden_depth -= 1
            return
        if self._is_text(tag):
            self._n_open -= 1
        if tag in ("tc", "table-cell"):
            self._in_cell -= 1
        after = _AFTER.get(tag)
        if after:
            # A row of a table stays a line: paragraphs in a cell are parted by spaces.
            self._sink.add(" " if after == "\n" and self._in_cell and tag in ("p", "h") else after)

    def text(self, characters: str) -> None:
        if self._n_open and not self._hidden_depth:
            self._sink.add(characters)

    def _is_text(self, tag: str) -> bool:
        return tag in (self._text_tags or ("p", "h"))


def read_flow(
    archive: zipfile.ZipFile,
    names: Iterable[str],
    text_tags: frozenset[str],
    sink: TextSink,
    page_tag: str = "",
) -> int:
    """Put the running text of parts into the sink; a damaged part does not hide the others.

    Returns:
        How many elements `page_tag` there were.
    """
    is_read = False
    n_pages = 0
    failure: NotReadable | None = None
    for name in names:
        flow = _Flow(sink, text_tags, page_tag)
        try:
            is_read |= parse(archive, name, sink, start=flow.start, end=flow.end, text=flow.text)
        except NotReadable as exc:
            failure = failure or exc
        n_pages += flow.n_pages
        sink.add("\n")
    if failure and not is_read:
        raise failure
    return n_pages


_MARKUP_TAGS: Final = frozenset({"t"})


def _read_docx(archive: zipfile.ZipFile, sink: TextSink) -> None:
    main = "word/document.xml"
    parts = [main]
    for kind in ("header", "footer"):
        parts += numbered(archive, "word", kind)
    parts += ["word/footnotes.xml", "word/endnotes.xml", "word/comments.xml"]
    read_flow(archive, parts, _MARKUP_TAGS, sink)


def _slides(archive: zipfile.ZipFile, sink: TextSink) -> list[str]:
    """Return the slides in the order they are shown."""
    main = "ppt/presentation.xml"
    relations = related(archive, main, sink)
    order: list[str] = []

    def start(tag: str, attributes: Attributes) -> None:
        # Two attributes are called `id`; the relation's comes last and wins, as Office writes it.
        if tag == "sldId":
            kind, target = relations.get(attributes.get("id", ""), ("", ""))
            if kind == "slide":
                order.append(target)

    parse(archive, main, sink, start=start)
    return order[:_MAX_PARTS] or numbered(archive, "ppt/slides", "slide")


def _read_pptx(archive: zipfile.ZipFile, sink: TextSink) -> None:
    def parts() -> Iterator[str]:
        for slide in _slides(archive, sink):
            yield slide
            for kind, target in related(archive, slide, sink).values():
                if kind in ("notesSlide", "comments"):
                    yield target

    read_flow(archive, parts(), _MARKUP_TAGS, sink)


def _read_odt(archive: zipfile.ZipFile, sink: TextSink) -> None:
    _read_open_parts(archive, sink, "")


def _read_ods(archive: zipfile.ZipFile, sink: TextSink) -> int:
    return _read_open_parts(archive, sink, "table")


def _read_odp(archive: zipfile.ZipFile, sink: TextSink) -> int:
    return _read_open_parts(archive, sink, "page")


def _read_open_parts(archive: zipfile.ZipFile, sink: TextSink, page_tag: str) -> int:
    # Headers and footers stand among the styles.
    return read_flow(archive, ["content.xml", "styles.xml"], frozenset(), sink, page_tag)


def _read_xlsx(archive: zipfile.ZipFile, sink: TextSink) -> None:
    from agentsight.server.media.readers import workbooks

    workbooks.read(archive, sink)


def _read_epub(archive: zipfile.ZipFile, sink: TextSink) -> None:
    from agentsight.server.media.readers.plain import decode, read_html

    for name in _chapters(archive, sink):
        try:
            _check_size(archive.getinfo(name))
            with archive.open(name) as member:
                markup = member.read(sink.max_chars * 8)
        except (KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
            continue
        read_html(decode(markup), sink)
        sink.add("\n\n")


def _chapters(archive: zipfile.ZipFile, sink: TextSink) -> list[str]:
    """Return an e-book's chapters in reading order (EPUB 3.3, package documents)."""
    packages = [name for name in archive.namelist() if name.endswith(".opf")]
    name_by_id: dict[str, str] = {}
    order: list[str] = []

    def start(tag: str, attributes: Attributes) -> None:
        if tag == "item":
            target = posixpath.join(folder, unquote(attributes.get("href", "")))
            name_by_id[attributes.get("id", "")] = posixpath.normpath(target)
        elif tag == "itemref":
            order.append(attributes.get("idref", ""))

    for package in packages[:1]:
        folder = posixpath.dirname(package)
        parse(archive, package, sink, start=start)
    return [name_by_id[ref] for ref in order if ref in name_by_id][:_MAX_PARTS]


def _pages(archive: zipfile.ZipFile, mime_type: str) -> int | None:
    if mime_type == kinds.PPTX:
        return len(numbered(archive, "ppt/slides", "slide")) or None
    if mime_type == kinds.XLSX:
        return len(numbered(archive, "xl/worksheets", "sheet")) or None
    return None


_READERS: Final[dict[str, Callable[[zipfile.ZipFile, TextSink], int | None]]] = {
    kinds.DOCX: _read_docx,
    kinds.XLSX: _read_xlsx,
    kinds.PPTX: _read_pptx,
    kinds.ODT: _read_odt,
    kinds.ODS: _read_ods,
    kinds.ODP: _read_odp,
    kinds.EPUB: _read_epub,
}
