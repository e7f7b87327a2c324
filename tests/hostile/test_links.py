"""A link is what it was made as: any change gives the same 404, and it dies with its file."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.http import House, People, base64_file, path_of, without_request_id

pytestmark = pytest.mark.anyio


async def make_link(people: People, name: str = "report.pdf") -> dict[str, Any]:
    """Store a file and return its row."""
    pk = await people.alice.conversation()
    body = {"conversation": pk, "attachments": [base64_file(b"%PDF-1.7 secret", name)]}
    return (await people.alice.post("/api/attachments/", body)).json()["attachments"][0]


async def test_a_link_needs_no_key(house: House, people: People) -> None:
    """Whoever has it opens it, with GET and HEAD; POST is 405."""
    path = path_of((await make_link(people))["file_url"])
    assert (await house.stranger.get(path)).body == b"%PDF-1.7 secret"
    head = await house.stranger.send("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, "15", b"")
    posted = await house.stranger.send("POST", path)
    assert posted.is_error(405, "method_not_allowed")


async def test_every_byte_counts(house: House, people: People) -> None:
    """Each character of the path changed, dropped or doubled gives one and the same 404."""
    path = path_of((await make_link(people))["file_url"])
    refused = await house.stranger.get("/files/x/y/z")
    assert refused.is_error(404, "link_invalid")
    told = without_request_id(refused)
    start = len("/files/")
    for i in range(start, len(path)):
        other = "0" if path[i] != "0" else "1"
        for altered in (path[:i] + other + path[i + 1 :], path[:i] + path[i + 1 :],
                        path[:i] + path[i] + path[i:]):  # fmt: skip
            if altered == path:
                continue
            answer = await house.stranger.get(altered)
            assert answer.is_error(404, "link_invalid"), altered
            assert without_request_id(answer) == told
            assert "etag" not in answer.headers


async def test_parts_of_two_links_do_not_mix(house: House, people: People) -> None:
    """A token opens its own file under its own name and nothing else."""
    one = path_of((await make_link(people, "one.pdf"))["file_url"]).split("/")
    two = path_of((await make_link(people, "two.pdf"))["file_url"]).split("/")
    for segment in (2, 3, 4):
        mixed = [*one[:segment], two[segment], *one[segment + 1 :]]
        assert (await house.stranger.get("/".join(mixed))).is_error(404, "link_invalid")


@pytest.mark.parametrize(
    "tail", ["/", "/x", "%00", "%2F", "/../report.pdf", "%0A", ".", "?x=1", "#x", "%C0%AF"]
)
async def test_tails(house: House, people: People, tail: str) -> None:
    """What is hung on a link breaks it; a query is ignored, since it names nothing."""
    path = path_of((await make_link(people))["file_url"])
    answer = await house.stranger.get(path + tail)
    if tail in ("?x=1", "#x"):
        assert answer.status == 200
    else:
        assert answer.is_error(404, "link_invalid")


async def test_a_link_expires(house: House, people: People) -> None:
    """After its day it is the same 404; the permanent address goes on working for its owner."""
    file = await make_link(people)
    house.clock.move(7 * 86400)
    assert (await house.stranger.get(path_of(file["file_url"]))).status == 200
    house.clock.move(86400)
    expired = await house.stranger.get(path_of(file["file_url"]))
    assert expired.is_error(404, "link_invalid")
    content = path_of(file["url"])
    assert (await people.alice.reader.get(content)).body == b"%PDF-1.7 secret"
    assert (await house.stranger.get(content)).is_error(401, "not_authenticated")
    for person in (people.bob, people.carol):
        assert (await person.get(content)).is_error(404, "not_found")


@pytest.mark.parametrize(
    "deletion",
    [
        "UPDATE attachments SET deleted_at = 1 WHERE id = $1",
        "UPDATE blobs SET state = 'deleting' WHERE id = (SELECT blob_id FROM attachments"
        " WHERE id = $1)",
        "DELETE FROM attachments WHERE id = $1",
    ],
    ids=["deleted", "blob-going", "row-gone"],
)
async def test_a_link_dies_with_its_file(house: House, people: People, deletion: str) -> None:
    """The next request after a deletion is refused, on both addresses."""
    file = await make_link(people)
    assert (await house.stranger.get(path_of(file["file_url"]))).status == 200
    assert await house.run(deletion, file["id"]) == 1
    assert (await house.stranger.get(path_of(file["file_url"]))).is_error(404, "link_invalid")
    assert (await people.alice.get(path_of(file["url"]))).is_error(404, "not_found")


@pytest.mark.parametrize("table", ["attachments", "messages", "conversations"])
async def test_ids_are_never_reused(house: House, people: People, table: str) -> None:
    """After the newest row is gone, the next one does not get its id."""
    if table == "attachments":
        last = (await make_link(people))["id"]
        await house.run("DELETE FROM attachments WHERE id = $1", last)
        assert (await make_link(people))["id"] > last
        return
    pk = await people.alice.conversation("one")
    if table == "messages":
        last = await people.alice.message(pk)
        await house.run("DELETE FROM search_queue WHERE message_id = $1", last)
        await house.run("DELETE FROM messages WHERE id = $1", last)
        assert await people.alice.message(pk) > last
        return
    await house.run("DELETE FROM conversations WHERE id = $1", pk)
    assert await people.alice.conversation("two") > pk


async def test_a_file_gone_behind_our_back(house: House, people: People) -> None:
    """Bytes that are not there are 410 and no half an answer."""
    file = await make_link(people)
    [row] = await house.rows(
        "SELECT b.object_key FROM attachments a JOIN blobs b ON b.id = a.blob_id WHERE a.id = $1",
        file["id"],
    )
    await house.parts.blobs.delete(row[0])
    assert (await house.stranger.get(path_of(file["file_url"]))).is_error(410, "gone")


QUIET = settings(
    deadline=None, database=None, max_examples=60, derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
_RANGES = st.text("bytes=0123456789-, \tx\u00ff", max_size=30) | st.builds(
    "bytes={}-{}".format, st.integers(0, 20) | st.just(""), st.integers(0, 20) | st.just("")
)


@QUIET
@given(
    path=st.text(string.printable + "\u00e4\x00%/.", max_size=80),
    wanted=_RANGES,
    condition=st.text('"W/*, abc0123456789', max_size=20),
)
async def test_no_link_and_no_range_breaks_us(
    house: House, people: People, path: str, wanted: str, condition: str
) -> None:
    """Whatever is asked, the answer is one that HTTP knows, and never a 500."""
    guessed = await house.stranger.get("/files/" + quote(path, safe="/%"))
    assert guessed.status == 404
    file = await make_link(people)
    for name in ("if-range", "if-none-match", "if-match", "if-modified-since"):
        answer = await house.stranger.send(
            "GET", path_of(file["file_url"]), headers={"range": wanted, name: condition}
        )
        assert answer.status in (200, 206, 304, 412, 416)
