"""Looking at old files again: what is forgotten, what stays, and what a new library then gives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentsight.server.access import job_access
from agentsight.server.attachments.facts import Facts, decode_facts, encode_facts
from agentsight.server.media import Examined, Examiner, Made
from agentsight.server.parts import Parts
from agentsight.server.previews.examining import examine_step
from agentsight.server.previews.model import wanted_thumbnail
from agentsight.server.previews.retrying import retry_previews
from agentsight.server.previews.service import find_by_link, no_preview, serve_derived
from agentsight.server.problems import Problem
from tests.server.previews.gallery import data_of, send_files
from tests.support.http import House, Person, open_house

pytestmark = pytest.mark.anyio


class WithoutLibraries(Examiner):
    """An examiner as on a server where no media library is installed."""

    def __init__(self) -> None:
        super().__init__(memory_bytes=1 << 30, timeout_s=30)

    async def examine(self, path: Path, *, mime_type: str, filename: str) -> Examined:
        return Examined()

    async def thumbnail(
        self, path: Path, *, mime_type: str, max_edge: int, out: Path
    ) -> Made | None:
        return None

    playback = thumbnail  # type: ignore[assignment]


class Shelf:
    """A house with old files, a server without libraries, and one with them."""

    def __init__(self, house: House, person: Person, old: Parts, new: Parts) -> None:
        self.house, self.person, self.old, self.new = house, person, old, new

    async def facts(self) -> dict[str, Facts]:
        """Read what the files' rows show, by name."""
        rows = await self.house.rows("SELECT filename, facts FROM attachments ORDER BY id")
        return {name: decode_facts(text) for name, text in rows}

    async def retry(self, *, also_complete: bool = False) -> int:
        return await retry_previews(
            self.house.db,
            job_access(self.person.access.organisation_id),
            max_examined_bytes=1 << 30,
            also_complete=also_complete,
            now_us=self.house.clock(),
        )


@pytest.fixture
async def shelf(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Shelf]:
    """Open a house whose own chore does not examine."""
    async with open_house(database_url, tmp_path) as house:
        people = await house.people()
        poor, rich = WithoutLibraries(), Examiner(memory_bytes=1 << 30, timeout_s=30)
        parts = house.parts
        yield Shelf(
            house, people.alice, replace(parts, examiner=poor), replace(parts, examiner=rich)
        )
        await poor.close()
        await rich.close()


async def open_thumbnail(parts: Parts, uid: str) -> int:
    """Ask for a file's thumbnail as its link does; return the thumbnail's size in bytes."""
    wanted, sizes = wanted_thumbnail(512), []
    found = await find_by_link(parts, uid, wanted)
    assert found is not None

    async def send(row: object) -> None:
        sizes.append(getattr(row, "size_bytes"))  # noqa: B009 - any row that is served

    await serve_derived(parts, found, wanted, send)
    return sizes[0]


@pytest.mark.slow
async def test_a_library_that_is_installed_later_helps_old_files(shelf: Shelf) -> None:
    """What could not be made is forgotten, examined again, and is there."""
    names = ("sample.png", "sample.pdf", "sample.opus", "note.txt")
    rows = await send_files(shelf.person, *((name, data_of(name)) for name in names))
    for name in ("sample.png", "sample.pdf"):
        with pytest.raises(Problem, match=no_preview().detail):
            await open_thumbnail(shelf.old, rows[name]["uid"])
    while await examine_step(shelf.old):
        pass
    for facts in (await shelf.facts()).values():
        assert (facts.preview, facts.playback, facts.seconds) == (None, None, None)
    assert await shelf.house.count("derivatives", "state = 'none'") == 2

    assert await shelf.retry() == 4
    assert await shelf.house.count("derivatives") == 0
    assert await shelf.house.count("blobs", "text_state = 'waiting'") == 4
    assert await shelf.house.count("blob_jobs", "kind = 'examine' AND attempts = 0") == 4
    while await examine_step(shelf.new):
        pass
    found = await shelf.facts()
    assert (found["sample.png"].preview, found["sample.png"].width) == ("image", 200)
    assert (found["sample.pdf"].preview, found["sample.pdf"].pages) == ("image", 1)
    assert (found["note.txt"].preview, found["sample.opus"].playback) == ("text", "m4a")
    for name in ("sample.png", "sample.pdf"):
        assert await open_thumbnail(shelf.new, rows[name]["uid"]) > 100
    # Nothing is lacking any more.
    assert await shelf.retry() == 0


async def test_files_that_lack_nothing_keep_what_they_have(shelf: Shelf) -> None:
    """With `also_complete` they are read again; copies, texts and the search stay as they are."""
    rows = await send_files(
        shelf.person,
        ("a.png", data_of("sample.png")),
        ("a.txt", b"a word"),
        ("a.zip", data_of("sample.zip")),
    )
    while await examine_step(shelf.new):
        pass
    await open_thumbnail(shelf.new, rows["a.png"]["uid"])
    before = await shelf.house.rows("SELECT * FROM attachments ORDER BY id")
    assert await shelf.retry() == 0
    assert await shelf.retry(also_complete=True) == 2  # nothing is ever learned of the third
    assert await shelf.retry(also_complete=True) == 2
    assert await shelf.house.count("blob_jobs") == 2
    assert await shelf.house.rows("SELECT * FROM attachments ORDER BY id") == before
    assert await shelf.house.count("derivatives", "state = 'stored'") == 1
    answer = await shelf.person.get("/api/v1/attachments/", {"text_contains": "WORD"})
    assert answer.json()["count"] == 1
    while await examine_step(shelf.new):
        pass
    assert await shelf.house.count("blob_texts") == 1


async def test_old_office_files_that_an_older_version_could_not_read_are_read(
    shelf: Shelf,
) -> None:
    """Their detected type was that of any compound file, which nothing was ever learned of."""
    names = ("chairs.doc", "chairs.xls", "chairs.ppt")
    await send_files(shelf.person, *((name, data_of(name)) for name in names))
    await shelf.house.run("DELETE FROM blob_jobs")
    old_facts = encode_facts(Facts("application/x-ole-storage"))
    await shelf.house.run(
        "UPDATE blobs SET detected_mime_type = 'application/x-ole-storage', text_state = 'none',"
        " facts = $1",
        old_facts,
    )
    await shelf.house.run("UPDATE attachments SET facts = $1", old_facts)
    assert await shelf.retry() == 3
    while await examine_step(shelf.new):
        pass
    found = {name: (f.detected_mime_type, f.preview, f.pages)
             for name, f in (await shelf.facts()).items()}  # fmt: skip
    assert found == {
        "chairs.doc": ("application/msword", "text", None),
        "chairs.xls": ("application/vnd.ms-excel", "text", 2),
        "chairs.ppt": ("application/vnd.ms-powerpoint", "text", 3),
    }
    assert await shelf.house.count("blob_texts") == 3
    answer = await shelf.person.get("/api/v1/attachments/", {"text_contains": "chairs"})
    assert answer.json()["count"] == 2
    assert await shelf.retry() == 0


async def test_another_organisations_files_are_not_touched(shelf: Shelf) -> None:
    """And neither is what is larger than is ever examined, or is on its way out."""
    await send_files(shelf.person, ("a.png", data_of("sample.png")))
    while await examine_step(shelf.old):
        pass
    nobody = job_access(type(shelf.person.access.organisation_id)(10**6))
    at = shelf.house.clock()
    mine = job_access(shelf.person.access.organisation_id)
    db = shelf.house.db
    assert await retry_previews(db, nobody, max_examined_bytes=1 << 30, now_us=at) == 0
    assert await retry_previews(db, mine, max_examined_bytes=10, now_us=at) == 0
    await shelf.house.run("UPDATE blobs SET state = 'deleting'")
    assert await shelf.retry() == 0
    assert await shelf.house.count("blob_jobs") == 0
