"""Each thing is stored once: keys of ours for ever, published clients' bodies for 15 minutes."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.http import House, People, base64_file

pytestmark = pytest.mark.anyio

TIME = "2026-09-21T14:00:00.123456+00:00"
AFTER_WINDOW_S = 15 * 60 + 1


async def test_a_resend_within_the_window_answers_with_the_first_row(people: People) -> None:
    """A published client's equal body with a timestamp is the same message: 201, then 200."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "content": "hi", "timestamp": TIME, "sender": "agent"}
    first = await people.alice.post("/api/track/", body)
    again = await people.alice.post("/api/track/", body)
    assert (first.status, again.status) == (201, 200)
    assert first.json() == again.json()
    assert len(await people.alice.transcript(pk)) == 1


async def test_key_order_and_spelling_do_not_make_another_message(people: People) -> None:
    """The canonical body counts, not its bytes."""
    pk = await people.alice.conversation()
    await people.alice.post("/api/track/", {"conversation": pk, "content": "x", "timestamp": TIME})
    again = await people.alice.writer.send(
        "POST",
        "/api/track/",
        body=f'{{ "timestamp":"{TIME}","content":"\\u0078", "conversation": {pk}}}'.encode(),
        headers={"content-type": "application/json"},
    )
    assert again.status == 200


async def test_after_the_window_an_equal_body_is_another_message(
    house: House, people: People
) -> None:
    """The window is over after 15 minutes, and then begins anew."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "content": "hi", "timestamp": TIME}
    first = await people.alice.post("/api/track/", body)
    house.clock.move(15 * 60)
    assert (await people.alice.post("/api/track/", body)).status == 200
    house.clock.move(1)
    second = await people.alice.post("/api/track/", body)
    third = await people.alice.post("/api/track/", body)
    assert (second.status, third.status) == (201, 200)
    assert second.json()["id"] == third.json()["id"] != first.json()["id"]


async def test_without_a_timestamp_nothing_is_deduplicated(people: People) -> None:
    """Two equal bodies without a time may be two events."""
    pk = await people.alice.conversation()
    for _ in range(2):
        answer = await people.alice.post("/api/track/", {"conversation": pk, "content": "ok"})
        assert answer.status == 201
    assert len(await people.alice.transcript(pk)) == 2


async def test_equal_messages_with_other_timestamps_stay_two(people: People) -> None:
    """Somebody says "ok" twice."""
    pk = await people.alice.conversation()
    for second in (1, 2):
        time = f"2026-09-21T14:00:0{second}Z"
        await people.alice.message(pk, "ok", timestamp=time)
    assert [m["content"] for m in await people.alice.transcript(pk)] == ["ok", "ok"]


async def test_an_item_key_is_honoured_for_ever(house: House, people: People) -> None:
    """Our SDK's key outlives the window, and another body under it changes nothing."""
    pk = await people.alice.conversation()
    first = await people.alice.message(pk, "one", item_key="k-1", timestamp=TIME)
    house.clock.move(400 * 86400)
    assert await people.alice.message(pk, "two", item_key="k-1") == first
    assert [m["content"] for m in await people.alice.transcript(pk)] == ["one"]


async def test_an_item_key_is_one_agents(people: People) -> None:
    """Two agents may use the same key."""
    ids = []
    for person in (people.alice, people.bob, people.carol):
        pk = await person.conversation()
        ids.append(await person.message(pk, item_key="same"))
    assert len(set(ids)) == 3


async def test_an_external_id_is_unique_in_its_conversation(people: People) -> None:
    """A channel's message id is stored once in a conversation, and again in another."""
    one, two = await people.alice.conversation("1"), await people.alice.conversation("2")
    first = await people.alice.message(one, "a", external_id="wamid.1")
    assert await people.alice.message(one, "a again", external_id="wamid.1") == first
    assert await people.alice.message(two, "a", external_id="wamid.1") != first
    [message] = await people.alice.transcript(one)
    assert (message["external_id"], message["content"]) == ("wamid.1", "a")


async def test_an_external_id_is_honoured_for_ever(house: House, people: People) -> None:
    """Also after the window of the body's own key, and with another body."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "content": "hi", "timestamp": TIME, "external_id": "wamid.2"}
    first = await people.alice.post("/api/track/", body)
    house.clock.move(AFTER_WINDOW_S)
    for changed in ({}, {"content": "edited", "timestamp": "2026-09-22T00:00:00Z"}):
        again = await people.alice.post("/api/track/", body | changed)
        assert (again.status, again.json()["id"]) == (200, first.json()["id"])


async def test_a_key_of_another_conversation_is_refused_loudly(people: People) -> None:
    """Answering "stored before" would lose the item: nothing of it is in its conversation."""
    one, two = await people.alice.conversation("1"), await people.alice.conversation("2")
    first = await people.alice.message(one, item_key="k")
    answer = await people.alice.post(
        "/api/track/", {"conversation": two, "content": "x", "item_key": "k"}
    )
    assert answer.is_error(400, "invalid")
    assert "item_key" in answer.json()
    other = await people.alice.message(one)
    files = {"item_key": "f", "attachments": [base64_file()]}
    assert (await people.alice.post("/api/attachments/", files | {"message": first})).status == 201
    answer = await people.alice.post("/api/attachments/", files | {"message": other})
    assert answer.is_error(400, "invalid")
    judged = {"sentiment": "positive", "item_key": "j"}
    url = "/api/conversation-feedbacks/"
    assert (await people.alice.post(url, judged | {"conversation": one})).status == 201
    assert (await people.alice.post(url, judged | {"conversation": two})).is_error(400, "invalid")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/action_logs/", {"action_name": "search", "tools_used": {"q": 1}}),
        ("/api/action_logs/", {"action_name": "token_usage", "metadata": {"total_tokens": 3}}),
        ("/api/buttons/", {"button_event": "e", "label": "Yes", "value": "y"}),
        ("/api/attachments/", {"attachments": [base64_file()], "mode": "base64"}),
    ],
    ids=["action", "usage", "button", "files"],
)
async def test_every_route_recognises_a_resend(people: People, path: str, body: dict) -> None:
    """What was stored is answered again, with the same ids."""
    pk = await people.alice.conversation()
    body = body | {"conversation": pk, "timestamp": TIME}
    first = await people.alice.post(path, body)
    again = await people.alice.post(path, body)
    assert (first.status, again.status) == (201, 200), first.body
    assert first.json() == again.json()


async def test_files_for_a_message_are_added_once(house: House, people: People) -> None:
    """A resend within the window adds nothing; after it, the same file is another attachment."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk)
    body = {"message": message, "timestamp": TIME, "attachments": [base64_file(), base64_file()]}
    first = await people.alice.post("/api/attachments/", body)
    again = await people.alice.post("/api/attachments/", body)
    assert (first.status, again.status) == (201, 200)
    assert first.json() == again.json()
    house.clock.move(AFTER_WINDOW_S)
    assert (await people.alice.post("/api/attachments/", body)).status == 201
    assert (await people.alice.files(pk))["total_attachments"] == 4


async def test_a_lasting_key_holds_for_added_files(house: House, people: People) -> None:
    """Files that carry our key are not added a second time, however late the resend."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk)
    body = {"message": message, "item_key": "files-1", "attachments": [base64_file()]}
    first = await people.alice.post("/api/attachments/", body)
    house.clock.move(AFTER_WINDOW_S)
    again = await people.alice.post("/api/attachments/", body)
    assert (first.status, again.status) == (201, 200)
    assert first.json()["attachments"][0]["id"] == again.json()["attachments"][0]["id"]


async def test_multipart_resends_are_recognised(people: People) -> None:
    """A form with the same fields and bytes is the same upload; other bytes are another."""
    pk = await people.alice.conversation()

    def form(data: bytes) -> list:
        return [
            ("timestamp", TIME),
            ("conversation", str(pk)),
            ("sender", "end_user"),
            ("mode", "form_data"),
            ("metadata", "{}"),
            ("attachment_0", "a.txt", "text/plain", data),
        ]

    first = await people.alice.writer.form("/api/attachments/", form(b"1"))
    again = await people.alice.writer.form("/api/attachments/", form(b"1"))
    other = await people.alice.writer.form("/api/attachments/", form(b"2"))
    assert [first.status, again.status, other.status] == [201, 200, 201]
    assert first.json() == again.json()


async def test_feedback_with_an_item_key_is_stored_once(people: People) -> None:
    """A repeated key answers with the first feedback and counts nothing."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "sentiment": "positive", "item_key": "f-1"}
    first = await people.alice.post("/api/conversation-feedbacks/", body)
    again = await people.alice.post("/api/conversation-feedbacks/", body)
    assert first.json() == again.json()
    read = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert (len(read["feedbacks"]), read["feedback_count"]) == (1, 1)


async def test_resends_at_once_store_one_message(people: People) -> None:
    """Ten equal requests side by side make one row, and all hear of it."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "content": "hi", "timestamp": TIME}
    answers = await asyncio.gather(*(people.alice.post("/api/track/", body) for _ in range(10)))
    assert sorted(a.status for a in answers) == [200] * 9 + [201]
    assert len({a.json()["id"] for a in answers}) == 1
    read = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    assert (len(read["messages"]), read["message_count"]) == (1, 1)


async def test_file_resends_at_once_add_one_file(people: People) -> None:
    """Equal uploads side by side add one attachment, and none is refused."""
    pk = await people.alice.conversation()
    message = await people.alice.message(pk)
    body = {"message": message, "timestamp": TIME, "attachments": [base64_file(b"race")]}
    answers = await asyncio.gather(
        *(people.alice.post("/api/attachments/", body) for _ in range(6))
    )
    assert sorted(a.status for a in answers) == [200] * 5 + [201]
    assert (await people.alice.files(pk))["total_attachments"] == 1
