"""Texts that are no archives: plain text in whatever encoding, HTML, e-mail, RTF."""

from __future__ import annotations

import codecs
import contextlib
import email
import email.policy
import re
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import PurePath
from typing import Final

from agentsight.server.media import kinds
from agentsight.server.media.readers.texts import SinkFull, TextSink

_MAX_BYTES_A_CHAR: Final = 4
_MARKUP_FACTOR: Final = 20
"""How many bytes of markup are read for a character of text that is wanted."""
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read(path: str, mime_type: str, filename: str, sink: TextSink) -> None:
    """Put a file's text into the sink, by its detected type and, for texts, its extension."""
    is_mail = mime_type == "message/rfc822" or (
        mime_type == "text/plain" and PurePath(filename.lower()).suffix in (".eml", ".mht")
    )
    has_markup = is_mail or mime_type in ("text/html", "application/xhtml+xml", kinds.RTF)
    max_bytes = sink.max_chars * (_MARKUP_FACTOR if has_markup else _MAX_BYTES_A_CHAR) + 4
    with open(path, "rb") as file:
        head = file.read(max_bytes)
        is_whole = not file.read(1)
    sink.is_cut = not is_whole
    with contextlib.suppress(SinkFull):
        if is_mail:
            _read_mail(head, sink)
        elif mime_type == kinds.RTF:
            from agentsight.server.media.readers import rtf

            rtf.read(head, sink)
        elif has_markup:
            read_html(_decode_html(head, is_whole=is_whole), sink)
        else:
            sink.add(decode(head, is_whole=is_whole))


def decode(head: bytes, *, is_whole: bool = True) -> str:
    """Decode text by its mark, else as UTF-8, else as Windows did (cp1252)."""
    for mark, name in _BOMS:
        if head.startswith(mark):
            return codecs.getincrementaldecoder(name)("replace").decode(head[len(mark) :])
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(head, is_whole)
    except UnicodeDecodeError:
        return head.decode("cp1252", "replace")


def _decode_html(head: bytes, *, is_whole: bool) -> str:
    """Decode a page by the encoding that it names, unless it is UTF-8 anyway."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(head, is_whole)
    except UnicodeDecodeError:
        named = _CHARSET.search(head[:1024])
        with contextlib.suppress(LookupError):
            if named:
                return head.decode(named[1].decode("ascii"), "replace")
    return decode(head, is_whole=is_whole)


def read_html(markup: str, sink: TextSink) -> None:
    """Put what a reader of a page would see into the sink.

    Raises:
        SinkFull: When there is enough.
    """
    parser = _VisibleText(sink)
    for at in range(0, len(markup), _HTML_STEP):
        parser.feed(markup[at : at + _HTML_STEP])
        sink.check_time()
    parser.close()


_CHARSET: Final = re.compile(rb"charset=[\"']?([a-zA-Z0-9_.:-]{1,40})")
_HTML_STEP: Final = 64 * 1024
_HIDDEN: Final = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe"})
_INLINE: Final = frozenset(
    {
        "a",
        "abbr",
        "b",
        "bdi",
        "bdo",
        "cite",
        "code",
        "data",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "ins",
        "kbd",
        "label",
        "mark",
        "q",
        "s",
        "samp",
        "small",
        "span",
        "strike",
        "strong",
        "sub",
        "sup",
        "time",
        "tt",
        "u",
        "var",
        "wbr",
    }
)
_CELLS: Final = frozenset({"td", "th"})
_SPACE: Final = re.compile(r"[ \t\r\n\f]+")


class _VisibleText(HTMLParser):
    """Collects text outside of scripts and styles, a line a block."""

    def __init__(self, sink: TextSink) -> None:
        super().__init__(convert_charrefs=True)
        self._sink = sink
        self._hidden_in: str | None = None
        self._depth = 0
        self._is_at_start = True

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden_in:
            self._depth += tag == self._hidden_in
        elif tag in _HIDDEN:
            self._hidden_in, self._depth = tag, 1
        else:
            self._separate(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._hidden_in and tag not in _HIDDEN:
            self._separate(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden_in:
            self._depth -= tag == self._hidden_in
            if not self._depth:
                self._hidden_in = None
        else:
            self._separate(tag)

    def handle_data(self, data: str) -> None:
        if self._hidden_in:
            return
        text = _SPACE.sub(" ", data)
        text = text.lstrip() if self._is_at_start else text
        if text:
            self._sink.add(text)
            self._is_at_start = text.endswith(" ")

    def _separate(self, tag: str) -> None:
        if tag in _INLINE:
            return
        self._sink.add("\t" if tag in _CELLS else "\n")
        self._is_at_start = True


_TOLD_HEADERS: Final = ("From", "To", "Cc", "Date", "Subject")
_MAX_PARSED_CHARS: Final = 16 * 1024
"""Of one header: the library takes minutes, and a gigabyte, over one of megabytes."""


def _read_mail(head: bytes, sink: TextSink) -> None:
    message = email.message_from_bytes(head, policy=email.policy.default)
    raw_by_name = {name.lower(): str(value) for name, value in reversed(list(message.raw_items()))}
    for name in _TOLD_HEADERS:
        raw = raw_by_name.get(name.lower(), "")
        if len(raw) > _MAX_PARSED_CHARS:
            sink.add(f"{name}: {raw}\n")
            continue
        with contextlib.suppress(Exception):  # the library raises many things at broken headers
            if value := message.get(name):
                sink.add(f"{name}: {value}\n")
    sink.add("\n")
    body = message.get_body(("plain", "html"))
    if isinstance(body, EmailMessage):
        text = _content(body)
        if body.get_content_type() == "text/html":
            read_html(text, sink)
        else:
            sink.add(text)
    for part in message.iter_attachments():
        if name := part.get_filename():
            sink.add(f"\n{name}")


def _content(part: EmailMessage) -> str:
    try:
        return str(part.get_content())
    except (LookupError, KeyError, ValueError):  # an encoding that nobody knows
        payload = part.get_payload(decode=True)
        return decode(payload) if isinstance(payload, bytes) else ""
