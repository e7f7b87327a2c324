"""The batch of our own SDK: whole or not at all, and every refusal names its items."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.support.http import House, People, base64_file

pytestmark = pytest.mark.anyio

URL = "/api/v1/batch/"
ITEMS: list[dict[str, Any]] = [
    {"type": "message", "item_key": "m", "sender": "end_user", "content": "hi"},
    {"type": "attachments", "item_key": "f", "attachments": [base64_file()]},
    {"type": "action", "item_key": "a", "action_name": "search", "duration_ms": 12},
    {"type": "button", "item_key": "b", "button_event": "e", "label": "l", "value": "v"},
    {"type": "usage", "item_key": "u", "prompt_tokens": 1, "total_tokens": 3},
]


def batch(*items: dict[str, Any], **conversation: Any) -> dict[str, Any]:
    """Make a batch for the conversation `b`."""
    return {"conversation": {"conversation_id": "b"} | conversation, "items": list(items)}


async def test_all_kinds_are_stored_in_the_order_sent(people: People) -> None:
    """Each item is answered with its index, key, type and message id, in order."""
    answer = await people.alice.post(URL, batch(*ITEMS))
    assert answer.status == 200
    body = answer.json()
    items = body["items"]
    assert [(i["index"], i["item_key"], i["type"], i["status"]) for i in items] == [
        (n, item["item_key"], item["type"], "stored") for n, item in enumerate(ITEMS)
    ]
    assert [i["id"] for i in items] == sorted(i["id"] for i in items)
    assert [len(i["attachments"]) for i in items] == [0, 1, 0, 0, 0]
    kinds = [m["kind"] for m in await people.alice.transcript(body["conversation"])]
    assert kinds == ["text", "attachments", "action", "button"]


async def test_a_repeat_changes_nothing(house: House, people: People) -> None:
    """The same batch again answers with the same rows, each `repeated`."""
    first = (await people.alice.post(URL, batch(*ITEMS))).json()
    before, objects = await house.counts(), house.objects()
    house.clock.move(86400)
    again = (await people.alice.post(URL, batch(*ITEMS))).json()
    assert {i["status"] for i in again["items"]} == {"repeated"}
    assert [i["id"] for i in again["items"]] == [i["id"] for i in first["items"]]
    assert again["items"][1]["attachments"][0]["id"] == first["items"][1]["attachments"][0]["id"]
    assert (await house.counts(), house.objects()) == (before, objects)


async def test_a_longer_repeat_stores_what_is_new(people: People) -> None:
    """What was delivered before is repeated, the rest stored; the counter counts once."""
    await people.alice.post(URL, batch(*ITEMS[:2]))
    body = (await people.alice.post(URL, batch(*ITEMS))).json()
    assert [i["status"] for i in body["items"]] == ["repeated"] * 2 + ["stored"] * 3
    read = (await people.alice.get(f"/api/conversations/{body['conversation']}/")).json()
    assert read["message_count"] == 4


async def test_an_empty_batch_opens_the_conversation(people: People) -> None:
    """A conversation without items is opened or filled all the same."""
    opened = (await people.alice.post(URL, batch(is_used=False))).json()
    await people.alice.post(URL, batch(is_used=True, name="N"))
    read = (await people.alice.get(f"/api/conversations/{opened['conversation']}/")).json()
    assert (read["is_used"], read["name"], opened["items"]) == (True, "N", [])


BAD = [
    {"type": "nonsense"},
    {"type": "message", "item_key": "x"},
    {"type": "message", "content": "hi", "sender": "nobody"},
    {"type": "message", "content": "hi", "timestamp": "yesterday"},
    {"type": "attachments", "attachments": []},
    {"type": "attachments"},
    {"type": "attachments", "attachments": [{"filename": "a", "data": "not base64!"}]},
    {"type": "attachments", "attachments": [{"filename": "a", "part": "nowhere"}]},
    {"type": "attachments", "attachments": [{"filename": "a"}]},
    {"type": "action"},
    {"type": "button", "label": "l"},
    {"type": "usage", "prompt_tokens": -1},
    {"type": "usage", "prompt_tokens": 2**60},
    {"type": "message", "content": "hi", "item_key": "k" * 256},
]


@pytest.mark.parametrize("bad", BAD, ids=json.dumps)
async def test_one_bad_item_refuses_all(house: House, people: People, bad: dict) -> None:
    """Nothing is stored, not the conversation, not an object; `items` names the one at fault."""
    before, objects = await house.counts(), house.objects()
    answer = await people.alice.post(URL, batch(ITEMS[0], ITEMS[1], bad))
    body = answer.json()
    assert answer.is_error(400, body["code"]), body
    [refused] = body["items"]
    assert (refused["index"], refused["item_key"]) == (2, bad.get("item_key"))
    assert refused["code"] == body["code"]
    assert refused["detail"]
    assert (await house.counts(), house.objects()) == (before, objects)


async def test_all_bad_items_are_named(people: People) -> None:
    """A sender can set all of them aside at once."""
    answer = await people.alice.post(URL, batch(BAD[0], ITEMS[0], BAD[1]))
    assert [i["index"] for i in answer.json()["items"]] == [0, 2]


async def test_a_taken_attachment_key_refuses_its_item(house: House, people: People) -> None:
    """A file's key that another attachment has is found inside the unit, and all is undone."""
    keyed = base64_file(item_key="file-1")
    await people.alice.post(URL, batch({"type": "attachments", "attachments": [keyed]}))
    before, objects = await house.counts(), house.objects()
    second = {"type": "attachments", "item_key": "z", "attachments": [keyed]}
    answer = await people.alice.post(URL, batch(ITEMS[0], second))
    assert answer.is_error(400, "invalid")
    assert [(i["index"], i["item_key"]) for i in answer.json()["items"]] == [(1, "z")]
    assert (await house.counts(), house.objects()) == (before, objects)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"conversation": {}},
        {"conversation": {"conversation_id": ""}},
        {"conversation": {"conversation_id": None}},
        {"conversation": {"conversation_id": "x"}, "items": None},
        {"conversation": {"conversation_id": "x"}, "items": [1]},
        {"conversation": [], "items": []},
        {"conversation": {"conversation_id": ["x"]}},
        {"conversation": {"conversation_id": "x", "metadata": []}},
        [],
        None,
        "batch",
    ],
    ids=json.dumps,
)
async def test_a_body_that_is_no_batch(house: House, people: People, body: Any) -> None:
    """It is refused in the error shape, and nothing is stored."""
    before = await house.counts()
    answer = await people.alice.post(URL, body)
    assert answer.is_error(400, answer.json()["code"])
    assert await house.counts() == before


def as_form(value: Any, *files: tuple[str, bytes]) -> list[Any]:
    """Encode a batch as our SDK does: the batch first, then one part a file."""
    return [
        ("batch", json.dumps(value)),
        *((name, f"{name}.bin", "application/octet-stream", data) for name, data in files),
    ]


def with_parts(*names: str, **fields: Any) -> dict[str, Any]:
    """Make an item whose files are parts."""
    files = [{"filename": f"{name}.txt", "part": name} for name in names]
    return {"type": "message", "content": "files", "attachments": files} | fields


async def test_files_come_as_parts(people: People) -> None:
    """An item's file names its part; the item's word for name and type counts."""
    form = as_form(batch(with_parts("file_1", "file_0")), ("file_0", b"zero"), ("file_1", b"one"))
    answer = await people.alice.writer.form(URL, form)
    assert answer.status == 200
    [item] = answer.json()["items"]
    assert [(a["filename"], a["size_bytes"]) for a in item["attachments"]] == [
        ("file_1.txt", 3),
        ("file_0.txt", 4),
    ]


async def test_a_part_may_be_attached_twice(people: People) -> None:
    """Two items, or one twice, may name the same part: two attachments, one object."""
    value = batch(with_parts("f", "f", item_key="1"), with_parts("f", item_key="2"))
    answer = await people.alice.writer.form(URL, as_form(value, ("f", b"twice")))
    assert answer.status == 200
    files = await people.alice.files(answer.json()["conversation"])
    assert files["total_attachments"] == 3
    assert len({a["sha256"] for a in files["attachments"]}) == 1
    for attachment in files["attachments"]:
        path = attachment["url"].removeprefix("http://127.0.0.1:8000")
        assert (await people.alice.get(path)).body == b"twice"


async def test_a_part_that_no_item_names_is_dropped(house: House, people: People) -> None:
    """It is stored nowhere."""
    objects = house.objects()
    form = as_form(batch(ITEMS[0]), ("f", b"nobody asked"))
    assert (await people.alice.writer.form(URL, form)).status == 200
    assert house.objects() == objects


async def test_parts_and_base64_in_one_item(people: People) -> None:
    """An item's files may come both ways, and keep their order."""
    item = with_parts("f")
    item["attachments"].insert(0, base64_file(b"inline", "in.txt"))
    answer = await people.alice.writer.form(URL, as_form(batch(item), ("f", b"part")))
    names = [a["filename"] for a in answer.json()["items"][0]["attachments"]]
    assert names == ["in.txt", "f.txt"]


async def test_a_form_without_a_batch(house: House, people: People) -> None:
    """It is a 400, and its files are removed."""
    objects = house.objects()
    answer = await people.alice.writer.form(URL, [("f", "f.bin", "text/plain", b"x")])
    assert answer.is_error(400, "required")
    assert house.objects() == objects


async def test_gzip(people: People) -> None:
    """A compressed batch is read as any other."""
    answer = await people.alice.writer.send(
        "POST",
        URL,
        body=gzip.compress(json.dumps(batch(*ITEMS)).encode()),
        headers={"content-type": "application/json", "content-encoding": "gzip"},
    )
    assert (answer.status, len(answer.json()["items"])) == (200, 5)


async def test_a_reader_may_not(house: House, people: People) -> None:
    """A read key is told so, and nothing is stored."""
    before = await house.counts()
    answer = await people.alice.reader.post(URL, batch(*ITEMS))
    assert answer.is_error(403, "permission_denied")
    assert await house.counts() == before


async def test_base64_is_strict_but_empty_is_a_file(people: People) -> None:
    """`""` is an empty file."""
    empty = {"type": "attachments", "attachments": [{"filename": "e.txt", "data": ""}]}
    answer = await people.alice.post(URL, batch(empty))
    [file] = answer.json()["items"][0]["attachments"]
    assert (file["size_bytes"], file["filename"]) == (0, "e.txt")
