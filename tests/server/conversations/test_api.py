"""Conversations as their callers see them: opening, filling, managing, listing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import House, People, Person, base64_file, open_house

pytestmark = pytest.mark.anyio

LIST = "/api/conversations/"
ENVELOPE = {
    "count", "page_size", "total_pages", "current_page", "next", "previous", "results",
}  # fmt: skip
ROW_KEYS = {
    "id", "conversation_id", "name", "customer_id", "customer_ip_address", "device", "language",
    "environment", "is_marked", "is_deleted", "is_used", "started_at", "ended_at", "deleted_at",
    "metadata", "geo_location", "messages", "feedbacks",
}  # fmt: skip
MESSAGE_KEYS = {
    "id", "timestamp", "sender", "content", "action_name", "metadata", "attachments",
    "action_logs", "button",
}  # fmt: skip


async def read(person: Person, pk: int) -> dict[str, Any]:
    """Read a conversation."""
    answer = await person.get(f"{LIST}{pk}/")
    assert answer.status == 200
    return answer.json()


# --- Opening and filling --------------------------------------------------------------------------


async def test_opening_fills_only_what_is_empty(people: People) -> None:
    """Existing data is never overridden; empty fields are filled, one by one."""
    pk = await people.alice.conversation("c", name="first", device=None, environment="staging")
    again = await people.alice.conversation(
        "c",
        name="second",
        device="phone",
        metadata={"a": 1},
        customer_id="cu",
        source="web",
        language="de",
        customer_ip_address="8.8.8.8",
        environment="production",
    )
    row = await read(people.alice, pk)
    assert again == pk
    assert (row["name"], row["device"], row["metadata"]) == ("first", "phone", {"a": 1})
    assert (row["customer_id"], row["source"], row["language"]) == ("cu", "web", "de")
    assert (row["environment"], row["geo_location"]["country"]) == ("staging", "US")


async def test_filled_fields_are_found(people: People) -> None:
    """What was filled later is searched like what was there from the start."""
    await people.alice.conversation("c")
    await people.alice.conversation("c", name="Straße", customer_id="CU")
    for query in ({"name": "STRASSE"}, {"customer_id__icontains": "cu"}):
        assert (await people.alice.get(LIST, query)).json()["count"] == 1


async def test_is_used_only_rises(people: People) -> None:
    """Once used, a conversation stays used."""
    pk = await people.alice.conversation("c", is_used=False)
    assert (await read(people.alice, pk))["is_used"] is False
    await people.alice.conversation("c", is_used=True)
    await people.alice.conversation("c", is_used=False)
    assert (await read(people.alice, pk))["is_used"] is True


async def test_a_resend_does_not_move_updated_at(house: House, people: People) -> None:
    """A fill that changes nothing writes nothing."""
    pk = await people.alice.conversation("c", name="n")
    look = "SELECT updated_at FROM conversations WHERE id = $1"
    [before] = await house.rows(look, pk)
    house.clock.move(60)
    await people.alice.conversation("c", name="other")
    assert await house.rows(look, pk) == [before]


async def test_two_requests_at_once_make_one_row(house: House, people: People) -> None:
    """Twenty openings side by side: one is 201, all name the same row, the counter says one."""
    body = {"conversation_id": "race", "environment": "raced"}
    answers = await asyncio.gather(*(people.alice.post(LIST, body) for _ in range(20)))
    assert sorted(a.status for a in answers) == [200] * 19 + [201]
    assert len({a.json()["id"] for a in answers}) == 1
    assert (await people.alice.get(LIST)).json()["count"] == 1


async def test_two_messages_at_once_make_one_conversation(people: People) -> None:
    """Messages to a conversation that is not there yet make it once, and all are kept."""
    answers = await asyncio.gather(
        *(
            people.alice.post("/api/track/", {"conversation_id": "race", "content": str(n)})
            for n in range(12)
        )
    )
    assert {a.status for a in answers} == {201}
    [pk] = {a.json()["conversation"] for a in answers}
    row = await read(people.alice, pk)
    assert (len(row["messages"]), row["message_count"]) == (12, 12)


async def test_tenants_do_not_share_names(people: People) -> None:
    """The same conversation_id is another conversation for each agent."""
    pks = [await p.conversation("same") for p in (people.alice, people.bob, people.carol)]
    assert len(set(pks)) == 3


async def test_an_invalid_ip_is_kept_as_text(people: People) -> None:
    """It has no location (issue, step D)."""
    for n, address in enumerate(["300.1.2.3", "nonsense", "10.0.0.1", "1.2.3.4, 5.6.7.8"]):
        row = await read(
            people.alice, await people.alice.conversation(str(n), customer_ip_address=address)
        )
        assert (row["customer_ip_address"], row["geo_location"]) == (address, None)


# --- Environments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, "production"),
        ("", "production"),
        ("  ", "production"),
        ("PROD", "production"),
        (" Dev ", "development"),
        ("development", "development"),
        ("QA-2", "qa-2"),
        ("x" * 255, "x" * 255),
        ("a\u0000b", "a\ufffdb"),
        (7, "7"),
    ],
)
async def test_environments(people: People, sent: Any, kept: str) -> None:
    """Missing is production, prod and dev are understood, anything else is the agent's own."""
    pk = await people.alice.conversation("c", environment=sent)
    assert (await read(people.alice, pk))["environment"] == kept
    assert (await people.alice.get(LIST, {"environment": kept})).json()["count"] == 1


async def test_an_agent_has_at_most_twenty_environments(house: House, people: People) -> None:
    """The 21st is a 400 and stores nothing; the twenty go on working; others have their own."""
    for n in range(18):
        await people.alice.conversation(f"c{n}", environment=f"env-{n}")
    before = await house.counts()
    answer = await people.alice.post(LIST, {"conversation_id": "x", "environment": "one-more"})
    assert answer.is_error(400, "too_many_environments")
    assert list(answer.json()["environment"])
    assert await house.counts() == before
    await people.alice.conversation("y", environment="ENV-3")
    await people.bob.conversation("x", environment="one-more")


async def test_the_limit_holds_side_by_side(people: People) -> None:
    """Thirty new environments at once: eighteen come to be."""
    answers = await asyncio.gather(
        *(
            people.alice.post(LIST, {"conversation_id": str(n), "environment": f"e{n}"})
            for n in range(30)
        )
    )
    assert sorted(a.status for a in answers) == [201] * 18 + [400] * 12


# --- Managing -------------------------------------------------------------------------------------


async def test_rename_mark_update(people: People) -> None:
    """Each answers with what it has set, as published clients were promised."""
    pk = await people.alice.conversation("c")
    writer = people.alice.writer
    ids = {"id": pk, "conversation_id": "c"}
    renamed = await writer.patch(f"{LIST}{pk}/rename/", {"name": "  New  "})
    assert (renamed.status, renamed.json()) == (200, ids | {"name": "New"})
    marked = await writer.post(f"{LIST}{pk}/mark/", {"is_marked": True})
    assert (marked.status, marked.json()) == (200, ids | {"is_marked": True})
    values = {"device": "tv", "language": "fr", "customer_id": "X", "metadata": {"k": [1]}}
    updated = await writer.patch(f"{LIST}{pk}/update/", values)
    assert updated.status == 200
    assert updated.json().items() >= (ids | values).items()
    row = await read(people.alice, pk)
    assert row.items() >= (values | {"name": "New", "is_marked": True}).items()
    found = (await people.alice.get(LIST, {"name": "new", "customer_id__icontains": "x"})).json()
    assert found["count"] == 1


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        ("PATCH", "rename/", {}),
        ("PATCH", "rename/", {"name": "  "}),
        ("PATCH", "rename/", {"name": "x" * 256}),
        ("PATCH", "rename/", {"name": ["x"]}),
        ("POST", "mark/", {}),
        ("POST", "mark/", {"is_marked": "perhaps"}),
        ("POST", "mark/", {"is_marked": None}),
        ("PATCH", "update/", {}),
        ("PATCH", "update/", {"unknown": 1}),
        ("PATCH", "update/", {"metadata": [1]}),
        ("PATCH", "update/", {"device": "x" * 256}),
        ("PATCH", "update/", {"name": None}),
    ],
)
async def test_what_managers_may_not_set(
    people: People, method: str, tail: str, body: dict
) -> None:
    """It is a 400 that names the field, and nothing changes."""
    pk = await people.alice.conversation("c", name="kept", metadata={"kept": 1})
    before = await read(people.alice, pk)
    answer = await people.alice.writer.post(f"{LIST}{pk}/{tail}", body, method=method)
    assert answer.is_error(400, answer.json()["code"])
    assert await read(people.alice, pk) == before


async def test_delete_hides_and_keeps(people: People) -> None:
    """A deleted conversation is out of lists, and still there by row id and look-up."""
    pk = await people.alice.conversation("c")
    await people.alice.post(
        "/api/attachments/", {"conversation": pk, "attachments": [base64_file()]}
    )
    gone = await people.alice.writer.send("DELETE", f"{LIST}{pk}/delete/")
    assert gone.status == 200
    assert gone.json().items() >= {"id": pk, "conversation_id": "c", "is_deleted": True}.items()
    assert gone.json()["deleted_at"].endswith("Z")
    assert (await people.alice.get(LIST)).json()["count"] == 0
    assert (await people.alice.get(LIST, {"conversation_id": "c"})).json()["count"] == 0
    shown = (await people.alice.get(LIST, {"include_deleted": "true"})).json()
    assert [row["is_deleted"] for row in shown["results"]] == [True]
    assert (await read(people.alice, pk))["deleted_at"] == gone.json()["deleted_at"]
    assert (await people.alice.get(f"{LIST}lookup/?conversation_id=c")).json()["id"] == pk
    assert (await people.alice.files(pk))["total_attachments"] == 1
    second = await people.alice.writer.send("DELETE", f"{LIST}{pk}/delete/")
    assert second.is_error(404, "not_found")
    for method, tail, body in [
        ("PATCH", "rename/", {"name": "x"}),
        ("POST", "mark/", {"is_marked": True}),
        ("PATCH", "update/", {"device": "x"}),
    ]:
        # Look-up finds deleted ones so that managing by string works; nothing undeletes.
        changed = await people.alice.writer.post(f"{LIST}{pk}/{tail}", body, method=method)
        assert changed.status == 200
    assert (await read(people.alice, pk))["is_deleted"] is True


async def test_a_delete_with_a_json_header_and_no_body(people: People) -> None:
    """Published clients say application/json and send nothing."""
    pk = await people.alice.conversation()
    answer = await people.alice.writer.send(
        "DELETE",
        f"{LIST}{pk}/delete/",
        headers={"content-type": "application/json", "content-length": "0"},
    )
    assert answer.status == 200


async def test_look_up(people: People) -> None:
    """A string is only ever the caller's own id; readers may look up."""
    pk = await people.alice.conversation("c")
    found = await people.alice.reader.get(f"{LIST}lookup/?conversation_id=c")
    assert found.json().items() >= {"id": pk, "conversation_id": "c"}.items()
    for wanted in (str(pk), "C", "c%00", "c ", "unknown"):
        answer = await people.alice.get(f"{LIST}lookup/?conversation_id={wanted}")
        assert answer.is_error(404, "not_found"), wanted
    for query in ("", "?conversation_id="):
        assert (await people.alice.get(f"{LIST}lookup/{query}")).is_error(400, "required")


# --- Counters and lists ---------------------------------------------------------------------------


async def test_counts_are_exact_after_many_operations(house: House, people: People) -> None:
    """The kept counters equal what counting finds, however requests were mixed."""
    alice = people.alice

    async def live(n: int) -> None:
        pk = await alice.conversation(f"c{n % 20}")
        for _ in range(n % 3):
            await alice.message(pk)
        if n % 5 == 0:
            await alice.writer.send("DELETE", f"{LIST}{pk}/delete/")
        if n % 4 == 0:
            body = {"conversation": pk, "sentiment": "neutral"}
            await alice.post("/api/conversation-feedbacks/", body)

    await asyncio.gather(*(live(n) for n in range(60)))
    agent = alice.access.agent_id
    [kept] = await house.rows(
        "SELECT sum(n_live)::bigint, sum(n_deleted)::bigint FROM conversation_counts"
        " WHERE agent_id = $1",
        agent,
    )
    n_deleted = await house.count("conversations", "agent_id=$1 AND deleted_at > 0", agent)
    assert tuple(kept) == (20 - n_deleted, n_deleted)
    wrong = await house.rows(
        "SELECT c.id FROM conversations c WHERE c.agent_id = $1 AND (c.n_messages <>"
        " (SELECT count(*) FROM messages m WHERE m.agent_id = $1 AND m.conversation_id = c.id)"
        " OR c.n_feedbacks <> (SELECT count(*) FROM feedbacks f WHERE f.agent_id = $1"
        " AND f.conversation_id = c.id))",
        agent,
    )
    assert wrong == []
    listed = (await alice.get(LIST, {"include_deleted": "true"})).json()
    assert listed["count"] == 20
    assert (await alice.get(LIST)).json()["count"] == 20 - n_deleted


async def test_the_envelope(people: People) -> None:
    """Seven keys; `next` and `previous` keep the query and end with null."""
    for n in range(5):
        await people.alice.conversation(f"c{n}", customer_id="x y", timestamp=f"2026-09-0{n + 1}")
    first = (await people.alice.get(LIST, {"page_size": 2, "customer_id": "x y"})).json()
    assert set(first) == ENVELOPE
    assert (first["count"], first["total_pages"], first["previous"]) == (5, 3, None)
    assert first["next"].startswith("http://127.0.0.1:8000/api/conversations/?")
    names = [row["conversation_id"] for row in first["results"]]
    page = first
    while page["next"]:
        answer = await people.alice.get(page["next"])
        page = answer.json()
        names += [row["conversation_id"] for row in page["results"]]
    assert names == ["c4", "c3", "c2", "c1", "c0"]
    assert (page["current_page"], page["page_size"]) == (3, 2)
    assert "page=2" in page["previous"]


async def test_pages(people: People) -> None:
    """Ten rows by default, a hundred at most; beyond the end is a 404; nothing has one page."""
    empty = (await people.alice.get(LIST)).json()
    assert (empty["count"], empty["page_size"], empty["total_pages"]) == (0, 10, 1)
    await people.alice.conversation()
    clamped = (await people.alice.get(LIST, {"page_size": 1_000_000})).json()
    assert (clamped["page_size"], len(clamped["results"])) == (100, 1)
    for page in ("0", "-1", "abc", "1.5", "2", str(10**30), "٣"):
        answer = await people.alice.get(LIST, {"page": page})
        assert answer.is_error(404, "invalid_page"), page


async def test_lists_are_full_unless_lean_is_asked(people: People) -> None:
    """gen A gets transcripts without asking; `full=false` gives rows."""
    pk = await people.alice.conversation()
    await people.alice.message(pk, "hello")
    [full] = (await people.alice.get(LIST)).json()["results"]
    assert set(full) >= ROW_KEYS
    assert [set(m) >= MESSAGE_KEYS for m in full["messages"]] == [True]
    assert full["messages"] == (await read(people.alice, pk))["messages"]
    [lean] = (await people.alice.get(LIST, {"full": "false"})).json()["results"]
    assert "messages" not in lean
    assert lean["message_count"] == 1
    assert (await people.alice.get(LIST, {"full": "perhaps"})).is_error(400, "invalid")


async def test_unknown_parameters_are_ignored_and_named(people: People) -> None:
    """They are told in a header that no value can break."""
    answer = await people.alice.get(LIST, {"nonsense": 1, "a\r\nb: c": 2, "page": 1})
    assert answer.status == 200
    named = answer.headers["x-agentsight-ignored-parameters"]
    assert named == "a%0D%0Ab%3A%20c, nonsense"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("has_messages", "perhaps"),
        ("started_at_after", "yesterday"),
        ("feedback_sentiment", "angry"),
        ("feedback_source", "nobody"),
        ("metadata", "no colon"),
        ("metadata", ":x"),
        ("metadata", "a..b:x"),
        ("ordering", "password"),
        ("ordering", "id; DROP TABLE conversations"),
        ("name", "x" * 1001),
        ("metadata", "a:" + "x" * 4000),
        ("metadata", ",".join(f"k{n}:v" for n in range(11))),
        ("started_at_after", "0001-01-01T00:00:00+14:00"),
    ],
)
async def test_filters_that_cannot_be_read(people: People, name: str, value: str) -> None:
    """Each is a 400 at its own name."""
    answer = await people.alice.get(LIST, {name: value})
    assert answer.is_error(400, "invalid"), answer.body
    assert list(answer.json()[name])


async def test_naive_times_are_utc(people: People) -> None:
    """A time without an offset is UTC, a plus that became a space is a plus."""
    await people.alice.conversation("c", timestamp="2026-09-01T12:00:00Z")
    for after, count in (
        ("2026-09-01T12:00:00", 1),
        ("2026-09-01T12:00:00.000001", 0),
        ("2026-09-01T14:00:00 02:00", 1),
        ("2026-09-01", 1),
        ("2026-09-01T12:00:00+00:00", 1),
    ):
        answer = await people.alice.get(LIST, {"started_at_after": after})
        assert answer.json()["count"] == count, after


@pytest.fixture
async def small_house(database_url: str, tmp_path: Path) -> Any:
    """Run an application whose lists hold 100 messages."""
    async with open_house(database_url, tmp_path, max_messages_per_list=100) as house:
        yield house


async def test_lists_are_cut_where_messages_do_not_fit(small_house: House) -> None:
    """Rows from the top are whole while they fit; others say so, and the envelope does."""
    alice = (await small_house.people()).alice
    for name, n_messages, day in (("a", 60, 4), ("b", 50, 3), ("c", 40, 2), ("d", 0, 1)):
        items = [{"type": "message", "content": str(n)} for n in range(n_messages)]
        conversation = {"conversation_id": name, "timestamp": f"2026-08-0{day}"}
        await alice.post("/api/v1/batch/", {"conversation": conversation, "items": items})
    page = (await alice.get(LIST)).json()
    assert page["truncated"] is True
    shown = {row["conversation_id"]: row for row in page["results"]}
    assert [len(shown[name]["messages"]) for name in "abcd"] == [60, 0, 40, 0]
    assert [shown[name].get("messages_omitted") for name in "abcd"] == [None, True, None, None]
    assert shown["b"]["message_count"] == 50
    whole = (await alice.get(LIST, {"conversation_id": "b"})).json()
    assert len(whole["results"][0]["messages"]) == 50
    assert "truncated" not in whole
    assert "truncated" not in (await alice.get(LIST, {"full": "false"})).json()


async def test_an_exact_list_is_never_cut(small_house: House) -> None:
    """gen A reads one conversation by its name through the list: all of it, always."""
    alice = (await small_house.people()).alice
    items = [{"type": "message", "content": str(n)} for n in range(150)]
    batch = {"conversation": {"conversation_id": "long"}, "items": items}
    pk = (await alice.post("/api/v1/batch/", batch)).json()["conversation"]
    [row] = (await alice.get(LIST, {"conversation_id": "long"})).json()["results"]
    assert len(row["messages"]) == 150
    assert len((await read(alice, pk))["messages"]) == 150
    [cut] = (await alice.get(LIST)).json()["results"]
    assert (cut["messages"], cut["messages_omitted"]) == ([], True)


async def test_no_filter_is_too_long_for_a_database(people: People) -> None:
    """A path of more keys than SQLite joins tables, and more columns than it orders by."""
    await people.alice.conversation()
    path = ".".join("a" * 50)
    assert (await people.alice.get(LIST, {"metadata": f"{path}:x"})).status == 200
    assert (await people.alice.get(LIST, {"metadata": f"a.{path}:x"})).is_error(400, "invalid")
    answer = await people.alice.get(LIST, {"ordering": ",".join(["id", "-id"] * 2000)})
    assert answer.json()["count"] == 1
