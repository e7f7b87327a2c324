"""What is refused: a clear 4xx in the one error shape, nothing stored, never a 500."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agentsight._contract import MAX_JSON_BODY_BYTES, key_checksum
from agentsight.server.agents import service as agents
from tests.support.http import (
    JSON,
    Answer,
    House,
    People,
    base64_file,
    encode_form,
    without_request_id,
)

pytestmark = pytest.mark.anyio

TRACK, UPLOAD, BATCH = "/api/track/", "/api/attachments/", "/api/v1/batch/"
LIST = "/api/conversations/"


@pytest.fixture(scope="module")
async def people(shared_house: House) -> People:
    """Make Alice, Bob and Carol once for all tests of this file: none of them changes anything."""
    return await shared_house.people()


@pytest.fixture(autouse=True)
async def nothing_stored(house: House, people: People) -> AsyncIterator[None]:
    """Hold every test of this file to storing nothing, in the database and in the store.

    Tests that need something there make it before they call `still`.
    """
    house.before = (await house.counts(), house.objects())  # type: ignore[attr-defined]
    yield
    counts, objects = house.before  # type: ignore[attr-defined]
    assert await house.counts() == counts
    # Chores may remove meanwhile what other tests left in this house; nothing may have come.
    assert house.objects() <= objects


async def still(house: House) -> None:
    """Say that what is there now was meant."""
    house.before = (await house.counts(), house.objects())  # type: ignore[attr-defined]


# --- Keys -----------------------------------------------------------------------------------------

BODY = {"conversation_id": "c", "content": "hi"}


@pytest.mark.parametrize(
    "header",
    [None, "", "Api-Key", "Api-Key ", "Basic YTpi", "ags_" + "0" * 32 + "_000000", "Api-Key\tx"],
)
async def test_no_key(house: House, header: str | None) -> None:
    """No key at all is 401 `not_authenticated`, with the scheme that is wanted."""
    headers = JSON if header is None else JSON | {"authorization": header}
    for path in (TRACK, LIST):
        answer = await house.stranger.send(
            "POST", path, body=json.dumps(BODY).encode(), headers=headers
        )
        assert answer.is_error(401, "not_authenticated")
        assert answer.headers["www-authenticate"] == "Api-Key"


def _bad_keys() -> Iterator[str]:
    body = "ags_" + "ab" * 16
    good = f"{body}_{key_checksum(body)}"
    yield good  # well formed, unknown
    yield good[:-1] + ("0" if good[-1] != "0" else "1")  # wrong checksum
    yield good[:-1]
    yield good + "0"
    yield good.replace("_", "-")
    yield good.replace("a", "\u00e4", 1)
    yield "x" * 10_000
    yield "' OR 1=1 --"
    yield "\u00ff"


@pytest.mark.parametrize("key", list(_bad_keys()), ids=range(9))
async def test_malformed_and_unknown_keys(house: House, key: str) -> None:
    """All are 401 `invalid_key` in the same words: nothing tells which it was."""
    told = []
    for url in (LIST, "/api/conversations/1/attachments/", "/api/conversations/1/"):
        answer = await house.caller(key).get(url)
        assert answer.is_error(401, "invalid_key")
        told.append(without_request_id(answer))
    assert told[0] == told[1] == told[2]


async def test_revoked_and_expired_keys(house: House, people: People) -> None:
    """They are refused like unknown ones, five seconds later at the latest."""
    db, ours, slug = house.db, people.organisation, people.alice.slug
    now = house.clock()
    expiring = await agents.create_key(db, ours, slug, role="write", expires_in_days=1, now_us=now)
    revoked = await agents.create_key(db, ours, slug, role="write", now_us=now)
    for key in (expiring, revoked):
        assert (await house.caller(key.text).get(LIST)).status == 200
    key_id = await agents.find_key_id(db, ours, revoked.text)
    await agents.revoke_key(db, ours, key_id, now_us=house.clock())
    house.clock.move(5)
    assert (await house.caller(revoked.text).post(TRACK, BODY)).is_error(401, "invalid_key")
    assert (await house.caller(expiring.text).get(LIST)).status == 200
    house.clock.move(86400)
    assert (await house.caller(expiring.text).post(TRACK, BODY)).is_error(401, "invalid_key")


async def test_a_read_key_that_writes(house: House, people: People) -> None:
    """Every route that writes answers it with 403, before it looks at ids or bodies."""
    pk = await people.alice.conversation()
    await still(house)
    for method, path in [
        ("POST", LIST), ("POST", TRACK), ("POST", "/api/action_logs/"), ("POST", "/api/buttons/"),
        ("POST", UPLOAD), ("POST", BATCH), ("POST", "/api/conversation-feedbacks/"),
        ("PATCH", f"{LIST}{pk}/rename/"), ("POST", f"{LIST}{pk}/mark/"),
        ("PATCH", f"{LIST}{pk}/update/"), ("DELETE", f"{LIST}{pk}/delete/"),
    ]:  # fmt: skip
        answer = await people.alice.reader.send(method, path, body=b"{broken", headers=JSON)
        assert answer.is_error(403, "permission_denied"), path


# --- Ids ------------------------------------------------------------------------------------------

BAD_IDS = [
    "True", "abc", str(2**70), str(2**53), "-1", "0", "1.0", "1e3", "%00", "%FF", "9" * 4000,
    "%F0%9F%98%80", "%D9%A3", "1%20", "None", "null", "..", "%2e%2e", "1;2", "'", "1%0A",
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_ids_that_name_nothing(people: People, bobs_row: int, bad: str) -> None:
    """Unknown, foreign and impossible ids are one and the same 404, on every route with an id."""
    told = []
    for wanted in (str(2**50), str(bobs_row), bad):
        for method, tail, body in [
            ("GET", "", b""),
            ("GET", "attachments/", b""),
            ("PATCH", "rename/", b'{"name":"x"}'),
            ("POST", "mark/", b'{"is_marked":true}'),
            ("PATCH", "update/", b'{"device":"x"}'),
            ("DELETE", "delete/", b""),
        ]:
            answer = await people.alice.writer.send(
                method, f"{LIST}{wanted}/{tail}", body=body, headers=JSON
            )
            assert answer.is_error(404, "not_found"), (method, wanted, tail, answer.body)
            told.append(without_request_id(answer))
    assert all(body == told[0] for body in told)


@pytest.fixture
async def bobs_row(house: House, people: People) -> int:
    """Make a conversation of Bob's before the look at the tables."""
    pk = await people.bob.conversation()
    await still(house)
    return pk


@pytest.mark.parametrize("bad", [True, 1.5, "abc", 2**70, -1, "-1", [1], {"a": 1}])
async def test_ids_in_bodies(people: People, bad: Any) -> None:
    """An id of the right kind that names nothing is 404, another kind of value 400."""
    code = 400 if isinstance(bad, list | dict) else 404
    for path, body in [
        (TRACK, {"content": "hi"}),
        ("/api/conversation-feedbacks/", {"sentiment": "positive"}),
        (UPLOAD, {"attachments": [base64_file()]}),
    ]:
        answer = await people.alice.post(path, body | {"conversation": bad})
        assert answer.is_error(code, "not_found" if code == 404 else "invalid"), answer.body


async def test_a_content_uid_that_names_nothing(people: People) -> None:
    """The permanent address tells nothing of what is not the caller's."""
    for uid in ("x", "%00", "%FF", "0" * 36, "../../etc/passwd", "a" * 5000):
        answer = await people.alice.get(f"/api/v1/attachments/{uid}/content/")
        assert answer.is_error(404, "not_found"), uid


# --- JSON -----------------------------------------------------------------------------------------

BROKEN = [
    b"{", b"}", b"{]", b'{"a":}', b"nonsense", b"'single'", b'{"a":1}}', b"\xff\xfe", b"\x00",
    b"[" * 100_000, b"{\"a\":" * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b'{"content": NaN}', b'{"content": Infinity}', b'{"content": -Infinity}',
    b'{"content": 1e999}', b'{"content": ' + b"1" * 5000 + b"}", b'{"content": "\\ud8"}',
    b'{"content": "x', b"\xef\xbb\xbf{", b'{"content": 01}',
]  # fmt: skip


@pytest.mark.parametrize("raw", BROKEN, ids=lambda raw: repr(raw[:20]))
@pytest.mark.parametrize("path", [TRACK, LIST, UPLOAD, BATCH])
async def test_broken_json(people: People, path: str, raw: bytes) -> None:
    """It is a 400 `malformed_json`, however deep or long."""
    answer = await people.alice.writer.send("POST", path, body=raw, headers=JSON)
    assert answer.is_error(400, "malformed_json"), answer.body


@pytest.mark.parametrize("depth", [21, 300, 480, 700, 900, 980, 1100, 20_000])
@pytest.mark.parametrize("field", ["metadata", "response", "tools_used", "unknown", "content"])
async def test_nesting(people: People, field: str, depth: int) -> None:
    """However deep a field nests, it is a 400 (or ignored where nobody reads it)."""
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    body = b'{"conversation_id":"n","action_name":"a","%s":%s}' % (field.encode(), nested)
    answer = await people.alice.writer.send(
        "POST", "/api/action_logs/", body=body.replace(b'"n"', b'"None"'), headers=JSON
    )
    assert answer.status == 400
    assert answer.is_error(400, answer.json()["code"]), answer.body


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (TRACK, {"conversation_id": "c"}, "content"),
        (TRACK, {"conversation_id": "c", "content": None}, "content"),
        (TRACK, {"conversation_id": "c", "content": ""}, "content"),
        (TRACK, {"conversation_id": "c", "content": ["x"]}, "content"),
        (TRACK, {"conversation_id": "c", "content": {"x": 1}}, "content"),
        (TRACK, {"conversation_id": ["c"], "content": "x"}, "conversation_id"),
        (TRACK, {"conversation_id": "c" * 256, "content": "x"}, "conversation_id"),
        (TRACK, {"conversation_id": "c", "content": "x", "metadata": [1]}, "metadata"),
        (TRACK, {"conversation_id": "c", "content": "x", "metadata": "{}"}, "metadata"),
        (TRACK, {"conversation_id": "c", "content": "x", "sender": "nobody"}, "sender"),
        (TRACK, {"conversation_id": "c", "content": "x", "sender": ["agent"]}, "sender"),
        (TRACK, {"conversation_id": "c", "content": "x", "timestamp": "noon"}, "timestamp"),
        (TRACK, {"conversation_id": "c", "content": "x", "timestamp": 5}, "timestamp"),
        (TRACK, {"conversation_id": "c", "content": "x", "timestamp": True}, "timestamp"),
        (
            TRACK,
            {"conversation_id": "c", "content": "x", "timestamp": "0001-01-01T00:00:00+14:00"},
            "timestamp",
        ),
        (
            TRACK,
            {"conversation_id": "c", "content": "x", "timestamp": "9999-12-31T23:59:59-14:00"},
            "timestamp",
        ),
        (LIST, {}, "conversation_id"),
        (LIST, {"conversation_id": "None"}, "conversation_id"),
        (LIST, {"conversation_id": " "}, "conversation_id"),
        (LIST, {"conversation_id": "c", "is_used": "perhaps"}, "is_used"),
        (LIST, {"conversation_id": "c", "name": "x" * 256}, "name"),
        (LIST, {"conversation_id": "c", "device": {}}, "device"),
        ("/api/action_logs/", {"conversation_id": "c"}, "action_name"),
        (
            "/api/action_logs/",
            {"conversation_id": "c", "action_name": "a", "duration_ms": "long"},
            "duration_ms",
        ),
        (
            "/api/action_logs/",
            {"conversation_id": "c", "action_name": "a", "duration_ms": -1},
            "duration_ms",
        ),
        (
            "/api/action_logs/",
            {"conversation_id": "c", "action_name": "a", "duration_ms": 2**4000},
            "duration_ms",
        ),
        (
            "/api/action_logs/",
            {"conversation_id": "c", "action_name": "a", "tools_used": [1]},
            "tools_used",
        ),
        ("/api/buttons/", {"conversation_id": "c", "label": "l"}, "button_event"),
        ("/api/buttons/", {"conversation_id": "c", "button_event": "e"}, "label"),
        ("/api/conversation-feedbacks/", {"sentiment": "positive"}, "conversation"),
        ("/api/conversation-feedbacks/", {"conversation": 1}, "sentiment"),
        ("/api/conversation-feedbacks/", {"conversation": 1, "sentiment": "x"}, "sentiment"),
        (UPLOAD, {"conversation_id": "c"}, "attachments"),
        (UPLOAD, {"conversation_id": "c", "attachments": []}, "attachments"),
        (UPLOAD, {"conversation_id": "c", "attachments": "x"}, "attachments"),
        (UPLOAD, {"conversation_id": "c", "attachments": [1]}, "attachments"),
        (UPLOAD, {"conversation_id": "c", "attachments": [{"filename": "a"}]}, "attachments"),
        (
            UPLOAD,
            {"conversation_id": "c", "attachments": [{"data": "eA==", "filename": ["a"]}]},
            "attachments",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
async def test_wrong_types_and_missing_fields(
    people: People, path: str, body: dict, field: str
) -> None:
    """Each is a 400 with a list of texts at the field's own name."""
    answer = await people.alice.post(path, body)
    assert answer.is_error(400, answer.json()["code"]), answer.body
    assert answer.json()[field]


@pytest.mark.parametrize("value", [None, 1, "x", True, []])
@pytest.mark.parametrize("path", [TRACK, LIST, UPLOAD, BATCH, "/api/conversation-feedbacks/"])
async def test_bodies_that_are_no_object(people: People, path: str, value: Any) -> None:
    """They are a 400."""
    answer = await people.alice.post(path, value)
    assert answer.is_error(400, answer.json()["code"]), answer.body


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TRACK, UPLOAD, BATCH])
async def test_a_body_that_announces_too_much_is_not_read(people: People, path: str) -> None:
    """413 names the limit, and not one byte was asked for before it was answered."""
    headers = JSON | {"content-length": str(MAX_JSON_BODY_BYTES + 1)}
    answer = await people.alice.writer.send("POST", path, body=[], headers=headers)
    assert answer.is_error(413, "too_large")
    assert "max_json_body_bytes" in answer.json()["detail"]
    assert str(MAX_JSON_BODY_BYTES) in answer.json()["detail"]
    assert answer.headers["connection"] == "close"


class Counted:
    """A body without an end, which counts what was pulled by the time of the answer."""

    def __init__(self, first: bytes, piece: bytes) -> None:
        self.n_bytes = 0
        self._first, self._piece = first, piece

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        while True:
            self.n_bytes += len(self._piece)
            yield self._piece


async def until_answered(caller: Any, body: Counted, headers: dict[str, str], path: str) -> Answer:
    """Send a body without an end and note how much was pulled when the answer began."""
    pulled: list[int] = []
    app = caller.app

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                pulled.append(body.n_bytes)
            await send(message)

        await app(scope, receive, note)

    writer = type(caller)(noting, caller.headers)
    answer = await writer.send("POST", path, body=body, headers=headers)
    answer.n_pulled = pulled[0]
    return answer


CHUNKED = {"transfer-encoding": "chunked"}


async def test_a_body_without_a_length_is_read_to_the_limit(people: People) -> None:
    """At the piece that passes the limit it is over."""
    body = Counted(b'{"content":"', b"x" * 1_000_000)
    answer = await until_answered(people.alice.writer, body, JSON | CHUNKED, TRACK)
    assert answer.is_error(413, "too_large")
    assert answer.n_pulled <= MAX_JSON_BODY_BYTES + 1_000_000


async def test_a_gzip_bomb(people: People) -> None:
    """What it inflates to is counted: 60 KB of bomb cost 413, not 64 MB and more."""
    bomb = gzip.compress(b"[" + b"0," * (MAX_JSON_BODY_BYTES // 2 + 1))
    headers = JSON | {"content-encoding": "gzip"}
    answer = await people.alice.writer.send("POST", BATCH, body=bomb, headers=headers)
    assert answer.is_error(413, "too_large"), answer.body


@pytest.mark.parametrize(
    ("encoding", "raw", "status"),
    [
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b'{"content":"x"}', mtime=0)[:-12], 400),
        ("gzip", b"", 400),
        ("br", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("\u00e9", b"{}", 415),
    ],
)
async def test_encodings(people: People, encoding: str, raw: bytes, status: int) -> None:
    """Broken gzip is 400, an encoding that is not read 415."""
    headers = JSON | {"content-encoding": encoding}
    answer = await people.alice.writer.send("POST", TRACK, body=raw, headers=headers)
    code = answer.json()["code"]
    assert answer.is_error(status, code)


async def test_texts_and_metadata_above_their_limits(people: People) -> None:
    """Each is a 413 that names its limit."""
    for body, limit in [
        ({"content": "ä" * 524_289}, "max_text_bytes"),
        ({"content": "x", "metadata": {"a": "x" * 65_536}}, "max_metadata_bytes"),
    ]:
        answer = await people.alice.post(TRACK, {"conversation_id": "c"} | body)
        assert answer.is_error(413, "too_large")
        assert limit in answer.json()["detail"]


async def test_too_many_files(people: People) -> None:
    """101 files are refused, in JSON and in a form."""
    files = [base64_file(b"", f"{n}.txt") for n in range(101)]
    answer = await people.alice.post(UPLOAD, {"conversation_id": "c", "attachments": files})
    assert answer.is_error(413, "too_large")
    parts = [(f"attachment_{n}", "a", "text/plain", b"") for n in range(101)]
    answer = await people.alice.writer.form(UPLOAD, [("conversation", "1"), *parts])
    assert answer.is_error(413, "too_large")


async def test_too_many_items(people: People) -> None:
    """10,001 items are refused."""
    items = [{"type": "message", "content": "x"}] * 10_001
    body = {"conversation": {"conversation_id": "c"}, "items": items}
    answer = await people.alice.post(BATCH, body)
    assert answer.is_error(413, "too_large")


async def test_a_large_base64_file(people: People) -> None:
    """A byte above 25 MiB is a 413 that names the limit and the way out."""
    file = {"filename": "big.bin", "data": "A" * ((25 * 1024 * 1024) // 3 * 4 + 8)}
    answer = await people.alice.post(UPLOAD, {"conversation_id": "c", "attachments": [file]})
    assert answer.is_error(413, "too_large")
    assert "max_base64_file_bytes" in answer.json()["detail"]


# --- Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    ["a", "ab", "abc", "abcd=", "ab=c", "====", "YQ==YQ==", "YQ= =", "YQ==\n", " YQ==", "-_-_",
     "YQ", "YR==x", "ä", "\u0000", "data:text/plain;base64,YQ==", "YWJj" * 100_000 + "!"],
)  # fmt: skip
async def test_base64_with_rubbish(people: People, data: str) -> None:
    """Strict base64 or 400, naming the file; the good one beside it is not kept."""
    body = {"conversation_id": "c", "attachments": [base64_file(), {"filename": "x", "data": data}]}
    answer = await people.alice.post(UPLOAD, body)
    assert answer.is_error(400, "malformed_base64"), answer.body
    assert "file 1" in answer.json()["detail"]


FORM = [
    ("conversation_id", "c"),
    ("metadata", "{}"),
    ("attachment_0", "a.txt", "text/plain", b"x" * 3000),
]


@pytest.mark.parametrize("is_cut", [True, False], ids=["hung-up", "ended"])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9, 0.97, 0.999])
async def test_multipart_cut_off(people: People, share: float, is_cut: bool) -> None:
    """Wherever it is cut, it is a 400, and the half file is removed."""
    body, content_type = encode_form(FORM)
    half = body[: int(len(body) * share)]
    answer = await people.alice.writer.send(
        "POST",
        UPLOAD,
        body=[half[i : i + 700] for i in range(0, len(half), 700)],
        headers={"content-type": content_type},
        is_cut=is_cut,
    )
    assert answer.is_error(400, answer.json()["code"]), answer.body


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/form-data; boundary=\u00e4",
    ],
)
async def test_wrong_boundaries(people: People, content_type: str) -> None:
    """A body that its boundary does not fit is a 400."""
    body, _ = encode_form(FORM)
    answer = await people.alice.writer.send(
        "POST", UPLOAD, body=body, headers={"content-type": content_type}
    )
    assert answer.is_error(400, "malformed_multipart")


@pytest.mark.parametrize("metadata", ["{", "[1]", "1", '"x"', "NaN", "[" * 5000])
async def test_form_metadata_that_is_no_object(people: People, metadata: str) -> None:
    """It is a 400 at `metadata`."""
    answer = await people.alice.writer.form(
        UPLOAD, [("conversation_id", "c"), ("metadata", metadata), FORM[2]]
    )
    assert answer.is_error(400, "invalid")
    assert answer.json()["metadata"]


async def test_a_form_without_files(people: People) -> None:
    """An empty list of files is a 400."""
    answer = await people.alice.writer.form(UPLOAD, [("conversation_id", "c"), ("sender", "agent")])
    assert answer.is_error(400, "required")


async def test_a_client_that_hangs_up(people: People) -> None:
    """A JSON body that breaks off stores nothing."""
    for pieces in ([], [b'{"conversation_id":"c",'], [b'{"conversation_id":"c","content":"x"}']):
        answer = await people.alice.writer.send(
            "POST", TRACK, body=pieces, headers=JSON | CHUNKED, is_cut=True
        )
        assert answer.is_error(400, "invalid")


# --- Routes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/", "/api/nothing/", "/nothing", "/api/v1/", "/api/v2/batch/", "/%00", "/%FF%FE"]
)
async def test_paths_that_are_not_there(people: People, path: str) -> None:
    """They are the same 404 in the same shape."""
    assert (await people.alice.get(path)).is_error(404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", TRACK), ("GET", TRACK), ("DELETE", LIST), ("POST", f"{LIST}1/"), ("PUT", BATCH)],
)
async def test_methods_that_are_not_there(people: People, method: str, path: str) -> None:
    """They are 405 and say which are."""
    answer = await people.alice.writer.send(method, path, body=b"{}", headers=JSON)
    assert answer.is_error(405, "method_not_allowed")
    assert answer.headers["allow"]
