"""Deleting as callers see it: hide, bring back, erase, receipts; and what strangers get."""

from __future__ import annotations

import pytest

from tests.server.removals.worlds import (
    CONVERSATIONS,
    FILES,
    blobs_of,
    file_of,
    fill,
    item,
    left,
    links,
    send,
)
from tests.support.http import House, People, path_of

pytestmark = pytest.mark.anyio


async def test_a_deleted_file_is_gone_at_once_and_comes_back(house: House, people: People) -> None:
    """Its link is dead, the lists leave it out; restored, both are as before."""
    alice = people.alice
    made = await fill(alice, "c", b"one", b"two")
    one, two = links(made)
    url = path_of(one["file_url"])
    assert (await house.stranger.get(url)).status == 200
    hidden = await alice.writer.send("DELETE", f"{FILES}{one['uid']}/")
    assert hidden.status == 200
    shown = hidden.json()
    assert (shown["uid"], shown["is_deleted"]) == (one["uid"], True)
    assert shown["deleted_at"] < shown["erased_after"]
    assert (await house.stranger.get(url)).is_error(404, "link_invalid")
    assert [f["uid"] for f in (await alice.files(made["conversation"]))["attachments"]] == [
        two["uid"]
    ]
    again = await alice.writer.send("DELETE", f"{FILES}{one['uid']}/")
    assert again.is_error(404, "not_found")
    for _ in range(2):
        back = await alice.post(f"{FILES}{one['uid']}/restore/", {})
        assert (back.status, back.json()["is_deleted"]) == (200, False)
    assert (await house.stranger.get(url)).body == b"one"
    assert len((await alice.files(made["conversation"]))["attachments"]) == 2


@pytest.mark.parametrize("named_by", ["conversation", "uid", "by-id"])
async def test_a_deleted_conversation_comes_back(
    house: House, people: People, named_by: str
) -> None:
    """By each of its names; lists and counts follow, links go on working (decision 0018)."""
    alice = people.alice
    made = await fill(alice, "c-1", b"one")
    ref = "by-id/c-1" if named_by == "by-id" else made[named_by]
    hidden = await alice.writer.send("DELETE", f"{CONVERSATIONS}{ref}/")
    assert hidden.status == 200, hidden.body
    assert hidden.json()["conversation_id"] == "c-1"
    assert (await alice.get("/api/conversations/")).json()["count"] == 0
    assert (await house.stranger.get(path_of(links(made)[0]["file_url"]))).status == 200
    again = await alice.writer.send("DELETE", f"{CONVERSATIONS}{ref}/")
    assert again.is_error(404, "not_found")
    for _ in range(2):
        back = await alice.post(f"{CONVERSATIONS}{ref}/restore/", {})
        assert (back.status, back.json()["is_deleted"]) == (200, False)
    assert (await alice.get("/api/conversations/")).json()["count"] == 1


async def test_what_an_erasure_has_marked_opens_by_no_link(house: House, people: People) -> None:
    """A large erasure takes many steps; from the first on, nobody gets files that still wait."""
    alice = people.alice
    made = await fill(alice, "c", b"one")
    (file,) = links(made)
    url, content = path_of(file["file_url"]), path_of(file["url"])
    assert (await house.stranger.get(url)).status == 200
    assert (await alice.get(content)).status == 200
    mark = "UPDATE conversations SET erased_by = $1 WHERE agent_id = $2 AND id = $3"
    await house.run(mark, "a receipt", alice.access.agent_id, made["conversation"])
    assert (await house.stranger.get(url)).is_error(404, "link_invalid")
    assert (await alice.get(content)).is_error(404, "not_found")
    await house.run(mark, None, alice.access.agent_id, made["conversation"])


async def test_an_erased_conversation_leaves_nothing(house: House, people: People) -> None:
    """No row, no object, no way to it; the receipt counts each, and can be read again."""
    alice = people.alice
    made = await fill(alice, "c", b"mine alone", b"mine too", customer_id="jane")
    kept = await fill(alice, "other", b"theirs")
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}{made['conversation']}/?erase=true")
    assert answer.status in (200, 202), answer.body
    uid = answer.json()["uid"]
    receipt = (await alice.get(f"/api/v1/receipts/{uid}/")).json()
    assert (receipt["kind"], receipt["state"], receipt["dry_run"]) == (
        "conversation", "complete", False,
    )  # fmt: skip
    rows = {table: n for table, n in receipt["removed"]["rows"].items() if n}
    n_searched = rows.pop("search_queue", 0) + rows.pop("message_search", 0)
    assert n_searched == 5
    assert rows.pop("blob_texts", 0) in (0, 1, 2)
    assert rows.pop("derivatives", 0) == 0
    assert rows == {
        "conversations": 1, "messages": 6, "actions": 1, "buttons": 1, "usages": 1, "feedbacks": 1,
        "attachments": 2, "blobs": 2,
    }  # fmt: skip
    assert (receipt["removed"]["objects"], receipt["removed"]["bytes"]) == (2, 18)
    assert receipt["kept"] == {"contents": 0, "bytes": 0}
    assert receipt["asked_for"] == made["uid"]
    assert receipt["resends_are_dropped"] is True
    pk = made["conversation"]
    for path in (f"/api/conversations/{pk}/", f"/api/conversations/{pk}/attachments/",
                 f"{CONVERSATIONS}{made['uid']}/attachments/",
                 "/api/conversations/lookup/?conversation_id=c"):  # fmt: skip
        assert (await alice.get(path)).is_error(404, "not_found"), path
    for file in links(made):
        assert (await house.stranger.get(path_of(file["file_url"]))).is_error(404, "link_invalid")
    listed = await alice.get("/api/conversations/", {"include_deleted": "true"})
    assert [row["conversation_id"] for row in listed.json()["results"]] == ["other"]
    assert listed.json()["count"] == 1
    now_left = await left(house, alice)
    assert {t: n for t, n in now_left.items() if t != "search_queue"} == {
        "conversations": 1, "messages": 5, "actions": 1, "buttons": 1, "usages": 1,
        "feedbacks": 1, "attachments": 1,
    }  # fmt: skip
    assert (await house.stranger.get(path_of(links(kept)[0]["file_url"]))).body == b"theirs"
    assert len(blobs_of(house, alice)) == 1
    counts = "SELECT sum(n_blobs), sum(stored_bytes), sum(n_attachments), sum(referenced_bytes)"
    stored = await house.rows(
        f"{counts} FROM storage_counts WHERE agent_id = $1", alice.access.agent_id
    )
    assert [int(n) for n in stored[0]] == [1, 6, 1, 6]


async def test_what_something_else_refers_to_is_kept(house: House, people: People) -> None:
    """The same bytes in another conversation stay, hidden ones too; the receipt counts them."""
    alice = people.alice
    first = await fill(alice, "a", b"shared", b"alone")
    second = await fill(alice, "b", b"shared")
    assert (await alice.writer.send("DELETE", f"{FILES}{links(second)[0]['uid']}/")).status == 200
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}{first['uid']}/?erase=true")
    receipt = answer.json()
    assert receipt["removed"]["rows"]["blobs"] == 1
    assert receipt["kept"] == {"contents": 1, "bytes": 6}
    assert (await alice.post(f"{FILES}{links(second)[0]['uid']}/restore/", {})).status == 200
    assert (await house.stranger.get(path_of(links(second)[0]["file_url"]))).body == b"shared"
    last = await alice.writer.send("DELETE", f"{FILES}{links(second)[0]['uid']}/?erase=true")
    assert last.json()["removed"]["objects"] == 1
    assert blobs_of(house, alice) == set()


async def test_a_file_sent_twice_in_one_conversation_goes_with_it(
    house: House, people: People
) -> None:
    """Its two references do not keep each other's bytes."""
    alice = people.alice
    made = await fill(alice, "a", b"twice", b"twice")
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    assert answer.json()["kept"] == {"contents": 0, "bytes": 0}
    assert answer.json()["removed"]["rows"]["attachments"] == 2
    assert blobs_of(house, alice) == set()


async def test_a_hidden_file_can_be_erased(house: House, people: People) -> None:
    """Out of the grace period too."""
    alice = people.alice
    (file,) = links(await fill(alice, "a", b"bytes"))
    path = f"{FILES}{file['uid']}/"
    await alice.writer.send("DELETE", path)
    assert (await alice.writer.send("DELETE", path + "?erase=true")).status in (200, 202)
    assert (await alice.writer.send("DELETE", path + "?erase=true")).is_error(404, "not_found")
    assert (await alice.post(path + "restore/", {})).is_error(404, "not_found")
    assert blobs_of(house, alice) == set()


async def test_a_long_conversation_goes_in_strides(house: House, people: People) -> None:
    """More than one unit removes is removed all the same, and counted right."""
    alice = people.alice
    made = await send(
        alice,
        "long",
        *(item("message", content=f"m {n}") for n in range(1_300)),
        *(item("attachments", attachments=[file_of(b"%d" % (n % 7))]) for n in range(90)),
    )
    answer = await alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    uid = answer.json()["uid"]
    receipt = (await alice.get(f"/api/v1/receipts/{uid}/")).json()
    rows = receipt["removed"]["rows"]
    assert (rows["messages"], rows["attachments"], rows["blobs"]) == (1_390, 90, 7)
    assert (receipt["state"], receipt["kept"]["contents"]) == ("complete", 0)
    assert await left(house, alice) == {}
    assert blobs_of(house, alice) == set()


async def test_strangers_and_readers(people: People) -> None:
    """Another agent's things are not there; a read key may not; a receipt is its agent's own."""
    alice = people.alice
    made = await fill(alice, "c", b"one")
    uid = links(made)[0]["uid"]
    places = [f"{FILES}{uid}/", f"{CONVERSATIONS}{made['conversation']}/",
              f"{CONVERSATIONS}{made['uid']}/", f"{CONVERSATIONS}by-id/c/"]  # fmt: skip
    for path in places:
        for tail in ("", "?erase=true"):
            denied = await alice.reader.send("DELETE", path + tail)
            assert denied.is_error(403, "permission_denied")
            for other in (people.bob, people.carol):
                answer = await other.writer.send("DELETE", path + tail)
                assert answer.is_error(404, "not_found"), path
        assert (await people.carol.post(path + "restore/", {})).is_error(404, "not_found")
        assert (await alice.reader.post(path + "restore/", {})).is_error(403, "permission_denied")
        wrong = await alice.writer.send("DELETE", path + "?erase=perhaps")
        assert wrong.is_error(400, "invalid")
    assert len(await alice.transcript(made["conversation"])) == 4
    answer = await alice.writer.send("DELETE", places[0] + "?erase=1")
    receipt = f"/api/v1/receipts/{answer.json()['uid']}/"
    assert (await alice.reader.get(receipt)).status == 200
    for other in (people.bob, people.carol):
        assert (await other.get(receipt)).is_error(404, "not_found")


async def test_deletions_are_in_the_audit_log(house: House, people: People) -> None:
    """Who hid, brought back and erased what, by uid."""
    alice = people.alice
    made = await fill(alice, "c", b"one")
    file = f"{FILES}{links(made)[0]['uid']}/"
    conversation = f"{CONVERSATIONS}{made['uid']}/"
    for path in (file, conversation):
        await alice.writer.send("DELETE", path)
        await alice.post(path + "restore/", {})
        await alice.writer.send("DELETE", path + "?erase=true")
    rows = await house.rows(
        "SELECT action, subject_kind, principal FROM audit_log WHERE agent_id = $1 ORDER BY id",
        alice.access.agent_id,
    )
    deletions = ("delete", "restore", "erase")
    assert [row for row in rows if row[0] in deletions] == [
        (action, kind, "key") for kind in ("attachment", "conversation") for action in deletions
    ]


async def test_each_row_leaves_a_tombstone(house: House, people: People) -> None:
    """Whoever reads changes in order hears that they are no more."""
    alice = people.alice
    made = await fill(alice, "c", b"one")
    await alice.writer.send("DELETE", f"{CONVERSATIONS}{made['uid']}/?erase=true")
    rows = await house.rows(
        "SELECT kind, count(*), count(DISTINCT row_id) FROM tombstones WHERE agent_id = $1"
        " GROUP BY kind ORDER BY kind",
        alice.access.agent_id,
    )
    assert rows == [("attachment", 1, 1), ("conversation", 1, 1), ("feedback", 1, 1),
                    ("message", 5, 5)]  # fmt: skip
