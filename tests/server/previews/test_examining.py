"""The background look at files: what is kept, what is tried again, what others must not feel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentsight.server import metrics
from agentsight.server.blobs import StorageUnavailable
from agentsight.server.ids import BlobId
from agentsight.server.media import Examined, Examiner, ExaminerDied, Made
from agentsight.server.parts import Parts
from agentsight.server.previews import store
from agentsight.server.previews.examining import MAX_ATTEMPTS, examine_now, examine_step
from agentsight.server.shares import Shares
from tests.server.previews.gallery import data_of, read_rows, send_files
from tests.support.http import House, People, Person, open_house, path_of
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.anyio


class ScriptedExaminer(Examiner):
    """An examiner that ends on every file while `is_dying`, and tells how often it was asked."""

    def __init__(self) -> None:
        super().__init__(memory_bytes=1 << 30, timeout_s=30)
        self.is_dying = False
        self.is_away = False
        self.n_asked = 0

    async def examine(self, path: Path, *, mime_type: str, filename: str) -> Examined:
        self._think(mime_type)
        return Examined(text=f"{filename} says: Straße", has_preview=True)

    async def thumbnail(
        self, path: Path, *, mime_type: str, max_edge: int, out: Path
    ) -> Made | None:
        self._think(mime_type)
        return None

    def _think(self, mime_type: str) -> None:
        self.n_asked += 1
        if self.is_away:
            raise OSError("no process can be started")
        if self.is_dying:
            raise ExaminerDied(mime_type, 1, "ended by SIGKILL")


class Study:
    """A house whose chore does not examine, so that a test does every step itself."""

    def __init__(self, house: House, people: People, examiner: ScriptedExaminer) -> None:
        self.house, self.person, self.examiner = house, people.alice, examiner
        self.stranger = people.carol
        self.parts = replace(house.parts, examiner=examiner)

    async def job(self) -> tuple[int, int] | None:
        """Return the one job's attempts, and the seconds until it is due."""
        rows = await self.house.rows("SELECT attempts, not_before FROM blob_jobs")
        return (rows[0][0], (rows[0][1] - self.house.clock()) // 1_000_000) if rows else None

    async def n_waiting(self, person: Person) -> int:
        """Count an agent's files that wait to be examined."""
        agent = person.access.agent_id
        return await self.house.count("blob_jobs", "agent_id = $1 AND kind = 'examine'", agent)

    async def text_state(self) -> str:
        """Return the one blob's."""
        [(state,)] = await self.house.rows("SELECT text_state FROM blobs")
        return state


@pytest.fixture
async def study(database_url: str, tmp_path: Path, anyio_backend: str) -> AsyncIterator[Study]:
    """Open a house with one agent and nothing in it."""
    async with open_house(database_url, tmp_path) as house:
        people, examiner = await house.people(), ScriptedExaminer()
        yield Study(house, people, examiner)
        await examiner.close()


async def test_text_and_facts_are_kept_together(study: Study) -> None:
    """One unit writes the facts, the text, the index row and the end of the job."""
    await send_files(study.person, ("a.txt", b"hello"))
    assert await study.job() == (0, 0)
    assert await examine_step(study.parts) == 1
    assert await examine_step(study.parts) == 0
    assert await study.job() is None
    assert await study.text_state() == "stored"
    texts = await study.house.rows("SELECT content, is_cut FROM blob_texts")
    assert texts == [("a.txt says: Straße", 0)]
    answer = await study.person.get("/api/v1/attachments/", {"text_contains": "STRASSE"})
    assert answer.json()["count"] == 1


async def test_a_file_that_ends_the_process_is_tried_three_times(study: Study) -> None:
    """With pauses in between; then it is left alone, counted, and offers nothing."""
    rows = await send_files(study.person, ("a.png", data_of("sample.png")))
    study.examiner.is_dying = True
    before = metrics.extraction_failures._value.get()
    for attempt in range(1, MAX_ATTEMPTS):
        assert await examine_step(study.parts) == 1
        job = await study.job()
        assert job is not None
        assert (job[0], job[1]) == (attempt, 60 * attempt**2)
        assert await examine_step(study.parts) == 0
        study.house.clock.move(job[1])
    assert await examine_step(study.parts) == 1
    assert await study.job() is None
    assert await study.text_state() == "failed"
    assert metrics.extraction_failures._value.get() == before + 1
    [(facts,)] = await study.house.rows("SELECT facts FROM attachments")
    assert facts == '["image/png"]'
    assert (await read_rows(study.person, rows))["a.png"]["preview_url"] is None


async def test_a_store_that_is_away_costs_no_attempt(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job in hand waits a minute as if it had not been taken."""
    await send_files(study.person, ("a.txt", b"text"))

    async def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise StorageUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(type(study.parts.blobs), "size", fail)
        with pytest.raises(StorageUnavailable):
            await examine_step(study.parts)
    assert await study.job() == (0, 60)
    study.house.clock.move(60)
    assert await examine_step(study.parts) == 1


async def test_an_orderly_stop_gives_jobs_back(study: Study) -> None:
    """What was taken and not done is due at once for whoever comes next."""
    await send_files(study.person, ("a.txt", b"one"))
    started = asyncio.Event()

    async def wait(*_args: Any, **_kwargs: Any) -> Examined:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    study.examiner.examine = wait  # type: ignore[method-assign]
    step = asyncio.create_task(examine_step(study.parts))
    await started.wait()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert await study.job() == (0, 0)


async def test_a_crash_leaves_jobs_for_later(study: Study) -> None:
    """Jobs that a killed process had in hand are due again when its time is over."""
    await send_files(study.person, ("a.txt", b"one"))
    lease_s = study.parts.settings.examine_timeout_s + 60
    await study.house.run("UPDATE blob_jobs SET attempts = 1, not_before = $1",
                          study.house.clock() + lease_s * 1_000_000)  # fmt: skip
    assert await examine_step(study.parts) == 0
    study.house.clock.move(lease_s)
    assert await examine_step(study.parts) == 1
    assert await study.job() is None


async def test_agents_take_turns(study: Study) -> None:
    """The one file of an agent waits for one file of another, not for its twenty."""
    await send_files(study.person, *((f"{n}.txt", b"text %d" % n) for n in range(20)))
    await send_files(study.stranger, ("late.txt", b"the last to come"))
    await examine_step(study.parts)
    await examine_step(study.parts)
    assert await study.n_waiting(study.stranger) == 0
    await send_files(study.stranger, *((f"{n}.txt", b"more %d" % n) for n in range(4)))
    for _ in range(4):
        await examine_step(study.parts)
    assert await study.n_waiting(study.stranger) == 2
    assert await study.n_waiting(study.person) == 17
    while await examine_step(study.parts):
        pass
    assert await study.house.count("blob_texts") == 25


async def test_whose_files_took_long_comes_after_the_others(study: Study) -> None:
    """What an agent took of the examiner's time it leaves to the others afterwards."""
    await send_files(study.person, *((f"{n}.txt", b"text %d" % n) for n in range(4)))
    study.parts.examining.charge(study.person.access.agent_id, 30)
    await send_files(study.stranger, *((f"{n}.txt", b"more %d" % n) for n in range(3)))
    for _ in range(3):
        assert await examine_step(study.parts) == 1
    assert await study.n_waiting(study.stranger) == 0
    assert await study.n_waiting(study.person) == 4
    assert await examine_step(study.parts) == 1  # nobody else waits


async def test_what_a_file_took_is_charged_to_its_agent(study: Study) -> None:
    """Also where it ended the process: it comes after the others' when it is tried again."""
    await send_files(study.person, ("a.png", data_of("sample.png")))
    study.examiner.is_dying = True
    seconds = iter(range(0, 1000, 30))
    shares = Shares(monotonic=lambda: float(next(seconds)))
    await examine_step(replace(study.parts, examining=shares))
    assert shares.last == study.person.access.agent_id
    assert study.person.access.agent_id in shares.owing()


async def test_of_one_agents_files_the_longest_waiting_is_first(study: Study) -> None:
    """Within an agent they are examined in the order they came."""
    await send_files(study.person, ("first.txt", b"one"))
    study.house.clock.move(1)
    await send_files(study.person, *((f"{n}.txt", b"text %d" % n) for n in range(4)))
    await examine_step(study.parts)
    texts = await study.house.rows("SELECT content FROM blob_texts")
    assert texts == [("first.txt says: Straße",)]


async def test_steps_at_once_take_different_jobs(study: Study) -> None:
    """Twelve workers examine twelve files once each."""
    await send_files(study.person, *((f"{n}.txt", b"text %d" % n) for n in range(12)))
    await asyncio.gather(*(examine_step(study.parts) for _ in range(12)))
    assert study.examiner.n_asked == 12
    assert await study.house.count("blob_texts") == 12


async def test_looking_again_replaces_what_was_there(study: Study) -> None:
    """Two that examine the same blob at once leave one text and one index row."""
    await send_files(study.person, ("a.txt", b"one"))
    [(blob_id,)] = await study.house.rows("SELECT id FROM blobs")
    agent = study.person.access.agent_id
    await asyncio.gather(*(examine_now(study.parts, agent, BlobId(blob_id)) for _ in range(3)))
    assert await study.house.count("blob_texts") == 1
    if study.house.db.dialect == "sqlite":
        assert await study.house.count("attachment_search") == 1


async def test_what_was_made_is_forgotten_with_its_blob(study: Study) -> None:
    """`forget_blob` removes text, index row and derivatives, and names their objects."""
    await send_files(study.person, ("a.txt", b"one"))
    await examine_step(study.parts)
    [(agent, blob)] = await study.house.rows("SELECT agent_id, id FROM blobs")
    await study.house.run(
        "INSERT INTO derivatives (agent_id, blob_id, kind, state, object_key, created_at,"
        " updated_at) VALUES ($1, $2, 'thumbnail-512', 'stored', 'derived/1/x', 1, 1),"
        " ($1, $2, 'playback', 'none', NULL, 1, 1)",
        agent, blob,
    )  # fmt: skip
    keys = await study.parts.db.write(lambda tx: store.forget_blob(tx, agent, blob))
    assert keys == ["derived/1/x"]
    for table in ("derivatives", "blob_texts", "attachment_search"):
        assert await study.house.count(table) == 0, table
    if study.house.db.dialect == "sqlite":
        # Says so when the index holds what no row says.
        await study.house.run("INSERT INTO attachment_search (attachment_search, rank)"
                              " VALUES ('integrity-check', 0)")  # fmt: skip


async def test_a_blob_that_goes_meanwhile_keeps_nothing(study: Study) -> None:
    """What was learned of a blob that is being deleted is thrown away."""
    await send_files(study.person, ("a.txt", b"one"))
    ask = study.examiner.examine

    async def examine(path: Path, **about: Any) -> Examined:
        await study.house.run("UPDATE blobs SET state = 'deleting'")
        return await ask(path, **about)

    study.examiner.examine = examine  # type: ignore[method-assign]
    await examine_step(study.parts)
    assert await study.house.count("blob_texts") == 0
    assert await study.job() is None


async def test_an_examiner_that_cannot_start_is_no_verdict(
    study: Study, database_url: str, tmp_path: Path
) -> None:
    """Who asks for a preview meanwhile hears 503, and nothing is written down."""
    rows = await send_files(study.person, ("a.png", data_of("sample.png")))
    study.examiner.is_away = True
    study.house.app.app.state.parts = study.parts
    path = path_of(rows["a.png"]["file_url"]).rpartition("/")[0] + "/preview/512.webp"
    assert (await study.house.stranger.get(path)).is_error(503, "busy")
    assert await study.house.count("derivatives") == 0
    with pytest.raises(OSError, match="no process"):
        await examine_step(study.parts)
    assert await study.job() == (0, 60)


async def test_a_picture_that_ends_the_process_ends_it_once(study: Study) -> None:
    """However often its preview is asked for."""
    rows = await send_files(study.person, ("a.png", data_of("sample.png")))
    study.examiner.is_dying = True
    study.house.app.app.state.parts = study.parts
    path = path_of(rows["a.png"]["file_url"]).rpartition("/")[0] + "/preview/512.webp"
    for _ in range(3):
        assert (await study.house.stranger.get(path)).is_error(404, "no_preview")
    assert study.examiner.n_asked == 1


async def test_too_large_to_be_examined(study: Study) -> None:
    """Nothing is opened that is over the limit; the file itself is served as ever."""
    rows = await send_files(study.person, ("a.png", data_of("sample.png")))
    settings = study.parts.settings
    parts: Parts = replace(
        study.parts, settings=type(settings)(**{**_values(settings), "max_examined_bytes": 1000})
    )
    assert await examine_step(parts) == 1
    assert study.examiner.n_asked == 0
    assert (await read_rows(study.person, rows))["a.png"]["preview_url"] is None
    answer = await study.house.stranger.get(path_of(rows["a.png"]["file_url"]))
    assert answer.body == data_of("sample.png")


def _values(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


async def test_examine_off(study: Study) -> None:
    """Without it rows offer nothing, links give 404, nothing is opened; jobs wait for later."""
    rows = await send_files(study.person, ("a.png", data_of("sample.png")), ("a.txt", b"hi"))
    assert study.house.parts.examiner is None
    assert await examine_step(study.house.parts) == 0
    for row in rows.values():
        assert (row["preview_url"], row["playback_url"]) == (None, None)
        folder = path_of(row["file_url"]).rpartition("/")[0]
        for name in ("512.webp", "text.txt"):
            answer = await study.house.stranger.get(f"{folder}/preview/{name}")
            assert answer.is_error(404, "no_preview")
    assert await study.house.count("blob_jobs") == 2


async def test_previews_outlive_a_restart(database_url: str, tmp_path: Path) -> None:
    """The next process serves what the last one made, and never makes it again."""
    async with open_house(database_url, tmp_path, examine=True) as house:
        people = await house.people()
        rows = await send_files(people.alice, ("a.png", data_of("sample.png")))
        path = path_of(rows["a.png"]["preview_url"])
        first = await house.stranger.get(path)
        assert first.status == 200
    async with open_house(database_url, tmp_path, examine=True) as house:
        again = await house.stranger.get(path)
        assert (again.status, again.body) == (200, first.body)
        assert await house.count("derivatives") == 1


async def test_on_an_object_store(
    database_url: str, tmp_path: Path, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same journey with S3: examined from a copy that does not stay, served with ranges."""
    for name, value in seaweed.environ.items():
        monkeypatch.setenv(name, value)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    url = seaweed.new_url()
    async with open_house(database_url, tmp_path, storage_url=url, examine=True) as house:
        people = await house.people()
        names = ("sample.pdf", "sample.opus", "orders.csv")
        rows = await send_files(people.alice, *((name, data_of(name)) for name in names))
        pdf = await house.stranger.get(path_of(rows["sample.pdf"]["preview_url"]))
        assert (pdf.status, pdf.headers["content-type"]) == (200, "image/webp")
        sound = path_of(rows["sample.opus"]["playback_url"])
        whole = await house.stranger.get(sound)
        assert whole.body[4:8] == b"ftyp"
        part = await house.stranger.send("GET", sound, headers={"range": "bytes=10-19"})
        assert (part.status, part.body) == (206, whole.body[10:20])
        text = await house.stranger.get(path_of(rows["orders.csv"]["preview_url"]))
        assert text.body == data_of("orders.csv").strip()
        derived = [item.key async for item in house.parts.blobs.list_objects("derived/")]
        assert len(derived) == 2
    assert not list(scratch.iterdir())
