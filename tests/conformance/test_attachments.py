"""The one call: all of a conversation's files, however they came in."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest

from tests.conformance.conftest import StartClient
from tests.conformance.files import (
    FOLDER,
    MIME_TYPES,
    TYPES,
    Mode,
    attachment,
    committed,
    content_of,
    type_of,
    unnamed_stream,
)
from tests.support.published import Client, enum
from tests.support.server import Agent, LiveServer, open_link

MODES: tuple[Mode, Mode] = ("base64", "form_data")
PROMISED_KEYS = ["id", "type", "filename", "mime_type", "size_bytes", "file_url"]
OUR_KEYS = [
    "uid", "sha256", "file_url_expires_at", "url", "message", "detected_mime_type", "width",
    "height", "pages", "seconds", "scan", "preview_url", "playback_url",
]  # fmt: skip
UTC_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def check_promise(answer: dict[str, Any]) -> None:
    """Check all that published clients were promised of the answer's shape."""
    promised = ["conversation_id", "conversation", "total_attachments", "messages"]
    assert list(answer)[:4] == promised
    assert isinstance(answer["conversation_id"], str)
    assert isinstance(answer["conversation"], int)
    files = [file for message in answer["messages"] for file in message["attachments"]]
    assert answer["total_attachments"] == len(files) == answer["attachment_count"]
    assert answer["attachments"] == files
    for message in answer["messages"]:
        assert list(message) == ["message_id", "sender", "timestamp", "attachments"]
        assert isinstance(message["message_id"], int)
        assert message["sender"] in ("end_user", "agent")
        assert UTC_TEXT.fullmatch(message["timestamp"])
        assert message["attachments"], "only messages that have attachments"
    for file in files:
        check_file(file)


def check_file(file: dict[str, Any]) -> None:
    """Check one file's row: the promised keys first, then ours."""
    assert list(file)[:6] == PROMISED_KEYS
    assert list(file)[6:] == OUR_KEYS
    assert isinstance(file["id"], int)
    assert file["type"] in TYPES
    assert file["type"] == type_of(file["mime_type"])
    assert isinstance(file["size_bytes"], int)
    assert UTC_TEXT.fullmatch(file["file_url_expires_at"])


def check_bytes(file: dict[str, Any], content: bytes) -> None:
    """Open the link as anybody would, and compare every byte."""
    opened = open_link(file["file_url"])
    assert opened.status == 200
    assert opened.body == content
    assert file["size_bytes"] == len(content)
    assert file["sha256"] == hashlib.sha256(content).hexdigest()


def rows(answer: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Say who sent which files, message by message."""
    return [(m["sender"], [a["filename"] for a in m["attachments"]]) for m in answer["messages"]]


def send(client: Client) -> dict[str, Any]:
    """Send what is tracked; everything must have arrived."""
    report = client.tracker.send_tracked_data()
    assert report["summary"]["errors"] == 0, report
    return report


def test_the_selection_has_every_committed_file_and_every_type() -> None:
    """Nothing in the folder is left out of what follows."""
    assert {path.name for path in FOLDER.iterdir()} == set(MIME_TYPES)
    assert {type_of(mime_type) for mime_type in MIME_TYPES.values()} == set(TYPES)


@pytest.mark.parametrize("mode", MODES)
def test_every_file_comes_back_by_its_link(client: Client, mode: Mode) -> None:
    """Real files of all five types, and the hostile ones, byte by byte."""
    client.tracker.get_or_create_conversation("all-files")
    client.tracker.track_human_message(
        "All of them", attachments=committed(mode, *MIME_TYPES), attachment_mode=mode
    )
    send(client)
    answer = client.api.fetch_conversation_attachments("all-files")
    check_promise(answer)
    assert rows(answer) == [("end_user", list(MIME_TYPES))]
    for file in answer["attachments"]:
        assert file["mime_type"] == MIME_TYPES[file["filename"]]
        check_bytes(file, content_of(file["filename"]))


@pytest.mark.parametrize("mode", MODES)
def test_both_senders_linked_and_alone(client: Client, mode: Mode) -> None:
    """Files of a message stay with it; files without one get a message of their own."""
    client.tracker.get_or_create_conversation("four-ways")
    client.tracker.track_human_message("No files here")
    client.tracker.track_human_message("Mine", committed(mode, "sample.png"), mode)
    client.tracker.track_agent_message("Ours", committed(mode, "sample.pdf", "note.txt"), mode)
    client.tracker.track_attachments(committed(mode, "sample.mp3"), mode=mode)
    client.tracker.track_attachments(committed(mode, "sample.mp4"), "agent", {"n": 1}, mode)
    client.tracker.track_attachments(committed(mode, "orders.csv"), enum("Sender.AGENT"), mode=mode)
    send(client)
    answer = client.api.fetch_conversation_attachments("four-ways")
    check_promise(answer)
    assert rows(answer) == [
        ("end_user", ["sample.png"]),
        ("agent", ["sample.pdf", "note.txt"]),
        ("end_user", ["sample.mp3"]),
        ("agent", ["sample.mp4"]),
        ("agent", ["orders.csv"]),
    ]
    for file in answer["attachments"]:
        check_bytes(file, content_of(file["filename"]))
    messages = client.api.fetch_conversation("four-ways")["messages"]
    assert [m["content"] for m in messages[:3]] == ["No files here", "Mine", "Ours"]
    assert [len(m["attachments"]) for m in messages] == [0, 1, 2, 1, 1, 1]
    assert messages[4]["metadata"] == {"n": 1}


@pytest.mark.parametrize("spelling", ["form-data", "FORM_DATA", enum("AttachmentMode.FORM_DATA")])
def test_form_mode_may_be_spelled_as_ever(client: Client, spelling: Any) -> None:
    """0.0.x takes text in any case, with - or _, and its enum."""
    client.tracker.get_or_create_conversation("spelled")
    client.tracker.track_attachments(committed("form_data", "note.txt"), mode=spelling)
    send(client)
    assert client.api.fetch_conversation_attachments("spelled")["total_attachments"] == 1


def test_an_unknown_mode_is_refused_at_the_call(client: Client) -> None:
    """As it was in 0.0.x."""
    client.tracker.get_or_create_conversation("mode")
    with client.raises("ValueError", match="Invalid mode"):
        client.tracker.track_attachments(committed("form_data", "note.txt"), mode="carrier-pigeon")


def test_a_string_id_and_an_integer_id_give_the_same(client: Client) -> None:
    """The business id and the database id name one conversation."""
    client.tracker.get_or_create_conversation("by-two-names")
    client.tracker.track_human_message("One", committed("base64", "note.txt"))
    send(client)
    by_text = client.api.fetch_conversation_attachments("by-two-names")
    by_number = client.api.fetch_conversation_attachments(by_text["conversation"])
    assert by_text == by_number
    assert by_text["conversation_id"] == "by-two-names"


def test_a_business_id_of_digits_is_never_taken_for_a_database_id(client: Client) -> None:
    """ "7" is the caller's own id, 7 the database's."""
    client.tracker.get_or_create_conversation("first")
    client.tracker.track_human_message("One", committed("base64", "note.txt"))
    send(client)
    pk = client.api.fetch_conversation_attachments("first")["conversation"]
    client.tracker.get_or_create_conversation(str(pk))
    client.tracker.track_human_message("Two", committed("base64", "orders.csv"))
    send(client)
    by_text = client.api.fetch_conversation_attachments(str(pk))
    assert by_text["conversation"] != pk
    assert rows(by_text) == [("end_user", ["orders.csv"])]
    assert rows(client.api.fetch_conversation_attachments(pk)) == [("end_user", ["note.txt"])]


def test_a_conversation_without_files_has_empty_lists(client: Client) -> None:
    """Messages without files do not show, and nothing is no error."""
    client.tracker.get_or_create_conversation("no-files")
    client.tracker.track_human_message("Just talk")
    send(client)
    answer = client.api.fetch_conversation_attachments("no-files")
    check_promise(answer)
    assert answer["total_attachments"] == 0
    assert answer["messages"] == []


@pytest.mark.parametrize("mode", MODES)
def test_twelve_files_keep_their_order(client: Client, mode: Mode) -> None:
    """attachment_10 comes after attachment_9; equal names and equal bytes are no matter."""
    names = [*(f"page {n}.txt" for n in range(10)), "page 0.txt", "page 1.txt"]
    files = [
        attachment(mode, n, b"same" if n[5] == "0" else n.encode(), "text/plain") for n in names
    ]
    client.tracker.get_or_create_conversation("twelve")
    client.tracker.track_human_message("Twelve", files, mode)
    send(client)
    answer = client.api.fetch_conversation_attachments("twelve")
    assert rows(answer) == [("end_user", names)]
    assert len({file["id"] for file in answer["attachments"]}) == 12
    for file, sent in zip(answer["attachments"], names, strict=True):
        check_bytes(file, b"same" if sent[5] == "0" else sent.encode())


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_file_is_a_file(client: Client, mode: Mode) -> None:
    """Nothing, with a name."""
    client.tracker.get_or_create_conversation("empty")
    client.tracker.track_human_message(
        "Empty", [attachment(mode, "empty.txt", b"", "text/plain")], mode
    )
    send(client)
    answer = client.api.fetch_conversation_attachments("empty")
    check_promise(answer)
    check_bytes(answer["attachments"][0], b"")


NAMES = {
    "grüße naïve.txt": "grüße naïve.txt",
    "日本語のメモ.txt": "日本語のメモ.txt",
    "☕ order #1 (final) 100%.txt": "☕ order #1 (final) 100%.txt",
    "a;b,c=d&e?f.txt": "a;b,c=d&e?f.txt",
    "it's.txt": "it's.txt",
    "../../etc/passwd": "passwd",
    "C:\\Users\\me\\cv.txt": "cv.txt",
    "exe\u202egpj.txt": "exegpj.txt",
    "..": "file",
    "x" * 300 + ".txt": "x" * 251 + ".txt",
}


@pytest.mark.parametrize("mode", MODES)
def test_names_survive_or_are_mended(client: Client, mode: Mode) -> None:
    """Any script comes back as it went in; what would harm is taken out, and never refused."""
    files = [attachment(mode, name, name.encode(), "text/plain") for name in NAMES]
    client.tracker.get_or_create_conversation("names")
    client.tracker.track_human_message("Names", files, mode)
    send(client)
    answer = client.api.fetch_conversation_attachments("names")
    check_promise(answer)
    assert [file["filename"] for file in answer["attachments"]] == list(NAMES.values())
    for file, name in zip(answer["attachments"], NAMES, strict=True):
        check_bytes(file, name.encode())


@pytest.mark.parametrize("mode", MODES)
def test_quotes_and_line_breaks_in_names_break_nothing(client: Client, mode: Mode) -> None:
    """A name cannot end its header, in either direction; and is one name by either door."""
    names = ['say "hi".txt', "two\r\nlines.txt", "nul\0.txt", "tab\t.txt"]
    files = [attachment(mode, name, b"content", "text/plain") for name in names]
    client.tracker.get_or_create_conversation("hostile-names")
    client.tracker.track_human_message("Names", files, mode)
    send(client)
    answer = client.api.fetch_conversation_attachments("hostile-names")
    check_promise(answer)
    got = [file["filename"] for file in answer["attachments"]]
    assert got == ['say "hi".txt', "twolines.txt", "nul\ufffd.txt", "tab.txt"]
    for file in answer["attachments"]:
        check_bytes(file, b"content")


STREAMED = ("sample.png", "sample.pdf", "orders.csv", "sample.mp3", "sample.mp4", "sample.docx")


def test_a_stream_without_a_type_gets_one(client: Client) -> None:
    """0.0.x sends every stream as application/octet-stream; the name and the bytes know better."""
    client.tracker.get_or_create_conversation("streams")
    files = [unnamed_stream(content_of(name), name) for name in STREAMED]
    client.tracker.track_attachments(files, "end_user", mode="form_data")
    send(client)
    answer = client.api.fetch_conversation_attachments("streams")
    got = [(file["filename"], file["mime_type"], file["type"]) for file in answer["attachments"]]
    assert got == [(name, MIME_TYPES[name], type_of(MIME_TYPES[name])) for name in STREAMED]


def test_hostile_files_are_downloads(client: Client) -> None:
    """A page, a picture with a script and a liar are never shown; a real picture is."""
    names = ("hostile.html", "hostile.svg", "actually-a-png.pdf", "sample.png")
    client.tracker.get_or_create_conversation("hostile")
    client.tracker.track_human_message("Look", committed("base64", *names))
    send(client)
    for file in client.api.fetch_conversation_attachments("hostile")["attachments"]:
        headers = open_link(file["file_url"]).headers
        kind = headers["content-disposition"].partition(";")[0]
        assert kind == ("inline" if file["filename"] == "sample.png" else "attachment")
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]


def test_a_link_that_was_altered_does_not_open(client: Client) -> None:
    """Neither with another signature nor for another file."""
    client.tracker.get_or_create_conversation("links")
    client.tracker.track_human_message("Two", committed("base64", "note.txt", "orders.csv"))
    send(client)
    first, second = client.api.fetch_conversation_attachments("links")["attachments"]
    assert open_link(first["file_url"].replace(first["uid"], second["uid"])).status == 404
    head, _, name = first["file_url"].rpartition("/")
    turned = head[:-1] + ("0" if head[-1] != "0" else "1")
    assert open_link(f"{turned}/{name}").status == 404


def test_the_permanent_address_asks_for_a_key(
    client: Client, server: LiveServer, agent: Agent
) -> None:
    """`url` never expires, and gives the bytes to the agent's keys only."""
    client.tracker.get_or_create_conversation("permanent")
    client.tracker.track_human_message("One", committed("base64", "sample.pdf"))
    send(client)
    url = client.api.fetch_conversation_attachments("permanent")["attachments"][0]["url"]
    assert server.ask("GET", url).status == 401
    assert server.ask("GET", url, key=server.make_agent().read_key).status == 404
    assert server.ask("GET", url, key=agent.read_key).body == content_of("sample.pdf")


def test_a_deleted_conversation_keeps_its_files_for_those_who_know_its_number(
    client: Client,
) -> None:
    """Deleting hides from lists; the database id still opens it."""
    client.tracker.get_or_create_conversation("gone")
    client.tracker.track_human_message("One", committed("base64", "note.txt"))
    send(client)
    pk = client.api.fetch_conversation_attachments("gone")["conversation"]
    client.manager.delete_conversation("gone")
    answer = client.api.fetch_conversation_attachments(pk)
    check_bytes(answer["attachments"][0], content_of("note.txt"))
    if client.is_ours:  # A8.17: by text, 0.0.x asks a list, which leaves deleted ones out
        assert client.api.fetch_conversation_attachments("gone") == answer
    else:
        with client.raises("NotFoundException"):
            client.api.fetch_conversation_attachments("gone")


def test_a_trailing_slash_in_the_endpoint_is_no_matter(
    server: LiveServer, agent: Agent, start_client: StartClient
) -> None:
    """0.0.x then asks for //api/…."""
    client = start_client(agent.write_key, server.base_url + "/")
    client.tracker.get_or_create_conversation("slash")
    client.tracker.track_human_message("One", committed("base64", "note.txt"))
    client.tracker.track_agent_message("Two", committed("form_data", "note.txt"), "form_data")
    send(client)
    client.manager.rename_conversation("slash", "Slashed")
    answer = client.api.fetch_conversation_attachments("slash")
    assert answer["total_attachments"] == 2
    assert all(
        file["file_url"].startswith(server.base_url + "/files/") for file in answer["attachments"]
    )
    check_bytes(answer["attachments"][0], content_of("note.txt"))
