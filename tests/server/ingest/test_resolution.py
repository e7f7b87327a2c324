"""Which conversation an item means: the rule of docs/published-clients.md, in all variants."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http import House, People, base64_file, without_request_id

pytestmark = pytest.mark.anyio

UNKNOWN = [{}, {"conversation": None}, {"conversation": ""}, {"conversation": "None"}]
ITEMS: dict[str, dict[str, Any]] = {
    "/api/track/": {"content": "hi"},
    "/api/action_logs/": {"action_name": "search"},
    "/api/buttons/": {"button_event": "e", "label": "l", "value": "v"},
    "/api/attachments/": {"attachments": [base64_file()], "mode": "base64"},
}
routes = pytest.mark.parametrize("path", ITEMS)


@routes
@pytest.mark.parametrize("spell", [int, str, lambda pk: f" {pk} "], ids=["int", "str", "spaced"])
async def test_a_number_is_a_row_id(people: People, path: str, spell: Any) -> None:
    """42 and "42" in `conversation` are the row id, whatever `conversation_id` says."""
    pk = await people.alice.conversation("c")
    body = ITEMS[path] | {"conversation": spell(pk), "conversation_id": "another"}
    answer = await people.alice.post(path, body)
    assert (answer.status, answer.json()["conversation"]) == (201, pk)


@routes
@pytest.mark.parametrize("unknown", UNKNOWN, ids=str)
async def test_else_the_callers_id_counts(people: People, path: str, unknown: dict) -> None:
    """Without a row id, `conversation_id` names it, and it is made where it is not there."""
    body = ITEMS[path] | unknown | {"conversation_id": "named"}
    answer = await people.alice.post(path, body)
    assert (answer.status, answer.json()["conversation_id"]) == (201, "named")
    again = await people.alice.post(path, body)
    assert again.json()["conversation"] == answer.json()["conversation"]


async def test_a_conversation_made_on_the_way_is_used_and_in_production(people: People) -> None:
    """Nobody said an environment: production."""
    await people.alice.post("/api/track/", {"conversation_id": "n", "content": "hi"})
    listed = (await people.alice.get("/api/conversations/")).json()["results"]
    assert [(c["is_used"], c["environment"]) for c in listed] == [(True, "production")]


@routes
async def test_digits_in_conversation_id_are_a_callers_id(people: People, path: str) -> None:
    """The field's name decides, never the value: "7" there is no row id."""
    pk = await people.alice.conversation("c")
    answer = await people.alice.post(path, ITEMS[path] | {"conversation_id": str(pk)})
    assert answer.json()["conversation"] != pk
    assert answer.json()["conversation_id"] == str(pk)


@pytest.mark.parametrize("conversation", UNKNOWN, ids=str)
@pytest.mark.parametrize("named", [{}, {"conversation_id": "None"}, {"conversation_id": ""}])
async def test_else_the_message_tells(people: People, conversation: dict, named: dict) -> None:
    """A linked upload of an agent's message says "None" twice; only `message` identifies it."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk)
    body = ITEMS["/api/attachments/"] | conversation | named | {"message": message}
    answer = await people.alice.post("/api/attachments/", body)
    assert (answer.status, answer.json()["conversation"]) == (201, pk)
    assert answer.json()["message"] == message


@routes
@pytest.mark.parametrize("unknown", UNKNOWN, ids=str)
async def test_else_it_is_refused(people: People, path: str, unknown: dict) -> None:
    """Nothing says which: 400 at the field `conversation`."""
    answer = await people.alice.post(path, ITEMS[path] | unknown | {"conversation_id": "None"})
    assert answer.is_error(400, "required"), answer.body
    assert answer.json()["conversation"] == ["This field is required."]


async def test_a_form_of_each_kind(people: People) -> None:
    """Multipart (c) with and without its conversation, (d) with "None" and its message last."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk)
    file = ("attachment_0", "a.txt", "text/plain", b"x")
    form = people.alice.writer.form
    known = await form(
        "/api/attachments/", [("conversation", str(pk)), ("mode", "form_data"), file]
    )
    assert (known.status, known.json()["conversation"]) == (201, pk)
    unknown = await form("/api/attachments/", [("mode", "form_data"), file])
    assert unknown.is_error(400, "required")
    linked = await form(
        "/api/attachments/", [("conversation", "None"), file, ("message", str(message))]
    )
    assert (linked.status, linked.json()["message"]) == (201, message)


async def test_a_message_of_another_conversation(house: House, people: People) -> None:
    """Whoever names both must name two that belong together: 404, and no file stays behind."""
    one, two = await people.alice.conversation("1"), await people.alice.conversation("2")
    message = await people.alice.message(two)
    before, objects = await house.counts(), house.objects()
    for named in ({"conversation": one}, {"conversation_id": "1"}, {"conversation_id": "unknown"}):
        body = ITEMS["/api/attachments/"] | named | {"message": message}
        assert (await people.alice.post("/api/attachments/", body)).is_error(404, "not_found")
    assert (await house.counts(), house.objects()) == (before, objects)


@routes
async def test_other_tenants_rows_are_not_there(people: People, path: str) -> None:
    """Another agent's conversation or message is the same 404 as one that does not exist."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk)
    nowhere = await people.carol.post(path, ITEMS[path] | {"conversation": 2**50})
    assert nowhere.is_error(404, "not_found")
    for person in (people.bob, people.carol):
        answer = await person.post(path, ITEMS[path] | {"conversation": pk})
        assert without_request_id(answer) == without_request_id(nowhere)
        if path == "/api/attachments/":
            linked = await person.post(path, ITEMS[path] | {"message": message})
            assert without_request_id(linked) == without_request_id(nowhere)


@routes
@pytest.mark.parametrize("value", [True, 1.5, "abc", 2**70, -1, "-1", "True", "1e3", "²"], ids=repr)
async def test_what_can_be_no_row_id_names_nothing(
    house: House, people: People, path: str, value: Any
) -> None:
    """It is a 404, as for a row that is not there, and nothing is stored."""
    before = await house.counts()
    answer = await people.alice.post(path, ITEMS[path] | {"conversation": value})
    assert answer.is_error(404, "not_found"), answer.body
    assert await house.counts() == before


async def test_uploads_to_a_deleted_conversation_are_kept(people: People) -> None:
    """They are stored and do not bring it back."""
    pk = await people.alice.conversation()
    await people.alice.writer.send("DELETE", f"/api/conversations/{pk}/delete/")
    answer = await people.alice.post(
        "/api/attachments/", ITEMS["/api/attachments/"] | {"conversation": pk}
    )
    assert answer.status == 201
    assert (await people.alice.files(pk))["total_attachments"] == 1
    assert (await people.alice.get("/api/conversations/")).json()["count"] == 0
