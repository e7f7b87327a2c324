"""The list of files across conversations: filters, pages, one row, and who sees what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings

from agentsight.server.access import Access
from agentsight.server.attachments import service_lists, store_lists, store_names
from agentsight.server.attachments.filters import DESCRIPTIONS, parse_filters
from agentsight.server.problems import Problem
from agentsight.server.web.paging import make_open_envelope, parse_page
from tests.server.attachments import oracle
from tests.server.attachments.worlds import Case, cases, makers_of, with_ids
from tests.server.conversations.test_filters import LEAVES, QUIET, plain
from tests.server.conversations.worlds import START, TEXTS, a_file
from tests.server.library import Library, index_all, store
from tests.support.http import House, People, base64_file, path_of
from tests.support.soak import only_in_soak

pytestmark = pytest.mark.anyio
FILES = "/api/v1/attachments/"
N_LONG = 400


async def walk(
    library: Library, access: Access, query: dict[str, str], size: int
) -> AsyncIterator[tuple[Any, list[int]]]:
    """Yield the envelope and the ids of each page, as far as `next` leads."""
    filters, number = parse_filters(query), 1
    while True:
        page = parse_page(str(number), str(size))
        found = await service_lists.list_files(
            library.parts, access, filters, limit=page.size, offset=page.offset
        )
        envelope = make_open_envelope(
            page=page,
            n_rows=len(found.rows),
            has_more=found.has_more,
            count=found.count,
            url="",
            query="",
        )
        yield envelope, [row.file.attachment_id for row in found.rows]
        if envelope.next is None:
            return
        number += 1


async def compare(
    library: Library, access: Access, world: list[dict[str, Any]], query: dict[str, str], size: int
) -> int:
    """Ask for all pages and compare with the oracle; returns how many files were found."""
    expected = oracle.answer(world, query)
    ids: list[int] = []
    async for envelope, page_ids in walk(library, access, query, size):
        ids += page_ids
        if envelope.count_is_exact:
            assert envelope.count == len(expected), query
        else:
            assert len(ids) <= envelope.count <= len(expected), query
    assert ids == expected, query
    assert envelope.count_is_exact, "the last page knows how many there are"
    return len(ids)


async def check(library: Library, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store a world, the names of a part of it indexed, and compare answers with the oracle's."""
    monkeypatch.setattr(store_lists, "MAX_KNOWN", case.max_known)
    monkeypatch.setattr(store_lists, "_STEP", 2)
    access = await library.new_agent()
    for n, conversation in enumerate([*case.world, None]):
        if n == case.n_indexed:
            await index_all(library.parts)
        if conversation is not None:
            await store(library.parts, access, conversation)
    for query, page_size in case.queries:
        await compare(library, access, case.world, with_ids(query, case.world), page_size)


def test_every_filter_is_asked_of_the_oracle() -> None:
    """One that is added later cannot be forgotten."""
    others = {"ordering", "page", "page_size"}
    assert set(makers_of([])) | others == set(DESCRIPTIONS)


@pytest.mark.slow
@settings(QUIET, max_examples=40, derandomize=True)
@given(case=cases())
async def test_filters_answer_as_the_oracle(
    library: Library, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids in order, counts and pages are the oracle's, however many hold a text."""
    await check(library, case, monkeypatch)


@only_in_soak
@settings(QUIET, max_examples=N_LONG)
@given(case=cases(n_queries=14))
async def test_filters_answer_as_the_oracle_at_length(
    library: Library, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, with many more worlds."""
    await check(library, case, monkeypatch)


def message(*files: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Make a message that brings files."""
    plain_fields = {"type": "message", "content": "x", "sender": "end_user", "timestamp": START}
    whole = [a_file(**{"mime_type": "application/pdf", "bytes": repr(f)} | f) for f in files]
    return plain_fields | {"files": whole} | fields


@pytest.mark.slow
@pytest.mark.parametrize("max_known", [0, 1000], ids=["walked", "known"])
async def test_every_text_against_every_needle(
    library: Library, max_known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each nasty text is found by its own pieces in any case, and by no other's; indexed or not."""
    monkeypatch.setattr(store_lists, "MAX_KNOWN", max_known)
    access = await library.new_agent()
    files = [{"filename": text} for text in TEXTS] + [{"text": f"_{text}."} for text in TEXTS]
    world = [plain("c", messages=[message(*files)])]
    await store(library.parts, access, world[0])
    if max_known:
        await index_all(library.parts)
    needles = {
        piece
        for text in TEXTS
        for whole in (text, text.upper())
        for piece in (whole, whole[:2], whole[1:4])
        if piece.strip()
    }
    n_found = 0
    for needle in sorted(needles):
        for name in ("text_contains", "contains", "filename_contains"):
            n_found += await compare(library, access, world, {name: needle}, 100)
    assert n_found > len(needles)


async def test_names_are_indexed_in_strides(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stride a step until none is left; what is there is found before, between and after."""
    monkeypatch.setattr(store_names, "_STRIDE", 2)
    await index_all(library.parts)
    access = await library.new_agent()
    world = [plain("c", messages=[message(*({"filename": f"Straße {n}.pdf"} for n in range(5)))])]
    await store(library.parts, access, world[0])
    done = []
    while not done or done[-1]:
        assert await compare(library, access, world, {"filename_contains": "STRASSE"}, 2) == 5
        done.append(await store_names.index_step(library.parts.db, 1))
    assert done == ([2, 2, 1, 0] if library.parts.db.dialect == "sqlite" else [0])


async def test_every_conversation_and_every_sender(library: Library) -> None:
    """Of three conversations whose three senders all bring files, by row id; none is a fourth's."""
    access = await library.new_agent()
    senders = ("end_user", "agent", "system")
    world = [
        plain(
            f"c{n}",
            messages=[message({"bytes": f"{n}{sender}"}, sender=sender) for sender in senders],
        )
        for n in range(3)
    ]
    for conversation in world:
        await store(library.parts, access, conversation)
    for n in range(4):
        asked = with_ids({"conversation": str(n)}, world)
        assert await compare(library, access, world, asked, 2) == (3 if n < 3 else 0)
        for sender in senders:
            both = asked | {"sender": sender}
            assert await compare(library, access, world, both, 2) == (1 if n < 3 else 0)
    assert await compare(library, access, world, {"sender": "system"}, 2) == 3


async def test_every_leaf_of_a_files_own_metadata(library: Library) -> None:
    """Metadata of files is asked as that of conversations is."""
    access = await library.new_agent()
    files = [{"metadata": {"k": leaf}, "bytes": str(n)} for n, leaf in enumerate(LEAVES)]
    world = [plain("c", messages=[message(*files)])]
    await store(library.parts, access, world[0])
    for text in ("1", "1.0", "true", "null", "Straße", "x", "0.1", "a,b", "9007199254740993"):
        assert await compare(library, access, world, {"metadata": f"k:{text}"}, 100)


async def test_a_short_text_is_sought_in_so_many_files_and_says_so(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index helps below three characters: the newest files are looked at, and the list tells."""
    monkeypatch.setattr(store_lists, "_MAX_ROWS", 2)
    monkeypatch.setattr(store_lists, "MAX_WALKED_UNINDEXED", 4)
    monkeypatch.setattr(store_lists, "_STEP", 2)
    access = await library.new_agent()
    files = [{"text": "qx"}, *({"text": f"other {n}"} for n in range(6))]
    world = [plain("c", messages=[message(*files)])]
    await store(library.parts, access, world[0])
    filters = parse_filters({"text_contains": "qx"})
    found = await service_lists.list_files(library.parts, access, filters, limit=10, offset=0)
    assert (found.rows, found.is_cut) == ([], True)
    filters = parse_filters({"text_contains": "th"})
    found = await service_lists.list_files(library.parts, access, filters, limit=2, offset=0)
    assert (len(found.rows), found.has_more, found.is_cut) == (2, True, False)


# --- The door -------------------------------------------------------------------------------------


async def send(person: Any, pk: int, *names: str, **fields: Any) -> list[dict[str, Any]]:
    """Send files of different bytes with one message, and return their rows."""
    files = [base64_file(f"bytes of {name}".encode(), name) for name in names]
    body = {"conversation": pk, "attachments": files} | fields
    answer = await person.post("/api/attachments/", body)
    assert answer.status == 201, answer.body
    return answer.json()["attachments"]


async def test_a_row_says_where_it_came_from(people: People) -> None:
    """A row is the one call's, with conversation, sender, time and metadata beside it."""
    alice = people.alice
    pk = await alice.conversation("c-1", customer_id="x")
    await send(alice, pk, "a.txt")
    listed = (await alice.get(FILES)).json()
    (row,) = listed["results"]
    group = (await alice.files(pk))["messages"][0]
    assert {name: row[name] for name in group["attachments"][0]} == group["attachments"][0]
    assert (row["conversation"], row["conversation_id"]) == (pk, "c-1")
    assert (row["sender"], row["timestamp"]) == (group["sender"], group["timestamp"])
    assert (row["metadata"], row["is_deleted"]) == ({}, False)
    assert list(row)[:6] == ["id", "type", "filename", "mime_type", "size_bytes", "file_url"]
    assert (listed["count"], listed["count_is_exact"], listed["total_pages"]) == (1, True, 1)
    assert (await alice.get(path_of(row["file_url"]))).body == b"bytes of a.txt"
    assert (await alice.get(f"{FILES}{row['uid']}/")).json() == row


async def test_pages_follow_each_other(people: People) -> None:
    """`next` leads through all files, newest first, and keeps the filters."""
    alice = people.alice
    pk = await alice.conversation("c")
    names = [f"{n}.txt" for n in range(5)]
    for name in [*names, "other.pdf"]:
        await send(alice, pk, name)
    url, seen = f"{FILES}?type=text&page_size=2&ordering=filename", []
    while url is not None:
        page = (await alice.get(path_of(url))).json()
        seen += [row["filename"] for row in page["results"]]
        assert page["count"] == 5
        url = page["next"]
    assert seen == names
    assert (await alice.get(f"{FILES}?page=9")).is_error(404, "invalid_page")
    page = (await alice.get(f"{FILES}?page_size=2&count=false")).json()
    assert (page["count"], page["count_is_exact"], page["total_pages"]) == (3, False, None)
    assert page["next"] is not None


async def test_deleted_conversations_hide_their_files(people: People) -> None:
    """They are listed again with include_deleted; a row alone is still read."""
    alice = people.alice
    pk = await alice.conversation("c")
    (row,) = await send(alice, pk, "a.txt")
    await alice.writer.send("DELETE", f"/api/conversations/{pk}/delete/")
    assert (await alice.get(FILES)).json()["count"] == 0
    assert (await alice.get(f"{FILES}?include_deleted=true")).json()["count"] == 1
    assert (await alice.get(f"{FILES}{row['uid']}/")).status == 200


async def test_a_deleted_file_is_hidden(house: House, people: People) -> None:
    """It is in no list without include_deleted, says so in it, and is not read alone."""
    alice = people.alice
    pk = await alice.conversation("c")
    (row,) = await send(alice, pk, "a.txt")
    await house.run("UPDATE attachments SET deleted_at = 1 WHERE uid = $1", row["uid"])
    assert (await alice.get(FILES)).json()["results"] == []
    (shown,) = (await alice.get(f"{FILES}?include_deleted=1")).json()["results"]
    assert shown["is_deleted"]
    assert (await alice.get(f"{FILES}{row['uid']}/")).is_error(404, "not_found")


async def test_unknown_parameters_are_told(people: People) -> None:
    """As lists of conversations do; what cannot be read is a 400 that names it."""
    alice = people.alice
    answer = await alice.get(f"{FILES}?typ=image&page=1")
    assert answer.headers["x-agentsight-ignored-parameters"] == "typ"
    for query in (
        "type=picture", "detected_mime_type=image", "sha256=12", "size_min=-1", "size_max=x",
        "conversation=abc", "sent_after=yesterday", "ordering=color", "metadata=x", "scan=ok",
        "sender=nobody", "include_deleted=perhaps", "count=perhaps",
        "size_min=99999999999999999999", "text_contains=" + "x" * 1001,
    ):  # fmt: skip
        answer = await alice.get(f"{FILES}?{query}")
        assert answer.is_error(400, "invalid"), query
        assert query.partition("=")[0] in answer.json(), query
    for name in DESCRIPTIONS:
        assert (await alice.get(f"{FILES}?{name}=%20")).status == 200, name


async def test_others_see_none_of_it(people: People) -> None:
    """Carol's and Bob's lists are their own, whatever they ask for."""
    alice = people.alice
    pk = await alice.conversation("c", customer_id="x")
    (row,) = await send(alice, pk, "secret.txt", metadata={"a": "b"})
    for person in (people.bob, people.carol):
        for query in (
            {}, {"filename_contains": "secret"}, {"contains": "secret"}, {"contains": "se"},
            {"text_contains": "bytes"}, {"conversation": pk}, {"conversation_id": "c"},
            {"customer_id": "x"}, {"sha256": row["sha256"]}, {"include_deleted": "true"},
            {"environment": "production"}, {"scan": "not_scanned"},
        ):  # fmt: skip
            listed = (await person.get(FILES, query)).json()
            assert (listed["count"], listed["results"]) == (0, []), query
        assert (await person.get(f"{FILES}{row['uid']}/")).is_error(404, "not_found")
        answer = await person.get("/api/conversations/", {"attachment_contains": "secret"})
        assert answer.json()["count"] == 0


async def test_v1_names_a_conversation_in_three_ways(people: People) -> None:
    """The one call's answer comes by row id, uid and the caller's own id, deleted or not."""
    alice = people.alice
    pk = await alice.conversation("Straße 7")
    await send(alice, pk, "a.txt")
    uid = (await alice.get("/api/conversations/lookup/", {"conversation_id": "Straße 7"})).json()
    wanted = await alice.files(pk)
    for _ in range(2):
        for ref in (pk, uid["uid"], "by-id/Stra%C3%9Fe%207"):
            answer = await alice.get(f"/api/v1/conversations/{ref}/attachments/")
            assert answer.json() == wanted, ref
        await alice.writer.send("DELETE", f"/api/conversations/{pk}/delete/")
    # A caller's id that looks like another's row id means what it says.
    other = await alice.conversation(str(pk))
    answer = await alice.get(f"/api/v1/conversations/by-id/{pk}/attachments/")
    assert answer.json()["conversation"] == other
    for ref in (pk, uid["uid"], "by-id/Stra%C3%9Fe%207", "0", "by-id/nobody", "%00", "1e3"):
        answer = await people.carol.get(f"/api/v1/conversations/{ref}/attachments/")
        assert answer.is_error(404, "not_found"), ref


def test_a_page_behind_the_last_one_is_not_there() -> None:
    """Without a count it is known by having no rows; the first page is always one."""
    empty = make_open_envelope(
        page=parse_page("1", "5"), n_rows=0, has_more=False, count=None, url="u", query=""
    )
    assert (empty.count, empty.count_is_exact, empty.total_pages, empty.next) == (0, True, 1, None)
    with pytest.raises(Problem, match="Invalid page"):
        make_open_envelope(
            page=parse_page("2", "5"), n_rows=0, has_more=False, count=None, url="u", query=""
        )
