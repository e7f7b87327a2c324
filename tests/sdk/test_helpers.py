"""Small public helpers, enums and exceptions, as code written for 0.0.x knows them."""

from __future__ import annotations

import io
import json
import re
import zipfile
from datetime import datetime

import pytest

from agentsight import exceptions
from agentsight.enums import Environment, LogLevel, Sender, Sentiment, TokenHandlerType
from agentsight.helpers import (
    AgentSightJSONEncoder,
    generate_conversation_id,
    get_iso_timestamp,
    get_mime_type,
    prepare_form_data_payload_from_data,
)


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            content = "application/epub+zip" if name == "mimetype" else ""
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "mime_type"),
    [
        (b"%PDF-1.7", "application/pdf"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF0000WEBPVP8 ", "image/webp"),
        (b"RIFF0000WAVEfmt ", "audio/wav"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"OggS", "audio/ogg"),
        (b"<html><body>", "text/html"),
        (b'{"a": 1}', "application/json"),
        (b'{"a": 1', "text/plain"),
        (b"a,b\n1,2", "text/csv"),
        (b"# Title\n\n- one\n- two\n", "text/markdown"),
        ("grüße, an alle\nohne Komma".encode(), "text/plain"),
        (b"\x00\x01\x02", "application/octet-stream"),
        (b"\xff\xfe\xfd", "application/octet-stream"),
        (b"", "application/octet-stream"),
        (zip_of("a.txt"), "application/zip"),
        (zip_of("mimetype"), "application/epub+zip"),
        (
            zip_of("word/document.xml"),
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ),
        (b"PK\x03\x04broken", "application/zip"),
    ],
)
def test_bytes_are_known_by_what_they_are(content: bytes, mime_type: str) -> None:
    """It names files that were given without a name."""
    assert get_mime_type(content) == mime_type


@pytest.mark.parametrize(
    ("name", "mime_type"),
    [
        ("a.PNG", "image/png"),
        ("a.md", "text/markdown"),
        ("report.final.pdf", "application/pdf"),
        ("noextension", "application/octet-stream"),
        ("a.qqq", "application/octet-stream"),
    ],
)
def test_names_are_known_by_their_extension(name: str, mime_type: str) -> None:
    """The last one counts, in any case."""
    assert get_mime_type(name) == mime_type


def test_ids_and_timestamps_have_their_recorded_form() -> None:
    """Twelve hexadecimal digits; UTC with an offset."""
    assert re.fullmatch(r"conv_[0-9a-f]{12}", generate_conversation_id())
    offset = datetime.fromisoformat(get_iso_timestamp()).utcoffset()
    assert offset is not None
    assert not offset


def test_the_form_of_0_0_x_has_its_parts_in_order() -> None:
    """Five fields, then the files from their start."""
    stream = io.BytesIO(b"abc")
    stream.seek(2)
    attachments = [{"data": b"%PDF-", "mime_type": None}, {"data": stream, "filename": "x.bin"}]
    parts = prepare_form_data_payload_from_data(attachments, "42", metadata=None, timestamp="T")
    assert list(parts) == [
        "timestamp",
        "conversation",
        "sender",
        "mode",
        "metadata",
        "attachment_0",
        "attachment_1",
    ]
    assert parts["metadata"] == (None, "null")
    name, file, mime_type = parts["attachment_0"]
    assert (name, file.read(), mime_type) == ("attachment_0.pdf", b"%PDF-", "application/pdf")
    assert parts["attachment_1"][1].read() == b"abc"


def test_enums_have_their_recorded_words() -> None:
    """Code compares with text."""
    assert (Sender.USER, Sender.AGENT, Sender.SYSTEM) == ("end_user", "agent", "system")
    assert [s.value for s in Sentiment] == ["positive", "neutral", "negative"]
    assert LogLevel.from_string("debug") is LogLevel.DEBUG
    assert LogLevel.from_string("loud") is LogLevel.INFO
    assert Environment.from_env("") is None
    assert TokenHandlerType.from_env("langchain") is TokenHandlerType.LANGCHAIN
    with pytest.raises(ValueError, match="Expected one of: production, development"):
        Environment.from_env("staging")
    assert json.dumps({"e": Environment.PRODUCTION}, cls=AgentSightJSONEncoder) == (
        '{"e": "production"}'
    )


def test_the_tree_of_exceptions_is_as_drawn() -> None:
    """The module's docstring is the map; it must not lie."""
    assert exceptions.__doc__ is not None
    parents = ["Exception"]
    drawn: dict[str, str] = {}
    for line in exceptions.__doc__.splitlines():
        found = re.match(r"^([ │]*)[├└]── (\w+)", line)
        if found:
            depth = len(found[1]) // 4 + 1
            parents[depth:] = [found[2]]
            drawn[found[2]] = parents[depth - 1]
    del drawn["RuntimeError"]
    assert sorted(drawn) == exceptions.__all__
    for name, parent in drawn.items():
        assert getattr(exceptions, name).__base__.__name__ == parent


def test_api_errors_carry_status_and_body() -> None:
    """As in the published client."""
    error = exceptions.ConversationApiException("m", status_code=400, response_data={"a": 1})
    assert (str(error), error.status_code, error.response_data) == ("m", 400, {"a": 1})
    assert exceptions.NotFoundException().status_code == 404
    assert exceptions.NotFoundException().response_data is None
