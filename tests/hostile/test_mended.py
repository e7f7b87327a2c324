"""What is accepted and mended, because a refusal would lose a message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.http import JSON, People, base64_file, encode_form, path_of

pytestmark = pytest.mark.anyio

UPLOAD = "/api/attachments/"
RAW = [
    (b'"a\\u0000b"', "a\ufffdb"),
    (b'"a\x00b"', "a\ufffdb"),
    (b'"a\\ud800b"', "a\ufffdb"),
    (b'"\\udc00\\ud800"', "\ufffd\ufffd"),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b'"tab\tline\nbell\x07"', "tab\tline\nbell\x07"),
    (b'"caf\xe9"', "caf\ufffd"),
    (b'"\\u202eevil"', "\u202eevil"),
]


@pytest.mark.parametrize(("raw", "kept"), RAW, ids=lambda v: repr(v))
async def test_texts(people: People, raw: bytes, kept: str) -> None:
    """NUL, lone surrogates and stray bytes become U+FFFD, in every text of a request."""
    body = (
        b'{"conversation_id":%s,"customer_id":%s,"name":%s,"device":%s,"source":%s,"language":%s,'
        b'"environment":"dev","customer_ip_address":%s,"metadata":{%s:[%s]}}'
    ) % ((raw,) * 9)
    opened = await people.alice.writer.send("POST", "/api/conversations/", body=body, headers=JSON)
    assert opened.status == 201, opened.body
    pk = opened.json()["id"]
    tracked = await people.alice.writer.send(
        "POST",
        "/api/track/",
        body=b'{"conversation":%d,"content":%s,"metadata":{"k":%s}}' % (pk, raw, raw),
        headers=JSON,
    )
    assert tracked.status == 201, tracked.body
    row = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    fields = ("conversation_id", "customer_id", "name", "device", "source", "language",
              "customer_ip_address")  # fmt: skip
    assert {row[field] for field in fields} == {kept}
    assert row["metadata"] == {kept: [kept]}
    assert (row["messages"][0]["content"], row["messages"][0]["metadata"]) == (kept, {"k": kept})


async def test_details_and_feedback(people: People) -> None:
    """The same holds for what hangs on messages and conversations."""
    pk = await people.alice.conversation()
    bad, kept = "x\x00\ud800", "x\ufffd\ufffd"
    body: dict[str, Any] = {"conversation": pk, "action_name": bad, "response": bad}
    body |= {"started_at": bad, "tools_used": {bad: bad}, "error_msg": bad, "metadata": {bad: bad}}
    assert (await people.alice.post("/api/action_logs/", body)).status == 201
    button = {"conversation": pk, "button_event": bad, "label": bad, "value": bad}
    assert (await people.alice.post("/api/buttons/", button)).status == 201
    feedback = {"conversation": pk, "sentiment": "neutral", "comment": bad, "metadata": {bad: bad}}
    answer = await people.alice.post("/api/conversation-feedbacks/", feedback)
    assert (answer.status, answer.json()["comment"]) == (201, kept)
    action, click = await people.alice.transcript(pk)
    [log] = action["action_logs"]
    assert (log["action_name"], log["response"], log["started_at"]) == (kept, kept, kept)
    assert (log["tools_used"], log["error_message"]) == ({kept: kept}, kept)
    assert (click["button"]["label"], click["button"]["value"]) == (kept, kept)


NAMES = [
    ("/etc/passwd", "passwd"),
    ("..\\..\\boot.ini", "boot.ini"),
    ("C:\\Users\\me\\cv.pdf", "cv.pdf"),
    ("a/", "a"),
    ("..", "file"),
    ("../..", "file"),
    ("", "file"),
    (" ", "file"),
    ("\x00", "\ufffd"),
    ("a\x00b.txt", "a\ufffdb.txt"),
    ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie: x=1.txt"),
    ("\u202egpj.exe", "gpj.exe"),
    ("\u2066a\u2069.png", "a.png"),
    ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
    ("ä" * 300, "ä" * 255),
    ('quo"te;.txt', 'quo"te;.txt'),
    ("日本語.txt", "日本語.txt"),
    ("<script>.html", "<script>.html"),
    ("a%2Fb.txt", "a%2Fb.txt"),
    ("?query#fragment", "?query#fragment"),
]


@pytest.mark.parametrize(("sent", "kept"), NAMES, ids=lambda v: repr(v)[:24])
async def test_file_names(people: People, sent: str, kept: str) -> None:
    """Whatever a file is called, it is stored, and its link opens; in JSON and in a form."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "attachments": [base64_file(b"12345", sent)]}
    by_json = await people.alice.post(UPLOAD, body)
    parts = [("conversation", str(pk)), ("attachment_0", sent, "text/plain", b"12345")]
    by_form = await people.alice.writer.form(UPLOAD, parts)
    for answer in (by_json, by_form):
        assert answer.status == 201, answer.body
    assert by_json.json()["attachments"][0]["filename"] == kept
    for file in (await people.alice.files(pk))["attachments"]:
        opened = await people.alice.writer.send("GET", path_of(file["file_url"]))
        assert (opened.status, opened.body) == (200, b"12345"), file["file_url"]
        assert opened.headers["content-disposition"].isprintable()


@pytest.mark.parametrize(
    ("declared", "filename", "effective"),
    [
        (None, "a.png", "image/png"),
        ("", "a.png", "image/png"),
        ("  ", "a.csv", "text/csv"),
        ("application/octet-stream", "a.pdf", "application/pdf"),
        ("APPLICATION/PDF; x=y", "a.txt", "application/pdf"),
        ("nonsense", "a.png", "image/png"),
        ("text/html\r\nX: y", "a", "application/octet-stream"),
        ("x" * 10_000, "a", "application/octet-stream"),
        (7, "a.txt", "text/plain"),
        ("\ud800/\x00", "a.txt", "text/plain"),
    ],
)
async def test_mime_types(people: People, declared: Any, filename: str, effective: str) -> None:
    """A missing, blank or broken type is made out by name and content."""
    pk = await people.alice.conversation()
    file = base64_file(b"\x01\x02", filename, mime_type=declared)
    answer = await people.alice.post(UPLOAD, {"conversation": pk, "attachments": [file]})
    assert answer.status == 201, answer.body
    mime_type = answer.json()["attachments"][0]["mime_type"]
    if "\r" not in str(declared):
        assert mime_type == effective
    assert mime_type.isprintable()


async def test_empty_files_and_equal_names(people: People) -> None:
    """An empty file is a file, and three with one name in one message are three."""
    pk = await people.alice.conversation()
    files = [base64_file(data, "same.txt") for data in (b"", b"1", b"1")]
    answer = await people.alice.post(UPLOAD, {"conversation": pk, "attachments": files})
    shown = (await people.alice.files(pk))["messages"]
    assert answer.status == 201
    assert [[(f["filename"], f["size_bytes"]) for f in m["attachments"]] for m in shown] == [
        [("same.txt", 0), ("same.txt", 1), ("same.txt", 1)]
    ]
    opened = await people.alice.writer.send("GET", path_of(shown[0]["attachments"][0]["file_url"]))
    assert (opened.status, opened.body) == (200, b"")


@pytest.mark.parametrize("pieces", [1, 7, 64])
async def test_forms_in_any_pieces(people: People, pieces: int) -> None:
    """However a form's bytes arrive, it is the same form; ten files keep numeric order."""
    pk = await people.alice.conversation()
    names = [f"attachment_{n}" for n in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)]
    parts = [(name, f"{name}.txt", "text/plain", name.encode()) for name in names]
    body, content_type = encode_form([("conversation", str(pk)), *parts])
    answer = await people.alice.writer.send(
        "POST",
        UPLOAD,
        body=[body[i : i + pieces] for i in range(0, len(body), pieces)],
        headers={"content-type": content_type},
    )
    shown = [a["filename"] for a in answer.json()["attachments"]]
    assert shown == [f"attachment_{n}.txt" for n in range(12)]


async def test_names_in_both_spellings(people: People) -> None:
    """Raw UTF-8 in `filename` (urllib3 2) and RFC 2231's `filename*` (older) are one name."""
    pk = await people.alice.conversation()
    for parameter in ('filename="Bücher.txt"', "filename*=utf-8''B%C3%BCcher.txt"):
        body = (
            f'--B\r\nContent-Disposition: form-data; name="conversation"\r\n\r\n{pk}\r\n--B\r\n'
            f'Content-Disposition: form-data; name="attachment_0"; {parameter}\r\n\r\nx\r\n--B--'
        )
        answer = await people.alice.writer.send(
            "POST",
            UPLOAD,
            body=body.encode() + b"\r\n",
            headers={"content-type": "multipart/form-data; boundary=B"},
        )
        assert answer.json()["attachments"][0]["filename"] == "Bücher.txt", answer.body


async def test_form_metadata_null(people: People) -> None:
    """`null` and blank are no metadata."""
    pk = await people.alice.conversation()
    for text in ("null", "", " ", "{}"):
        parts = [("conversation", str(pk)), ("metadata", text), ("f", "a", "text/plain", b"x")]
        assert (await people.alice.writer.form(UPLOAD, parts)).status == 201


async def test_a_body_without_content_type(people: People) -> None:
    """JSON is JSON whatever its header says."""
    for kind in (None, "text/plain", "application/json; charset=utf-16", "nonsense"):
        answer = await people.alice.writer.send(
            "POST",
            "/api/track/",
            body=json.dumps({"conversation_id": "c", "content": "x"}).encode(),
            headers={} if kind is None else {"content-type": kind},
        )
        assert answer.status == 201, (kind, answer.body)


async def test_scalars_where_texts_are_meant(people: People) -> None:
    """gen A sends what its user passed; numbers and booleans are read as text, huge ones too."""
    for value, kept in [(7, "7"), (1.5, "1.5"), (True, "true"), (2**70, str(2**70))]:
        answer = await people.alice.post(
            "/api/track/", {"conversation_id": f"{value}", "content": value}
        )
        [message] = await people.alice.transcript(answer.json()["conversation"])
        assert message["content"] == kept


async def test_numbers_of_any_size_in_metadata(people: People) -> None:
    """Integers beyond 64 bits come back whole, doubles equal as doubles."""
    whole, doubles = [2**70, -(2**70), 2**63], [5e-324, 1.7976931348623157e308, 0.1, -0.0, 1e22]
    pk = await people.alice.conversation("c", metadata={"n": whole, "d": doubles})
    shown = (await people.alice.get(f"/api/conversations/{pk}/")).json()["metadata"]
    assert (shown["n"], [float(d) for d in shown["d"]]) == (whole, doubles)
    query = {"metadata": f"n:{2**70}"}
    assert (await people.alice.get("/api/conversations/", query)).status == 200


@pytest.mark.parametrize("timestamp", ["0001-01-01", "9999-12-31T23:59:59.999999Z"])
async def test_the_edges_of_time(people: People, timestamp: str) -> None:
    """The first and the last moment that can be written are kept and shown."""
    pk = await people.alice.conversation("c", timestamp=timestamp)
    await people.alice.message(pk, timestamp=timestamp)
    [message] = await people.alice.transcript(pk)
    assert message["timestamp"].startswith(timestamp[:10])
